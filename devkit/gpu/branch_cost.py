"""Claims about what a branch costs in a step, beside weights with the LoRAs merged in."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..bench.forward import arithmetic_share, step_inputs
from ..bench.harness import Timings, spread
from . import models
from .card import Card
from .claims import Claim, Measured

RANKS = (16, 32, 64, 128)
_FILE_RANK = 16
_TARGET = 1.03


def overhead(card: Card, rank: int) -> Measured:
    """Steps of one block with a stack as branches, and with the same stack merged, by turns."""
    branched, merged = models.wide(card), models.wide(card)
    files = [
        (models.lora_file(card, branched, f"cost-{i}", rank=_FILE_RANK, seed=i)[0], 0.5)
        for i in range(rank // _FILE_RANK)
    ]
    patched = models.apply(branched, *files, mode="branch")
    models.apply(merged, *files, mode="merge").patch_model(device_to=card.device)
    inputs = step_inputs(card.kind, torch.bfloat16, models.text_width(branched))
    timings = Timings(card.kind)
    plain = _repeated(merged.model.diffusion_model, inputs, 1 if card.dry else 5)
    with models.installed(patched, card.device) as network:
        beside = _repeated(network, inputs, 1 if card.dry else 5)
        plain()
        beside()
        for _ in range(3 if card.dry else 15):
            timings.time("merged", plain, fresh=False)
            timings.time("branch", beside, fresh=False)
    ratio = spread(timings.ratios("branch", "merged"))
    tokens = inputs[0].shape[-1] ** 2 // 4 + inputs[2].shape[1]
    share = arithmetic_share(tokens, rank)
    return Measured(
        f"{ratio['median']:.4g} ({ratio['min']:.4g} .. {ratio['max']:.4g}); multiplications alone"
        f" {1 + share:.4g} at full width",
        ratio["median"] <= _TARGET,
        {"ratio": ratio, "arithmetic": 1 + share, "milliseconds": timings.summary()},
    )


def _repeated(network: Any, inputs: tuple[torch.Tensor, ...], times: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(times):
            network(*inputs)

    return run


CLAIMS = tuple(
    Claim(
        f"overhead-{rank}", "figure: overhead per step",
        f"A stack of total rank {rank} beside all layers costs at most {_TARGET} merged steps",
        partial(overhead, rank=rank), 25, False,
    )
    for rank in RANKS
)  # fmt: skip
