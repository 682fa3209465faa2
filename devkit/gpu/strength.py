"""Claims about a changed strength: what is copied, and how long it takes."""

from __future__ import annotations

import gc
from unittest.mock import patch

import torch

from ...wrappers.lora.branch_set import KEY
from ..bench.forward import step_inputs
from ..bench.harness import Timings, spread
from ..doubles import tiny_models as tiny
from . import models
from .card import Card
from .claims import Claim, Measured


def copies_a_vector(card: Card) -> Measured:
    """Bytes that go to the device in a run with another strength, beyond those of a run again."""
    model = tiny.qwen_image()
    path, _ = models.lora_file(card, model, "copied", rank=32)
    first = models.apply(model, (path, 1.0))
    for _ in range(2):
        tiny.sample(first)
    again = card.copied(lambda: tiny.sample(first))
    second = models.apply(model, (path, 0.3))
    changed = card.copied(lambda: tiny.sample(second))
    branches = second.attachments[KEY].beside.values()
    vector = sum(4 * branch.s.numel() for branch in branches if branch.s is not None)
    factors = models.holder(second).model.nbytes
    return Measured(
        f"{changed - again} bytes more than without a change; the strengths are {vector} bytes,"
        f" the factors {factors}",
        changed - again <= vector,
        {"again": again, "changed": changed, "vector": vector, "factors": factors},
    )


def takes_less_than_a_step(card: Card) -> Measured:
    """Applying another strength and installing it, beside a step of one block, by turns."""
    model = models.wide(card)
    path, _ = models.lora_file(card, model, "time", rank=32)
    inputs = step_inputs(card.kind, torch.bfloat16, models.text_width(model))
    network = model.model.diffusion_model
    timings = Timings(card.kind)

    def change(strength: float) -> None:
        with models.installed(models.apply(model, (path, strength)), card.device):
            pass

    kept = models.apply(model, (path, 1.0))  # as the model in the graph: it keeps the factors
    with models.installed(kept, card.device):
        network(*inputs)
    change(0.9)
    for index in range(3 if card.dry else 9):
        timings.time("step", lambda: network(*inputs), fresh=False)
        timings.time("change", lambda i=index: change(0.1 + i / 16), fresh=False)
    ratio = spread(timings.ratios("change", "step"))
    milliseconds = timings.summary()
    took = milliseconds["change"]["median"]
    return Measured(
        f"{took:.3g} ms, {ratio['median']:.3g} ({ratio['min']:.3g} .. {ratio['max']:.3g}) of a"
        " step of one block",
        ratio["median"] <= 1.0,
        {"ratio": ratio, "milliseconds": milliseconds},
    )


def no_leak_is_seen(card: Card) -> Measured:
    """Runs with changed strengths, each after the stack of before is gone, as in a graph."""
    import comfy.model_management as management

    model = tiny.qwen_image()
    path, _ = models.lora_file(card, model, "leak")
    patched = models.apply(model, (path, 1.0))
    tiny.sample(patched)
    collected: list[int] = []
    with patch.object(management, "soft_empty_cache", lambda *_: collected.append(1)):
        for strength in (0.3, 0.7):
            patched = models.apply(model, (path, strength))
            gc.collect()
            management.cleanup_models_gc()  # which is what ComfyUI begins to load models with
            dead = sum(loaded.is_dead() for loaded in management.current_loaded_models)
            tiny.sample(patched)
    return Measured(
        f"ComfyUI collected garbage {len(collected)} times; {dead} models that it takes for leaks",
        not collected and not dead,
        {"collected": len(collected), "dead": dead},
    )


CLAIMS = (
    Claim(
        "strength-copies", "row 8",
        "A changed strength copies no more to the device than the vector of strengths",
        copies_a_vector, 30, False,
    ),
    Claim(
        "strength-time", "row 8", "A changed strength takes no longer than a step of one block",
        takes_less_than_a_step, 30, False,
    ),
    Claim(
        "strength-leak", "row 8", "ComfyUI takes nothing for a leak when a strength changes",
        no_leak_is_seen, 20, True,
    ),
)  # fmt: skip
