"""`python -m vivace.devkit.bench.vlm`: the QwenVL engine beside plain transformers.

Vision towers of the dimensions of Qwen3-VL-4B and Qwen2.5-VL-7B, images of 1024 x 1024 pixels at
every preset, new and seen before; and the decoding of answers. Weights and images are random: the
time does not depend on them.
"""

from __future__ import annotations

import gc
import logging
import warnings
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from ...vlm.vision.quality import QUALITIES
from ...vlm.vision.tower_check import check_tower
from .command import Bench, Measured
from .files import scratch
from .harness import Result, Timings
from .plot import VLM
from .vlm_answers import AnswerPlan, measure
from .vlm_images import SIDE, Bed, Load, Run
from .vlm_models import SHAPES, Shape, build_model, build_tokenizer
from .vlm_ratios import Ratios

_ALL = tuple(QUALITIES)
_ENDS = ("balanced", "ultra")
DTYPES = {"cpu": torch.float32, "cuda": torch.bfloat16}
NOTES = (
    "Ratios are taken within a round, in which all contenders run by turns; median (min .. max).",
    f"Images of {SIDE} x {SIDE} pixels: float32 [height, width, channels] in main memory for ours,"
    " uint8 [channels, height, width] for transformers' own processor, which is given the preset's"
    " pixel budget and arrives at the same grid.",
    "New: a pixel changes before each time, so that the hash differs; embedding includes hashing,"
    " resizing, copying, encoding, and keeping the embedding. Seen before: embedded again, hash"
    " included; from disk: with nothing in memory, the file in the page cache.",
    "Compiled: after the warm-up, which `compile_seconds` has. What is found in the cache does not"
    " depend on whether the encoder is compiled.",
    "Plain transformers: the image processor of the model that works on tensors, and"
    " `get_image_features`, or `generate`, greedy; attention by `scaled_dot_product_attention` on"
    " both sides.",
    "Decoding: from the first token to the last; plain transformers tells them to a streamer, ours"
    " reports it, with the choice of the first token and the writing of the text. Answers are timed"
    " whole. `new`: nobody has seen the image; `seen`: our caches hold its embedding and the keys"
    " and values up to its end.",
    "Dimensions are those of the published configurations. Cases name the layers that are there of"
    " all: the first ones, with deepstack and full-attention layers in proportion. The decoding"
    " cases name those of the language model. Layers are alike, so the ratios change little, but"
    " for what has been seen before: its target is measured with the whole tower only.",
    "float32 on the CPU, bfloat16 on CUDA. The copy is timed by the device, from pinned memory,"
    " while the host goes on; on the CPU there is none, so there is no figure for it.",
)


class Group(NamedTuple):
    """Loads of a tower that has one in `share` of its layers."""

    share: int
    loads: tuple[Load, ...]


class Plan(NamedTuple):
    """How much of everything; answers come from the last group's models."""

    shapes: tuple[Shape, ...]
    groups: tuple[Group, ...]
    answers: AnswerPlan


def main() -> None:
    """Measure, print, and write JSON and plot."""
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    Bench("vlm", "QwenVL engine", NOTES, VLM).main(__doc__, _run)


def _plan(device: str, quick: bool) -> Plan:
    if quick:
        one = Load(1, 1, _ALL, ("balanced",), _ENDS, ())
        return Plan(SHAPES[:1], (Group(24, (one,)),), AnswerPlan(4, 1, 1))
    if device == "cpu":
        whole = Load(1, 1, _ENDS, (), (), ())
        one = Load(1, 3, _ALL, _ALL, _ENDS, ("fast",))
        four = Load(4, 1, _ENDS, (), (), ())
        return Plan(SHAPES, (Group(1, (whole,)), Group(4, (one, four))), AnswerPlan(16, 5, 2))
    loads = [Load(count, 10, _ALL, _ALL, _ALL, _ALL) for count in (1, 4)]
    return Plan(SHAPES, (Group(1, tuple(loads)),), AnswerPlan(128, 5, None))


def _run(device: str, quick: bool) -> Measured:
    plan = _plan(device, quick)
    tokenizer = build_tokenizer()
    results: list[Result] = []
    details: list[dict[str, Any]] = [_speed(device)]
    with scratch() as folder:
        for shape in plan.shapes:
            for group in plan.groups:
                gc.collect()  # two models may not fit
                answers = tokenizer if group is plan.groups[-1] else None
                measured = _measure(shape, device, group, plan.answers, answers, folder)
                results += measured[0]
                details += measured[1]
    return results, details


def _measure(
    shape: Shape, device: str, group: Group, answers: AnswerPlan, tokenizer: Any, folder: Path
) -> Measured:
    model = build_model(shape, device, DTYPES[device], group.share, answers.layers)
    bed = Bed(shape, model, device)
    error = float(f"{check_tower(bed.towers['eager'].module):.2g}")
    results: list[Result] = []
    details: list[dict[str, Any]] = [{"case": bed.case, "relative_error_to_transformers": error}]
    for load in group.loads:
        run = Run(bed, load, folder)
        run.measure()
        found = Ratios(run).all()
        _say(found)
        results += found
        details.append(run.details())
    if tokenizer is not None:
        found, detail = measure(bed, model, tokenizer, answers)
        _say(found)
        results += found
        details.append(detail)
    return results, details


def _speed(device: str) -> dict[str, Any]:
    """What a product of matrices reaches in both dtypes, which is why the CPU has float32."""
    rows, inner, columns = 3136, 1024, 4096
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.randn(rows, inner, device=device, dtype=dtype)
        b = torch.randn(columns, inner, device=device, dtype=dtype)
        timings = Timings(device)
        for _ in range(5):
            timings.time("product", lambda a=a, b=b: torch.nn.functional.linear(a, b))
        seconds = median(timings.seconds["product"])
        found[str(dtype)] = float(f"{2 * rows * inner * columns / seconds / 1e9:.3g}")
    return {"case": f"product of matrices, {rows} x {inner} x {columns}", "gflops": found}


def _say(results: list[Result]) -> None:
    for result in results:
        print(result.line(), flush=True)


if __name__ == "__main__":
    main()
