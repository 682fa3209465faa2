"""From the tensors of one module to its delta, with the scale rule of each family.

Sources: LoRA alpha/rank as in kohya's sd-scripts; LoHa, LoKr as in LyCORIS (LoKr with both factors
whole has scale 1, otherwise alpha over the rank of the factored side, w2 before w1); DoRA as in
its paper; all as in ComfyUI's ``comfy/weight_adapter``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .delta import Dense, Hadamard, Kronecker, LowRank
from .dora import Dora
from .metadata import HeaderScale
from .plan import ModulePlan, Unusable, magnitude_axis

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)


def build(
    plan: ModulePlan, tensors: Mapping[str, Tensor], header: HeaderScale
) -> LowRank | Hadamard | Kronecker | Dense | Dora:
    """Return the delta of one planned adapter; `tensors` holds at least its tensors.

    Factors keep their dtype, except that fp8 becomes bfloat16, which holds every fp8 value.

    Raises:
        Unusable: alpha is not finite, or the header's alpha cannot be understood.
    """
    parts = {role: _linear(tensors[key]) for role, key in plan.keys.items()}
    if plan.family == "diff":
        return Dense(parts["diff"].reshape(plan.target.shape))
    if plan.family == "bias":
        return _bias(plan, parts, header)
    inner = _BUILDERS[plan.family](parts, _scale(plan, parts, header))
    for role in ("dora_scale", "magnitude"):
        if role in parts:
            axis = magnitude_axis(role, tuple(parts[role].shape), plan.target)
            shape = (-1, 1) if axis == 0 else (1, -1)
            return Dora(inner, parts[role].reshape(shape))
    return inner


def _linear(tensor: Tensor) -> Tensor:
    if tensor.dtype in _FP8:
        tensor = tensor.to(torch.bfloat16)
    return tensor.flatten(1) if tensor.dim() > 2 else tensor


def _scale(plan: ModulePlan, parts: Mapping[str, Tensor], header: HeaderScale) -> float:
    if plan.rank is None:
        return 1.0
    if "alpha" not in parts:
        return header.scale(plan.stem, plan.rank)
    alpha = float(parts["alpha"].item())
    if not math.isfinite(alpha):
        raise Unusable(f"alpha is {alpha}")
    return alpha / plan.rank


def _bias(plan: ModulePlan, parts: Mapping[str, Tensor], header: HeaderScale) -> Dense:
    if "up_bias" not in parts:
        return Dense(parts["diff_b"])
    scale = _scale(plan, parts, header)
    if "diff_b" not in parts:
        return Dense(parts["up_bias"], scale)
    return Dense(parts["diff_b"].float() + parts["up_bias"].float() * scale)


def _lora(parts: Mapping[str, Tensor], scale: float) -> LowRank:
    a = parts["down"]
    if "mid" in parts:  # a 1x1 core of LoCon: D = up @ mid @ down
        a = parts["mid"].float() @ a.float()
    return LowRank(a, parts["up"], scale)


def _loha(parts: Mapping[str, Tensor], scale: float) -> Hadamard:
    return Hadamard(
        A1=parts["hada_w1_b"],
        B1=parts["hada_w1_a"],
        A2=parts["hada_w2_b"],
        B2=parts["hada_w2_a"],
        scale=scale,
    )


def _lokr(parts: Mapping[str, Tensor], scale: float) -> Kronecker:
    def factors(name: str) -> tuple[Tensor, ...]:
        return (parts[name],) if name in parts else (parts[f"{name}_a"], parts[f"{name}_b"])

    return Kronecker(factors("lokr_w1"), factors("lokr_w2"), scale)


_BUILDERS = {"lora": _lora, "loha": _loha, "lokr": _lokr}


def non_finite(tensors: Mapping[str, Tensor]) -> set[str]:
    """Return the names of tensors that hold NaN or infinity.

    The smallest and the largest value of a tensor are finite exactly if all are: one pass at memory
    speed that copies nothing, with one synchronization for all tensors of a device.
    """
    floats = {
        name: tensor.to(torch.bfloat16) if tensor.dtype in _FP8 else tensor
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and tensor.numel()
    }
    bad: set[str] = set()
    for device in {tensor.device for tensor in floats.values()}:
        names = [name for name, tensor in floats.items() if tensor.device == device]
        extremes = [torch.stack(torch.aminmax(floats[name])).float() for name in names]
        finite = torch.stack(extremes).isfinite().all(dim=1).tolist()
        bad.update(name for name, good in zip(names, finite, strict=True) if not good)
    return bad
