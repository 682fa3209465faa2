"""From the change of a unit to the tensors that a file has for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import Unusable
from ..factors.delta import Delta, Dense, Hadamard, Kronecker, LowRank
from ..factors.dora import Dora
from ..factors.weight_relative import Relative, Replacement
from ..mapping.architecture import Architecture
from .lower_rank import Limit, distance, norm, shrink
from .name_styles import StyleNames, names
from .units import Unit, as_low_rank, bias, dense, whole


@dataclass(frozen=True, eq=False)
class Encoded:
    """Tensors by full name. `lost` and `total` are Frobenius norms: of the difference to the exact
    change of the weight (or of the bias, where it alone is changed), and of that change; both 0
    where nothing was computed but names."""

    unit: Unit
    tensors: dict[str, Tensor] = field(default_factory=dict)
    rank: int | None = None
    lost: float = 0.0
    total: float = 0.0


def encode(
    unit: Unit,
    model: Architecture,
    style: str,
    limit: Limit | None = None,
    dtype: torch.dtype | None = None,
) -> Encoded:
    """Return the tensors of a unit in a style, reduced to a limit, converted to a type.

    Factors keep their type and bits where nothing else than names changes; where a scale has to be
    multiplied in and does not fit the type, they become float32.

    Raises:
        Unusable: the style has no form for this change; the message names the module.
    """
    called = names(style, model, unit.module, unit.part)
    tensors: dict[str, Tensor] = {}
    change = bias(unit)
    if change is not None:
        _no_full_in_peft(unit, style)
        if not model.modules[unit.module].bias:
            raise Unusable(f"{unit.name}: it has no bias, so no other program can add one")
        stored = tensors[called.of("diff_b")] = _converted(change, dtype, unit)
        if not unit.weight:
            return Encoded(unit, tensors, None, *_rounding(change, stored))
    if not unit.weight:
        return Encoded(unit, tensors)
    linear = len(unit.shape) == 2 and model.modules[unit.module].kind == "linear"
    exact = whole(unit)
    if exact is None and limit is None:
        raise Unusable(
            f"{unit.name}: the sum has no small exact form (LoKr of full rank); give a rank"
        )
    if linear and limit is not None:
        low = None if exact is None else as_low_rank(exact)
        change = dense(unit, torch.float64) if low is None else low
        best = shrink(change, limit).to(dtype=torch.float32)
        return factors(unit, change, best, model, style, dtype, tensors)
    assert exact is not None  # noqa: S101 - or the limit is for norms, which are dense
    plain = exact.low_rank() if style == "peft" and isinstance(exact, Delta) else None
    form = plain or exact
    if isinstance(form, LowRank):
        return factors(unit, form, form, model, style, dtype, tensors)
    _no_full_in_peft(unit, style, allow=isinstance(form, (Dora, Relative)))
    kept = called.of(called.magnitude)
    for name, tensor in _family(form, called, style).items():
        # A magnitude is as large as the weight, so rounding it could cost more than the change is.
        tensors[name] = tensor if name == kept else _converted(tensor, dtype, unit)
    return Encoded(unit, tensors, None, *_lost(form, dtype))


def _lost(form: Delta | Dora | Relative, dtype: torch.dtype | None) -> tuple[float, float]:
    """What a type for storage loses of a change in its own form, and the size of that."""
    inner = form.inner if isinstance(form, Dora) else form
    if dtype is None or not isinstance(inner, Delta):
        return 0.0, 0.0
    stored = inner.to(dtype=dtype)
    if isinstance(inner, LowRank) and isinstance(stored, LowRank):
        return distance(inner, stored), norm(inner)
    return _rounding(inner.matrix(torch.float64), stored.matrix(torch.float64))


def _rounding(exact: Tensor, stored: Tensor) -> tuple[float, float]:
    return float((exact.double() - stored.double()).norm()), float(exact.double().norm())


def factors(
    unit: Unit,
    exact: LowRank | Tensor,
    form: LowRank,
    model: Architecture,
    style: str,
    dtype: torch.dtype | None,
    tensors: dict[str, Tensor],
) -> Encoded:
    """Return the factors `form`, which stand for the change `exact`, in a style, after `tensors`.

    The error is measured unless every bit is as it was.

    Raises:
        Unusable: they are not finite in that type.
    """
    called = names(style, model, unit.module, unit.part)
    if form.scale < 0:
        form = LowRank(form.A, -form.B, -form.scale)
    if style == "peft":
        form = LowRank(form.A, _folded(form))
    form = LowRank(_converted(form.A, dtype, unit), _converted(form.B, dtype, unit), form.scale)
    if style != "peft":
        alpha = torch.tensor(form.scale * form.rank, dtype=torch.float32)
        tensors[called.of("alpha")] = alpha
        form = LowRank(form.A, form.B, float(alpha) / form.rank)
    tensors[called.of(called.down)] = form.A
    tensors[called.of(called.up)] = form.B
    if isinstance(exact, LowRank) and form.A is exact.A and _same_scale(form, exact):
        return Encoded(unit, tensors, form.rank)
    return Encoded(unit, tensors, form.rank, distance(exact, form), norm(exact))


def _same_scale(form: LowRank, exact: LowRank) -> bool:
    """Whether both are the same change, given the same A: by B and its scale."""
    if form.B is exact.B:
        return form.scale == exact.scale
    if form.B.shape != exact.B.shape:
        return False
    return torch.equal(form.B.double() * form.scale, exact.B.double() * exact.scale)


def _folded(form: LowRank) -> Tensor:
    """B times the scale: in the type of B where that is exact (powers of two), else float32."""
    wide = form.folded()
    narrow = wide.to(form.B.dtype)
    return narrow if torch.equal(narrow.to(wide.dtype), wide) else wide


def _family(form: Delta | Dora | Relative, called: StyleNames, style: str) -> dict[str, Tensor]:
    """The tensors of a change that is kept in its own form."""
    if isinstance(form, Dora):
        return _dora(form, called, style)
    if isinstance(form, Dense):
        return {called.of("diff"): form.diff if form.scale == 1.0 else form.matrix()}
    if isinstance(form, Hadamard):
        return {
            called.of("hada_w1_a"): form.B1,
            called.of("hada_w1_b"): form.A1,
            called.of("hada_w2_a"): form.B2,
            called.of("hada_w2_b"): form.A2,
            called.of("alpha"): _alpha(form.scale, form.A1.shape[0]),
        }
    if isinstance(form, Kronecker):
        return _lokr(form, called)
    if isinstance(form, Replacement) and form.strength == 1.0:
        return {called.of("weight"): form.value}
    if isinstance(form, Relative):
        raise Unusable(f"{called.stem}: OFT, GLoRA and IA3 are not written anew; keep the file")
    raise Unusable(f"{called.stem}: a part of a LoKr that has no form of its own; give a rank")


def _dora(form: Dora, called: StyleNames, style: str) -> dict[str, Tensor]:
    rows = form.shape[0]
    if form.strength != 1.0:
        raise Unusable(f"{called.stem}: DoRA can be scaled only with the base weights")
    inner = form.inner.low_rank() if style == "peft" else form.inner
    if style == "peft" and (inner is None or tuple(form.magnitude.shape) != (rows, 1)):
        raise Unusable(f"{called.stem}: peft has no form for this DoRA; choose another format")
    if isinstance(inner, LowRank):
        if style == "peft":
            inner = LowRank(inner.A, _folded(inner))
        found = {called.of(called.down): inner.A, called.of(called.up): inner.B}
        if style != "peft":
            found[called.of("alpha")] = _alpha(inner.scale, inner.rank)
    else:
        found = _family(form.inner, called, style)
    magnitude = form.magnitude
    if style == "peft":
        magnitude = magnitude.reshape(rows)
    return {**found, called.of(called.magnitude): magnitude}


def _lokr(form: Kronecker, called: StyleNames) -> dict[str, Tensor]:
    factored = next((w for w in (form.w2, form.w1) if len(w) == 2), None)
    found: dict[str, Tensor] = {}
    for name, factors in (("lokr_w1", form.w1), ("lokr_w2", form.w2)):
        suffixes = ("",) if len(factors) == 1 else ("_a", "_b")
        found |= {called.of(name + s): t for s, t in zip(suffixes, factors, strict=True)}
    if factored is not None:
        found[called.of("alpha")] = _alpha(form.scale, factored[1].shape[0])
    elif form.scale != 1.0:  # with both factors whole, readers do not look at alpha
        first = LowRank(form.w1[0], form.w1[0], form.scale)
        found[called.of("lokr_w1")] = _folded(first)
    return found


def _alpha(scale: float, rank: int) -> Tensor:
    return torch.tensor(scale * rank, dtype=torch.float32)


def _converted(tensor: Tensor, dtype: torch.dtype | None, unit: Unit) -> Tensor:
    if dtype is None or tensor.dtype == dtype:
        return tensor
    result = tensor.to(dtype)
    _require_finite(result, unit, f" as {str(dtype).removeprefix('torch.')}")
    return result


def _require_finite(tensor: Tensor, unit: Unit, how: str = "") -> None:
    if not bool(tensor.isfinite().all()):
        raise Unusable(f"{unit.name}: values are not finite{how}")


def _no_full_in_peft(unit: Unit, style: str, allow: bool = False) -> None:
    if style == "peft" and not allow:
        raise Unusable(
            f"{unit.name}: peft has no form for full or LoKr changes; choose another format"
        )
