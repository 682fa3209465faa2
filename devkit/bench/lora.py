"""`python -m vivace.devkit.bench.lora`: the LoRA engine beside safetensors, ComfyUI, naive code.

The files are of real size and lie in the page cache, which is the hardest case for the ratio of a
first apply to a plain read: with a slow disk both wait for the same bytes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from .command import Bench
from .files import KINDS, Kind, scratch, write_stack
from .harness import Result
from .models import whole
from .plot import LORA


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
    print(text, flush=True)


def main() -> None:
    """Measure, print, and write JSON and plot."""
    logging.disable(logging.INFO)
    results = Bench("lora", "LoRA engine", NOTES, LORA).main(__doc__, run)
    missed = sum(result.hit is False for result in results)
    held = sum(result.hit is True for result in results)
    say(f"{held} of {held + missed} targets hit.")


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
