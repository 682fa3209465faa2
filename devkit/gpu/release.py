"""Claims about memory that 4-bit layers take for appended ranks, and give back."""

from __future__ import annotations

from typing import Any

from ..doubles import svdquant_models
from . import models
from .card import Card
from .claims import Claim, Measured

_SLACK = 1.01
_STACKS = 10
_LAYERS = (*(f"{models.BLOCK}.attn.to_{name}" for name in "qkv"), f"{models.BLOCK}.img_mlp.net.2")


def _bytes_after(card: Card, model: Any, rank: int = 0) -> int:
    """Bytes in use after a run with a stack, or with none, and after everything was unloaded."""
    if rank:
        path, _ = models.lora_file(card, model, "ranks", _LAYERS, rank, seed=rank)
        patched = models.apply(model, (path, 1.0))
        svdquant_models.sample(patched)
        models.unload()
        del patched
    else:
        svdquant_models.sample(model)
        models.unload()
    return card.bytes_in_use()


def unloading_returns(card: Card) -> Measured:
    """Bytes in use after unloading, without a stack so far, and after one of rank 64."""
    model = models.svdquant(card)
    before = _bytes_after(card, model)
    after = _bytes_after(card, model, 64)
    return Measured(
        f"{before / 2**20:.2f} MiB before, {after / 2**20:.2f} MiB after",
        after <= _SLACK * before,
        {"before": before, "after": after},
    )


def stacks_leave_nothing(card: Card) -> Measured:
    """Bytes in use after each of ten stacks of different rank."""
    model = models.svdquant(card)
    _bytes_after(card, model)
    ranks = [16 * (index + 1) for index in range(3 if card.dry else _STACKS)]
    after = [_bytes_after(card, model, rank) for rank in ranks]
    return Measured(
        f"{after[0] / 2**20:.2f} MiB after the first, {after[-1] / 2**20:.2f} MiB after the last,"
        f" {max(after) / 2**20:.2f} MiB at most",
        max(after) <= _SLACK * after[0],
        {"ranks": ranks, "after": after},
    )


CLAIMS = (
    Claim(
        "ranks-return", "row 7",
        "Unloading a 4-bit model with appended ranks returns all that they took, within 1 %",
        unloading_returns, 20, False,
    ),
    Claim(
        "ranks-flat", "row 12", "Ten stacks of different rank on a 4-bit model leave memory flat",
        stacks_leave_nothing, 40, False,
    ),
)  # fmt: skip
