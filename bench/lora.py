"""`python -m vivace.bench.lora`: the LoRA engine against safetensors, ComfyUI and naive code.

The files are of real size and lie in the page cache, which is the hardest case for the ratio of a
first apply to a plain read: with a slow disk both wait for the same bytes.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..devkit.layout import OUT
from .files import KINDS, Kind, scratch, write_stack
from .harness import Result, environment
from .models import start_comfy, whole
from .plot import LORA, draw

THREADS = 2


class Case(NamedTuple):
    """A rank, the numbers of files to stack, and how often to repeat each."""

    rank: int
    stacks: tuple[int, ...]
    rounds: tuple[int, ...]


CASES = {
    "qwen_image": (Case(16, (1, 4, 10), (7, 3, 3)), Case(64, (1, 2), (5, 3))),
    "z_image": (Case(16, (1, 4, 10), (7, 5, 3)), Case(64, (1, 4), (5, 3))),
}
QUICK = {name: (Case(16, (1, 4), (3, 3)),) for name in CASES}
NOTES = (
    "Ratios are taken within a round, in which all contenders run by turns; median (min .. max).",
    "Files are bf16, in the page cache. Freed memory is given back to the system before each timed"
    " part, so that all pay for their memory.",
    "The naive pipeline and ComfyUI's loader do not copy all that they return: tensors they pass"
    " on unchanged stay views of a memory map, whose pages are touched here. ComfyUI's merging of"
    " weights, which follows its loader, is not included.",
    "At rank 64 the stacks are smaller than at rank 16: ten Qwen-Image files would be 8.5 GB.",
    "The node's figures include ComfyUI's clone, the report, and the default cache (1/8 of RAM).",
)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Measure, print, and write JSON and plot."""
    parser = argparse.ArgumentParser(prog="python -m vivace.bench.lora", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer cases and repetitions")
    parser.add_argument("--output", type=Path, help="the JSON file; the plot lies beside it")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here")
    name = f"lora-{options.device}.json"
    default = OUT / "bench" / name if options.quick else Path(__file__).parent / "results" / name
    output: Path = options.output or default
    torch.set_num_threads(THREADS)
    version = start_comfy(options.device)
    logging.disable(logging.INFO)
    report = {**environment(options.device, version), "quick": options.quick, "notes": NOTES}
    results, details = run(options.device, options.quick)
    report["results"] = [result.as_json() for result in results]
    report["details"] = details
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, output.with_suffix(".png"), "LoRA engine", LORA)
    missed = sum(result.hit is False for result in results)
    held = sum(result.hit is True for result in results)
    say(f"\n{held} of {held + missed} targets hit. Written: {output.name} and its plot.")


def run(device: str, quick: bool) -> tuple[list[Result], list[dict[str, Any]]]:
    """All measurements: the ratios, and the milliseconds that they come from."""
    from . import forward, mapping  # ComfyUI has to be importable first

    results: list[Result] = []
    details: list[dict[str, Any]] = []

    def add(measured: tuple[list[Result], dict[str, Any]]) -> None:
        results.extend(measured[0])
        details.append(measured[1])
        for result in measured[0]:
            say(result.line())

    with scratch() as folder:
        for kind in KINDS:
            add(mapping.measure(kind, 3 if quick else 9))
        add(forward.measure(folder, device, 3 if quick else 9))
        for kind in KINDS:
            model = whole(kind.name)
            for case in (QUICK if quick else CASES)[kind.name]:
                for measured in _case(folder, kind, case, model, device, quick):
                    add(measured)
    return results, details


def _case(folder: Path, kind: Kind, case: Case, model: Any, device: str, quick: bool) -> Any:
    from . import loading, memory

    paths = write_stack(folder, kind, case.rank, max(case.stacks))
    for count, rounds in zip(case.stacks, case.rounds, strict=True):
        yield loading.measure(kind, case.rank, paths[:count], model, device, rounds)
    yield memory.measure(folder, kind, case.rank, paths[0], 1 if quick else 2)
    for path in paths:
        path.unlink()


if __name__ == "__main__":
    main()
