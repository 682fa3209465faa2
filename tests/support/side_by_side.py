"""A partner beside our stack, compared with the same partner on a model changed by hand.

A partner is what other nodes do to a model, to conditions or to a run. Ours is applied in the
default mode; the other model is a plain one whose weights hold the same change.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from vivace.devkit.doubles import svdquant_models
from vivace.devkit.doubles import tiny_models as tiny

from .applying import (
    MAKERS,
    apply,
    changed_by_hand,
    lora_file,
    random,
    relative_error,
    untouched,
)
from .layout_models import LAYOUTS, model_of

Patch = Callable[[Any], Any]  # a `ModelPatcher` to another
Run = Callable[[Any], torch.Tensor]  # a `ModelPatcher` to a latent

CLOSE = 2e-5
"""How far float32 products in another order may lie apart, relative to the latent."""


def conditions(seed: int = 2, tokens: int = 6) -> list[Any]:
    """Conditions of a made-up prompt, as a text encoder's node returns them."""
    return [[random(1, tokens, tiny.TEXT, seed=seed), {}]]


def sample(
    model: Any,
    positive: list[Any] | None = None,
    negative: list[Any] | None = None,
    *,
    cfg: float = 3.0,
    steps: int = 3,
    **options: Any,
) -> torch.Tensor:
    """The latent that ComfyUI's sampler makes of a fixed noise, guided by two prompts."""
    import comfy.sample

    shape = tiny.latent_shape(model)
    return comfy.sample.sample(
        model, random(*shape, seed=1), steps, cfg, "euler", "simple",
        positive or conditions(), negative or conditions(3, tokens=5), torch.zeros(shape),
        disable_pbar=True, seed=1, **options,
    )  # fmt: skip


SVDQUANT = "svdquant"
"""4-bit weights of comfy-kitchen, whose own low-rank branch gets the stack."""


class Compared:
    """What a comparison found, for tests that look closer.

    Attributes:
        base, got, wanted: the latents without a change, with our stack, and of the plain model.
        model: the base model.
        stack: a function that puts the stack on a patcher of it.
    """

    def __init__(self, folder: Path, family: str, kind: str, modules: dict[str, Any]) -> None:
        self.maker, known = MAKERS[family]
        if kind in LAYOUTS:
            self.maker = model_of
        elif kind == SVDQUANT:
            self.maker = lambda _: svdquant_models.kitchen(family)
        self.kind = kind
        self.path, self.deltas = lora_file(folder / "stack.safetensors", modules or known)
        self.model = self.maker(kind)

    def stack(self, model: Any) -> Any:
        return apply(model, (self.path, 1.0))

    def plain(self) -> Any:
        return changed_by_hand(self.maker, self.kind, [(self.deltas, 1.0)])

    def run(self, run: Run, tolerance: float) -> None:
        """Sample all three, and the base model again."""
        self.base = run(self.model)
        self.got = run(self.stack(self.model))
        self.wanted = run(self.plain())
        effect = relative_error(self.base, self.wanted)
        assert effect > 1e-3, "the stack must matter"
        # Layers that round their input make more of the last bit of a sum than it is.
        rounds = self.kind in ("fp8 quantized", SVDQUANT, *LAYOUTS)
        limit = effect / 5 if rounds else tolerance
        assert relative_error(self.got, self.wanted) < limit
        assert torch.equal(run(self.model), self.base)
        assert untouched(self.model)


def same_as_plain(
    folder: Path,
    run: Run = sample,
    *,
    family: str = "qwen_image",
    kind: str = "fp32",
    modules: dict[str, Any] | None = None,
    tolerance: float = CLOSE,
) -> Compared:
    """Assert that a run with our stack is that of the plain model, and leaves the base as it was.

    Args:
        folder: where the LoRA file is written.
        run: the partner's node and the sampler.
        family, kind: as in `MAKERS`; and in `tiny_models.KINDS`, in `LAYOUTS`, or `SVDQUANT`.
        modules: what the LoRA changes; None for those of the family.
    """
    compared = Compared(folder, family, kind, modules or {})
    compared.run(run, tolerance)
    return compared


def same_in_both_orders(folder: Path, patch: Patch, run: Run = sample, **options: Any) -> Compared:
    """As `same_as_plain` for what patches a model, before our stack and behind it, bit-equal."""
    compared = same_as_plain(folder, lambda model: run(patch(model)), **options)
    assert torch.equal(run(compared.stack(patch(compared.model))), compared.got)
    assert not torch.equal(compared.base, run(compared.model)), "the partner must matter"
    return compared
