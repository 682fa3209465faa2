"""`python -m vivace.devkit.bench.svdquant`: LoRAs on Nunchaku's layers, and its checkpoints.

480 SVDQuant and 120 modulation layers with factors of real size, as in Qwen-Image; LoRAs of real
size in memory, since reading them is measured elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...lora.compose import Composer
from ...lora.loader import Lora, load_lora
from ...lora.mapping.architecture import Architecture
from ...lora.mapping.supported_models import qwen_image
from ...lora.stack import LoraSet
from ...wrappers.targets.appended_ranks import AppendedRanks, Wanted
from ...wrappers.targets.rank_target import rank_targets
from .command import Bench, Measured
from .files import KINDS, scratch, write_stack
from .harness import Result, Target, Timings, spread
from .plot import SVDQUANT
from .repack import Repacker

BASE_RANK = 32
LOAD_BLOCKS = 8
NOTES = (
    "Ratios are taken within a round, in which all contenders run by turns; median (min .. max).",
    "Both sides start from LoRAs in memory. Ours includes composing the stack.",
    f"The checkpoint has {LOAD_BLOCKS} of 60 blocks of Qwen-Image at rank {BASE_RANK}, random"
    " bytes, in the page cache. The plain read is our own reader's, of the same tensors.",
)


def main() -> None:
    """Measure, print, and write JSON and plot."""
    Bench("svdquant", "LoRAs and checkpoints of Nunchaku", NOTES, SVDQUANT).main(__doc__, _run)


@torch.inference_mode()
def _run(device: str, quick: bool) -> Measured:
    from .checkpoint_load import measure as measure_load

    results: list[Result] = []
    details: list[dict[str, Any]] = []
    depth = 6 if quick else 60
    with scratch() as folder:
        for rank in (16,) if quick else (16, 64):
            measured = _changes(folder, device, depth, rank, 2 if quick else 3)
            results += measured[0]
            details.append(measured[1])
        measured = measure_load(folder, 1 if quick else LOAD_BLOCKS, 2 if quick else 5)
        results += measured[0]
        details.append(measured[1])
    for result in results:
        print(result.line(), flush=True)
    return results, details


class _Svdq(nn.Module):
    """The part of a SVDQuant layer that LoRAs change, at real size."""

    def __init__(self, out: int, inp: int, device: str) -> None:
        super().__init__()
        self.in_features, self.rank = inp, BASE_RANK
        for name, channels in (("proj_down", inp), ("proj_up", out)):
            values = torch.randn(channels, BASE_RANK, device=device, dtype=torch.bfloat16)
            setattr(self, name, nn.Parameter(values, requires_grad=False))
        for name in ("qweight", "wscales", "smooth_factor"):
            setattr(self, name, nn.Parameter(torch.empty(0), requires_grad=False))


class _Awq(nn.Module):
    """A modulation layer, as far as LoRAs are concerned."""

    def __init__(self, inp: int, device: str) -> None:
        super().__init__()
        self.in_features = inp
        empty = torch.empty(0, device=device, dtype=torch.bfloat16)
        for name in ("qweight", "wscales", "wzeros"):
            setattr(self, name, nn.Parameter(empty, requires_grad=False))


def _layers(architecture: Architecture, device: str) -> dict[str, nn.Module]:
    layers: dict[str, nn.Module] = {}
    inside = {block.module for blocks in architecture.fusions.values() for block in blocks}
    for path in architecture.fusions:
        out, inp = architecture.target(path).shape
        layers[path] = _Svdq(out, inp, device)
    for path, module in architecture.modules.items():
        if module.kind != "linear" or path in inside or not path.startswith("transformer_blocks"):
            continue
        out, inp = module.shape
        layers[path] = _Awq(inp, device) if "_mod." in path else _Svdq(out, inp, device)
    return layers


def _changes(
    folder: Path, device: str, depth: int, rank: int, rounds: int
) -> tuple[list[Result], dict[str, Any]]:
    architecture = qwen_image(depth)
    layers = _layers(architecture, device)
    targets = rank_targets(architecture, layers.get)
    network = nn.Module()
    ranks = AppendedRanks(network, targets)
    fusions = [path for path in targets if path in architecture.fusions]
    one, two = (
        load_lora(path, "cpu", (architecture,))
        for path in write_stack(folder, KINDS[0], rank, 2, depth)
    )
    naive = Repacker(
        {path: layer for path, layer in layers.items() if isinstance(layer, _Svdq)}, architecture
    )
    timings = Timings(device)
    for _ in range(rounds):
        composer = Composer(architecture, fusions, dtype=torch.bfloat16)
        _ours(timings, ranks, composer, one, two)
        _theirs(timings, naive, one, two)
    case = f"{len(targets)} layers, rank {rank}"
    results = [
        _result(
            timings, case, f"naive {what}", what, f"unpack, join, repack / ours, {what}", target
        )
        for what, target in (
            ("first apply", Target("at least", 20)),
            ("strength", Target("at least", 500)),
            ("swap", None),
            ("removal", None),
        )
    ]
    results += [
        _result(timings, case, "first apply", what, f"first apply / {what}", None)
        for what in ("strength", "swap", "removal")
    ]
    return results, {"case": case, "milliseconds": timings.summary()}


def _result(
    timings: Timings, case: str, numerator: str, denominator: str, label: str, target: Target | None
) -> Result:
    result = Result(case, label, spread(timings.ratios(numerator, denominator)), target)
    if result.hit is not False:
        return result
    reason = (
        "both sides are bound by memory: ours writes the new ranks once, and the naive way reads,"
        " permutes and writes base and LoRA twice"
    )
    return Result(case, label, result.ratio, target, reason)


def _ours(timings: Timings, ranks: Any, composer: Composer, one: Lora, two: Lora) -> None:
    for what, stack in _steps(one, two):
        timings.time(
            what, lambda stack=stack: ranks.reconcile(Wanted(composer.compose(LoraSet(stack))))
        )


def _theirs(timings: Timings, naive: Repacker, one: Lora, two: Lora) -> None:
    for what, stack in _steps(one, two):
        timings.time(f"naive {what}", lambda stack=stack: naive.apply(stack))


def _steps(one: Lora, two: Lora) -> list[tuple[str, list[tuple[Lora, float]]]]:
    return [
        ("first apply", [(one, 0.8)]),
        ("strength", [(one, 0.3)]),
        ("swap", [(two, 0.8)]),
        ("removal", []),
    ]


if __name__ == "__main__":
    main()
