"""LyCORIS as an oracle: its modules on the layers of a model, and the weight that they train with.

The weight is read off from `forward`, by giving it the identity. LyCORIS' own merging is no oracle:
it multiplies LoHa and LoKr by their scale twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from support.oracle.libraries import library
from support.oracle.storage import rounded
from support.oracle.tiny import Tiny
from torch import Tensor, nn


@dataclass(frozen=True)
class Algorithm:
    """A module of LyCORIS: its class, arguments, and shares of the layers that it fits."""

    name: str
    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    # Words of the reason on projections that the engine has in parts.
    refused_if_cut: str = ""


def _dora(name: str, module: str, **arguments: Any) -> list[Algorithm]:
    return [
        Algorithm(f"{name} DoRA", module, {"weight_decompose": True, **arguments}),
        Algorithm(
            f"{name} DoRA of columns",
            module,
            {"weight_decompose": True, "wd_on_out": False, **arguments},
            "a column magnitude of fused projections",
        ),
    ]


_CUT = "a rotation of fused projections"
ALGORITHMS = (
    Algorithm("LoCon", "LoConModule", {"lora_dim": 4, "alpha": 3}),
    Algorithm("LoCon r 1", "LoConModule", {"lora_dim": 1, "alpha": 0.5}),
    Algorithm("LoCon alpha 0, which means r", "LoConModule", {"lora_dim": 4, "alpha": 0}),
    Algorithm("LoCon rs", "LoConModule", {"lora_dim": 4, "alpha": 3.0, "rs_lora": True}),
    Algorithm("LoCon scalar", "LoConModule", {"lora_dim": 4, "alpha": 2, "use_scalar": True}),
    Algorithm("LoCon bypass", "LoConModule", {"lora_dim": 4, "alpha": 6, "bypass_mode": True}),
    *_dora("LoCon", "LoConModule", lora_dim=4, alpha=3),
    *_dora("LoCon rs", "LoConModule", lora_dim=4, alpha=3.0, rs_lora=True),
    Algorithm("LoHa", "LohaModule", {"lora_dim": 3, "alpha": 1.5}),
    Algorithm("LoHa rs", "LohaModule", {"lora_dim": 4, "alpha": 3.0, "rs_lora": True}),
    Algorithm("LoHa scalar", "LohaModule", {"lora_dim": 4, "alpha": 2, "use_scalar": True}),
    Algorithm("LoHa bypass", "LohaModule", {"lora_dim": 4, "alpha": 6, "bypass_mode": True}),
    *_dora("LoHa", "LohaModule", lora_dim=4, alpha=3),
    Algorithm("LoKr", "LokrModule", {"lora_dim": 2, "alpha": 3}),
    Algorithm("LoKr r 1", "LokrModule", {"lora_dim": 1, "alpha": 1.5}),
    Algorithm("LoKr rs", "LokrModule", {"lora_dim": 1, "alpha": 3.0, "rs_lora": True}),
    Algorithm("LoKr scalar", "LokrModule", {"lora_dim": 2, "alpha": 3, "use_scalar": True}),
    Algorithm("LoKr bypass", "LokrModule", {"lora_dim": 2, "alpha": 3, "bypass_mode": True}),
    Algorithm("LoKr both low", "LokrModule", {"lora_dim": 1, "alpha": 3, "decompose_both": True}),
    Algorithm("LoKr whole", "LokrModule", {"lora_dim": 99, "alpha": 3}),
    Algorithm("LoKr full matrix", "LokrModule", {"lora_dim": 4, "alpha": 3, "full_matrix": True}),
    *(
        Algorithm(f"LoKr factor {n}", "LokrModule", {"lora_dim": 1, "alpha": 1.5, "factor": n})
        for n in (2, 4, 8)
    ),
    Algorithm(
        "LoKr unbalanced",
        "LokrModule",
        {"lora_dim": 2, "alpha": 3, "unbalanced_factorization": True},
    ),
    *_dora("LoKr", "LokrModule", lora_dim=1, alpha=3),
    *_dora("LoKr whole", "LokrModule", lora_dim=99, alpha=3),
    Algorithm("GLoRA", "GLoRAModule", {"lora_dim": 4, "alpha": 3}),
    Algorithm("GLoRA r 1", "GLoRAModule", {"lora_dim": 1, "alpha": 0.5}),
    Algorithm("GLoRA scalar", "GLoRAModule", {"lora_dim": 3, "alpha": 1.5, "use_scalar": True}),
    Algorithm("IA3", "IA3Module"),
    Algorithm("IA3 on inputs", "IA3Module", {"train_on_input": True}),
    *(
        Algorithm(f"{name} {kind}", module, {"lora_dim": size, **arguments}, _CUT)
        for name, module, size in (("OFT", "DiagOFTModule", 4), ("BOFT", "ButterflyOFTModule", 6))
        for kind, arguments in {
            "free": {},
            "constraint": {"constraint": 0.0625},
            "wide constraint": {"constraint": 4.0},
            "rescaled": {"rescaled": True},
            "constraint rescaled": {"constraint": 0.0625, "rescaled": True},
        }.items()
    ),
    Algorithm("OFT small blocks", "DiagOFTModule", {"lora_dim": 2}, _CUT),
    Algorithm("Full", "FullModule"),
)


@dataclass(frozen=True)
class Made:
    """The state dict of one module, in the type of the file, and the change that it makes."""

    tensors: Mapping[str, Tensor]
    changes: Mapping[str, Tensor]


def make(
    algorithm: Algorithm, model: Tiny, path: str, dtype: torch.dtype, seed: int
) -> Made | None:
    """Put a module on a layer, with random values; None if LyCORIS cannot."""
    known = getattr(library("lycoris.wrapper"), algorithm.module)
    linear: Any = copy.deepcopy(model.module.get_submodule(path))
    with widened():
        try:
            module = known("name", linear, **algorithm.arguments)
        except ValueError:  # BOFT of a number of rows that it cannot halve
            return None
        module.double().eval()
        if algorithm.module == "FullModule":
            module.apply_to()
        _randomize(module, dtype, seed)
        tensors = {
            name: value.detach().to(dtype) if value.is_floating_point() else value
            for name, value in module.state_dict().items()
        }
        effective = _effective(module, model.module.get_submodule(path))
    return Made(tensors, effective)


@contextmanager
def widened() -> Iterator[None]:
    """LyCORIS computes parts in float32 whatever its tensors are; here those are float64, too."""
    kept = torch.Tensor.float
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.Tensor.float = kept  # type: ignore[method-assign]


def _randomize(module: nn.Module, dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        if name == "scalar":
            value = torch.full_like(value, 2.0)  # LyCORIS multiplies a factor by it when it saves
        elif name in ("dora_scale", "rescale"):
            value = value.abs() + 0.5
        value = rounded(value, dtype)
        if hasattr(module, "_org_weight"):  # of Full, which has the base weight in its own
            value = value + parameter.data
        parameter.data.copy_(value)


def _effective(module: Any, base: Any) -> dict[str, Tensor]:
    """Weight and bias that the layer has with the module, minus its own."""
    inputs = base.weight.shape[1]
    with torch.no_grad():
        bias = module(torch.zeros(1, inputs, dtype=torch.float64))
        weight = (module(torch.eye(inputs, dtype=torch.float64)) - bias).T
    found = {"weight": weight - base.weight}
    if base.bias is not None:
        found["bias"] = bias[0] - base.bias
    # What remains of the bias is the rounding of adding and subtracting it.
    return {name: change for name, change in found.items() if change.abs().max() > 1e-12}
