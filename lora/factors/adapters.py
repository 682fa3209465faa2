"""From the tensors of one module to its delta, with the scale rule of each family.

Sources: LoRA alpha/rank as in kohya's sd-scripts; LoHa, LoKr as in LyCORIS (LoKr with both factors
whole has scale 1, otherwise alpha over the rank of the factored side, w2 before w1); DoRA as in
its paper; all as in ComfyUI's ``comfy/weight_adapter``. AdaLoRA and IA3 as in peft 0.21; OFT, BOFT,
GLoRA and the other IA3 as in LyCORIS 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ..errors import Unusable
from ..mapping.suffixes import SCALE_OF
from .adapter_families import magnitude_axis
from .delta import Delta, Dense, Hadamard, Kronecker, LowRank
from .dora import Dora
from .module_plan import ModulePlan
from .oft_rotation import InputRotation, Rotation, cayley, cayley_exact, cayley_series, skew
from .weight_relative import Glora, Relative, Replacement, Scaling

_FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
Parts = Mapping[str, Tensor]


def build(plan: ModulePlan, tensors: Mapping[str, Tensor]) -> Delta | Dora | Relative:
    """Return the delta of one planned adapter; `tensors` holds at least its tensors.

    Factors keep their dtype, except that fp8 becomes bfloat16, which holds every fp8 value, or
    float32 where a scale belongs to it, as int8 does.

    Raises:
        Unusable: alpha is 0 or not finite, or fp8 factors lack the scale that they were stored
            with.
    """
    parts = _plain({role: tensors[key] for role, key in plan.keys.items()})
    if plan.family == "bias":
        return _bias(plan, parts)
    inner = _BUILDERS[plan.family](plan, parts, _scale(plan, parts))
    for role in ("dora_scale", "magnitude"):
        if role in parts and isinstance(inner, Delta):
            axis = magnitude_axis(role, tuple(parts[role].shape), plan.target)
            shape = (-1, 1) if axis == 0 else (1, -1)
            return Dora(inner, parts[role].reshape(shape))
    return inner


def _plain(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """Factors as matrices of ordinary types, multiplied by the scales of their own."""
    found: dict[str, Tensor] = {}
    for role, tensor in parts.items():
        if role in SCALE_OF.values():
            continue
        scale = parts.get(SCALE_OF.get(role, ""))
        flat = tensor.flatten(1) if tensor.dim() > 2 and role != "oft_blocks" else tensor
        if scale is not None:
            flat = flat.float() * scale.float().reshape(-1, 1).to(flat.device)
        elif tensor.dtype in _FP8:
            flat = flat.to(torch.bfloat16)
            # A LoRA's own values are far below: these fill the range, so a scale was divided out.
            if tensor.dim() >= 2 and flat.abs().max() >= torch.finfo(tensor.dtype).max:
                raise Unusable(f"{role} fills the range of fp8, and the scale for it is missing")
        found[role] = flat
    return found


def _scale(plan: ModulePlan, parts: Parts) -> float:
    if plan.scale is not None:
        return plan.scale
    if "scaling" in parts:
        return usable_number("lora_scaling", parts["scaling"])
    return usable_number("alpha", parts["alpha"]) / (plan.rank or 1)


def usable_number(name: str, tensor: Tensor) -> float:
    """Return the number that a file states, an alpha or a scale.

    Raises:
        Unusable: it is 0 or not finite.
    """
    value = float(tensor.item())
    if not math.isfinite(value):
        raise Unusable(f"{name} is {value}")
    if value == 0.0:
        raise Unusable(f"{name} is 0, which some programs read as the rank and others as nothing")
    return value


def _bias(plan: ModulePlan, parts: Parts) -> Dense:
    """The change of a layer's output for every input: ``diff_b + scale * (up @ down_bias +
    up_bias)``."""
    if plan.keys.keys() == {"diff_b"}:
        return Dense(parts["diff_b"])
    total = parts["up_bias"].float() if "up_bias" in parts else torch.zeros(plan.target.shape[0])
    if "down_bias" in parts:
        total = total + (parts["up"].float() @ parts["down_bias"].float()).to(total.device)
    total = total * _scale(plan, parts)
    if "diff_b" in parts:
        total = total + parts["diff_b"].float().to(total.device)
    return Dense(total)


def _lora(plan: ModulePlan, parts: Parts, scale: float) -> LowRank:
    a = parts["down"]
    if "mid" in parts:  # a 1x1 core of LoCon: D = up @ mid @ down
        a = parts["mid"].float() @ a.float()
    if "lora_E" in parts:  # the singular values of AdaLoRA: D = B @ (A * E)
        a = a.float() * parts["lora_E"].float().reshape(-1, 1)
    return LowRank(a, parts["up"], scale)


def _numbered(plan: ModulePlan, parts: Parts, scale: float) -> LowRank:
    """kohya's split layer: ``D = scale * vstack(up_i @ down_i)``."""
    count = len(plan.keys.keys() & {f"down.{number}" for number in range(8)})
    downs = [parts[f"down.{number}"] for number in range(count)]
    ups = [parts[f"up.{number}"] for number in range(count)]
    return LowRank(torch.cat(downs), torch.block_diag(*ups), scale)


