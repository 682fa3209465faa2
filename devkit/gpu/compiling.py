"""Claims about `TorchCompileModel` with LoRAs beside the layers."""

from __future__ import annotations

from typing import Any

import torch

from ..doubles import tiny_models as tiny
from . import models
from .card import Card
from .claims import Claim, Measured

_ERROR = 1e-3  # fused kernels sum in another order


def _counts() -> tuple[int, int]:
    """Graphs that were compiled so far, and places where one had to end early."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"], sum(counters["graph_break"].values())


def _start_anew() -> None:
    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()


def _backend(card: Card) -> str:
    from torch.utils._triton import has_triton

    return "inductor" if not card.dry and has_triton() else "eager"


def compiled(card: Card) -> Measured:
    """Graph breaks with and without a stack, and graphs before and after a changed strength."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = tiny.qwen_image()
    path, _ = models.lora_file(card, model, "compiled")
    backend = _backend(card)

    def compiled_clone() -> Any:
        clone = model.clone()
        set_torch_compile_wrapper(clone, backend=backend)
        return clone

    _start_anew()
    tiny.sample(compiled_clone())
    _, plain_breaks = _counts()
    _start_anew()
    clone = compiled_clone()
    first = models.apply(clone, (path, 1.0))
    for _ in range(2):
        tiny.sample(first)
    graphs, breaks = _counts()
    got = tiny.sample(models.apply(clone, (path, 0.4)))
    again, _ = _counts()
    _start_anew()
    error = models.relative_error(got, tiny.sample(models.apply(model, (path, 0.4))))
    return Measured(
        f"{breaks} graph breaks, {plain_breaks} without LoRAs; {again - graphs} of {graphs} graphs"
        f" compiled again; error {error:.1e}; {backend}, VRAM"
        f" {'dynamic' if card.dynamic else 'not dynamic'}",
        breaks <= plain_breaks and again == graphs > 0 and error < _ERROR,
        {
            "breaks": breaks,
            "plain_breaks": plain_breaks,
            "graphs": graphs,
            "recompiled": again - graphs,
            "error": error,
            "backend": backend,
        },
    )


CLAIMS = (
    Claim(
        "compile", "figure: torch.compile",
        "Branches break no graph of a compiled model, and a changed strength compiles none again",
        compiled, 120, True,
    ),
)  # fmt: skip
