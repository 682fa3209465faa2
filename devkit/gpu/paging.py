"""Claims about where factors are, and about other models and other cards."""

from __future__ import annotations

import torch

from ..doubles import tiny_models as tiny
from . import models
from .card import Card
from .claims import Claim, Measured, NotApplicableError


def factors_are_on_the_device(card: Card) -> Measured:
    """After a run: bytes of factors that are on the device, of all that there are."""
    model = tiny.qwen_image()
    path, _ = models.lora_file(card, model, "pages")
    patched = models.apply(model, (path, 1.0))
    tiny.sample(patched)
    holder = models.holder(patched)
    whole = holder.model.nbytes
    if holder.is_dynamic():  # pages of its own, which are no tensors of torch
        there = min(whole, holder.loaded_size())
    else:
        places = [t for t in holder.model.pages.parameters() if t.device == card.device]
        there = sum(tensor.nbytes for tensor in places)
    return Measured(
        f"{there} of {whole} bytes on the device, {len(holder.model.pages)} pages",
        there == whole > 0,
        {"there": there, "whole": whole, "dynamic": holder.is_dynamic()},
    )


def others_stay(card: Card) -> Measured:
    """Another dynamic model on the card, before and after a stack is applied and run."""
    import comfy.model_management as management

    card.needs_dynamic()
    other, model = tiny.z_image(), tiny.qwen_image()
    tiny.sample(other)
    before = other.loaded_size()
    path, _ = models.lora_file(card, model, "others")
    patched = models.apply(model, (path, 1.0))
    tiny.sample(patched)
    after = other.loaded_size()
    listed = any(loaded.model is other for loaded in management.current_loaded_models)
    alike = models.holder(patched).is_dynamic() == model.is_dynamic()
    return Measured(
        f"{after} of {before} bytes of it are still there; ComfyUI lists it: {listed};"
        f" factors are paged as the model is: {alike}",
        alike and (card.dry or (listed and after >= before > 0)),
        {"before": before, "after": after, "listed": listed, "dynamic": model.is_dynamic()},
    )


def another_gpu(card: Card) -> Measured:
    """A model copied to another GPU, with its LoRAs, samples the same there."""
    if not card.dry and torch.cuda.device_count() < 2:
        raise NotApplicableError("there is one card")
    other = torch.device("cpu") if card.dry else torch.device("cuda", 1)
    model = tiny.qwen_image()
    model.cached_patcher_init = (tiny.qwen_image, ())
    path, _ = models.lora_file(card, model, "gpus")
    patched = models.apply(model, (path, 1.0))
    wanted = tiny.sample(patched)
    copy = patched.deepclone_multigpu(new_load_device=other)
    error = models.relative_error(tiny.sample(copy), wanted)
    apart = models.holder(copy).model is not models.holder(patched).model
    return Measured(
        f"the copies' latents differ by {error:.1e}; each has factors of its own: {apart}",
        apart and error < 1e-5,
        {"error": error, "apart": apart},
    )


CLAIMS = (
    Claim(
        "on-device", "row 3", "After a run all factors are on the device, none in host memory",
        factors_are_on_the_device, 15, True,
    ),
    Claim(
        "others-stay", "row 4",
        "Another dynamic model keeps its place when a stack is applied and run",
        others_stay, 20, True,
    ),
    Claim(
        "multigpu", "row 6", "A copy for another GPU has factors of its own and the same result",
        another_gpu, 20, True,
    ),
)  # fmt: skip