def _loha(plan: ModulePlan, parts: Parts, scale: float) -> Hadamard:
    return Hadamard(
        A1=parts["hada_w1_b"],
        B1=parts["hada_w1_a"],
        A2=parts["hada_w2_b"],
        B2=parts["hada_w2_a"],
        scale=scale,
    )


def _lokr(plan: ModulePlan, parts: Parts, scale: float) -> Kronecker:
    def factors(name: str) -> tuple[Tensor, ...]:
        return (parts[name],) if name in parts else (parts[f"{name}_a"], parts[f"{name}_b"])

    return Kronecker(factors("lokr_w1"), factors("lokr_w2"), scale)


def _diff(plan: ModulePlan, parts: Parts, scale: float) -> Dense:
    return Dense(parts["diff"].reshape(plan.target.shape))


def _full(plan: ModulePlan, parts: Parts, scale: float) -> Replacement:
    return Replacement(parts["weight"].reshape(plan.target.shape))


def _glora(plan: ModulePlan, parts: Parts, scale: float) -> Glora:
    inner = LowRank(parts["glora_a2"], parts["glora_a1"], scale)
    outer = LowRank(parts["glora_b2"], parts["glora_b1"], scale)
    return Glora(inner, outer)


def _ia3(plan: ModulePlan, parts: Parts, scale: float) -> Scaling:
    by_input = parts["on_input"].item()
    if by_input not in (0, 1) or parts["weight"].numel() != plan.target.shape[int(by_input)]:
        raise Unusable(f"IA3's on_input is {by_input} beside a weight of {parts['weight'].numel()}")
    lift = parts["weight"].float().reshape((1, -1) if by_input else (-1, 1))
    return Scaling(lift, _size(plan))


def _peft_ia3(plan: ModulePlan, parts: Parts, scale: float) -> Scaling:
    return Scaling((parts["ia3_l"].double() - 1.0).float(), _size(plan))


def _peft_ia3_bias(plan: ModulePlan, parts: Parts, scale: float) -> Scaling:
    lift = (parts["ia3_l"].double() - 1.0).float().flatten()
    return Scaling(lift, (len(lift),))


def _peft_oft(plan: ModulePlan, parts: Parts, scale: float) -> InputRotation:
    out, inp = plan.target.shape
    settings = plan.oft
    assert settings is not None  # noqa: S101 - a plan of this family has them
    count, size = settings.blocks(tuple(parts["oft_R"].shape), inp)
    q = skew(parts["oft_R"], size)
    if settings.terms is None:
        turns = cayley_exact(-q)
    else:
        turns = cayley_series(q, settings.terms, settings.last_is_halved)
    turns = turns.float()
    if not bool(turns.isfinite().all()):
        raise Unusable("oft_R is so large that the series of its rotation overflows")
    return InputRotation(turns.expand(count, -1, -1), out)


def _oft(plan: ModulePlan, parts: Parts, scale: float) -> Rotation:
    blocks = parts["oft_blocks"]
    # LyCORIS keeps the constraint under the name of alpha, in units of the rows.
    limit = float(parts["alpha"].item()) if "alpha" in parts else 0.0
    if not math.isfinite(limit):
        raise Unusable(f"alpha is {limit}")
    turns = cayley(blocks, limit * plan.target.shape[0])
    butterfly = blocks.dim() == 4
    turns = turns if butterfly else turns.mT[None]
    lift = parts.get("rescale")
    if lift is not None:
        lift = (lift.double() - 1.0).float().reshape(-1, 1)
    return Rotation(turns.float().contiguous(), butterfly, plan.target.shape[1], lift)


def _size(plan: ModulePlan) -> tuple[int, int]:
    out, inp = plan.target.shape
    return out, inp


_BUILDERS: dict[str, Callable[[ModulePlan, Parts, float], Delta | Relative]] = {
    "lora": _lora,
    "numbered": _numbered,
    "loha": _loha,
    "lokr": _lokr,
    "diff": _diff,
    "full": _full,
    "glora": _glora,
    "ia3": _ia3,
    "peft_ia3": _peft_ia3,
    "peft_ia3_bias": _peft_ia3_bias,
    "peft_oft": _peft_oft,
    "oft": _oft,
}
