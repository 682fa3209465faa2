"""What each module of a file needs, checked from names and shapes before anything is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from .architecture import Target
from .header import FLOAT_DTYPES, INTEGER_DTYPES, TensorInfo
from .mapping import Group, KeyMap

Infos = Mapping[str, TensorInfo]

_WEIGHT_FAMILIES = {
    "lora": ("down", "up", "mid", "up_bias"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"),
}


class Unusable(ValueError):  # noqa: N818  (a verdict on one module, caught by its caller)
    """A module's tensors cannot be applied; the message says why."""


@dataclass(frozen=True)
class Fault:
    """A module (or part of one) that is dropped, and why. The rest of the file still loads."""

    module: str
    part: str | None
    reason: str


@dataclass(frozen=True)
class ModulePlan:
    """One adapter to build: `keys` maps roles to tensor names; `rank` is that of the factors."""

    target: Target
    stem: str
    family: str
    keys: Mapping[str, str]
    rank: int | None = None

    @property
    def parameter(self) -> str:
        """The parameter that the adapter changes, ``"weight"`` or ``"bias"``."""
        return "bias" if self.family == "bias" else "weight"

    @property
    def dora(self) -> bool:
        """Whether the adapter re-normalizes the weight (DoRA)."""
        return "dora_scale" in self.keys or "magnitude" in self.keys


def plan_file(keys: KeyMap, infos: Infos) -> tuple[list[ModulePlan], list[Fault]]:
    """Return the adapters that can be built and the modules that cannot be used."""
    plans: list[ModulePlan] = []
    faults: list[Fault] = []
    for group in keys.groups:
        try:
            plans.extend(_plan_group(group, infos, faults))
        except Unusable as error:
            faults.append(Fault(group.target.module, group.target.part, str(error)))
    return plans, faults


def _plan_group(group: Group, infos: Infos, faults: list[Fault]) -> list[ModulePlan]:
    roles, target = group.roles, group.target
    for role, key in roles.items():
        dtype = infos[key].dtype
        if dtype not in FLOAT_DTYPES and not (role == "alpha" and dtype in INTEGER_DTYPES):
            raise Unusable(f"{role} is stored as {dtype}, not as a floating-point type")
        if role == "alpha" and prod(infos[key].shape) != 1:
            raise Unusable(f"alpha has shape {list(infos[key].shape)} instead of one element")
    families = [name for name, parts in _WEIGHT_FAMILIES.items() if roles.keys() & set(parts)]
    if len(families) > 1:
        raise Unusable(f"holds {' and '.join(families)} at once, so alpha is ambiguous")
    if not families and not roles.keys() & {"diff", "diff_b"}:
        raise Unusable(f"only {', '.join(sorted(roles))}, without the tensors that it belongs to")
    if not families and roles.keys() & {"dora_scale", "magnitude"}:
        raise Unusable("a DoRA magnitude without the factors that it belongs to")
    plans = [_plan_family(family, group, infos) for family in families]
    if "diff" in roles:
        _require_shape("diff", infos[roles["diff"]].shape, target.shape)
        plans.append(ModulePlan(target, group.stem, "diff", {"diff": roles["diff"]}))
    bias = {role: roles[role] for role in ("diff_b", "up_bias") if role in roles}
    if bias:
        try:
            plans.append(_plan_bias(group, bias, plans, infos))
        except Unusable as error:
            faults.append(Fault(target.module, target.part, str(error)))
    return plans


def _plan_family(family: str, group: Group, infos: Infos) -> ModulePlan:
    roles, target = group.roles, group.target
    used = {*_WEIGHT_FAMILIES[family], "alpha", "dora_scale", "magnitude"} - {"up_bias"}
    keys = {role: key for role, key in roles.items() if role in used}
    if len(target.shape) != 2:
        raise Unusable(f"a {family} adapter on weights of shape {list(target.shape)}")
    shapes = {role: flat_shape(infos[key].shape) for role, key in keys.items()}
    out, inp, rank = _FAMILY_SHAPES[family](shapes)
    if (out, inp) != target.shape:
        expected = f"{target.shape[0]}x{target.shape[1]}"
        raise Unusable(f"is for a {out}x{inp} weight, but this one is {expected}")
    if rank is None:  # LoKr with both factors whole: alpha is a placeholder, often 1e10
        keys.pop("alpha", None)
    if {"dora_scale", "magnitude"} <= keys.keys():
        raise Unusable("holds two DoRA magnitudes")
    for role in ("dora_scale", "magnitude"):
        if role in keys:
            magnitude_axis(role, infos[keys[role]].shape, target)
    return ModulePlan(target, group.stem, family, keys, rank)


def _plan_bias(
    group: Group, bias: dict[str, str], plans: list[ModulePlan], infos: Infos
) -> ModulePlan:
    target = group.target
    if not target.bias:
        raise Unusable("a bias change, but this module has no bias")
    for role, key in bias.items():
        _require_shape(role, infos[key].shape, target.shape[:1])
    keys = dict(bias)
    if "up_bias" in bias:
        lora = next((plan for plan in plans if plan.family == "lora"), None)
        if lora is None:
            raise Unusable("a bias of the up projection without the projections")
        keys.update({role: key for role, key in lora.keys.items() if role == "alpha"})
        return ModulePlan(target, group.stem, "bias", keys, lora.rank)
    return ModulePlan(target, group.stem, "bias", keys)


def flat_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a linear factor that may be stored as a 1x1 convolution.

    Raises:
        Unusable: it is a real convolution.
    """
    if len(shape) > 2:
        if prod(shape[2:]) != 1:
            raise Unusable(f"convolution factor of shape {list(shape)} on a linear layer")
        return shape[:2]
    return shape


def magnitude_axis(role: str, shape: tuple[int, ...], target: Target) -> int:
    """Return the axis of the weight (0 rows, 1 columns) that a DoRA magnitude runs along.

    ``dora_scale`` is ``[out, 1]`` or ``[1, in]``, by the rule of ComfyUI's ``weight_decompose``
    (rows if the first dimension is out); the other names are always ``[out]``.

    Raises:
        Unusable: the shape fits neither axis.
    """
    out, inp = target.shape
    count = prod(shape)
    if shape and shape[0] == out == count:
        return 0
    if role == "dora_scale" and count == inp:
        if len(target.blocks) > 1 and target.blocks[0].module != target.module:
            raise Unusable("a column magnitude of fused projections cannot be split")
        return 1
    raise Unusable(f"DoRA magnitude of shape {list(shape)} on a {out}x{inp} weight")


def _require_shape(role: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected and not (len(expected) == 2 and flat_shape(shape) == expected):
        raise Unusable(f"{role} has shape {list(shape)}, the weight {list(expected)}")


def _pair(shapes: Mapping[str, tuple[int, ...]], first: str, second: str) -> tuple[int, int, int]:
    """Return (rows, columns, rank) of the product of two factors."""
    for role in (first, second):
        if role not in shapes:
            raise Unusable(f"{role} is missing")
        if len(shapes[role]) != 2:
            raise Unusable(f"{role} has shape {list(shapes[role])} instead of two dimensions")
    (rows, rank), (rank2, columns) = shapes[first], shapes[second]
    if rank != rank2:
        raise Unusable(f"{first} has rank {rank}, {second} has rank {rank2}")
    if rank == 0:
        raise Unusable("rank 0")
    return rows, columns, rank


def _lora_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
    if "mid" in shapes:
        middle = shapes["mid"]
        if len(middle) != 2 or middle[0] != middle[1]:
            raise Unusable(f"lora_mid of shape {list(middle)} cannot be folded exactly")
        _pair(shapes, "mid", "down")
    return _pair(shapes, "up", "down")


def _loha_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int]:
    first = _pair(shapes, "hada_w1_a", "hada_w1_b")
    second = _pair(shapes, "hada_w2_a", "hada_w2_b")
    if first[:2] != second[:2]:
        raise Unusable("the two LoHa products differ in shape")
    return first


def _lokr_shape(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int, int | None]:
    sizes: list[tuple[int, int]] = []
    rank: int | None = None
    for name in ("lokr_w1", "lokr_w2"):
        if name not in shapes:
            rows, columns, rank = _pair(shapes, f"{name}_a", f"{name}_b")
            sizes.append((rows, columns))
        elif len(shapes[name]) != 2 or 0 in shapes[name]:
            raise Unusable(f"{name} has shape {list(shapes[name])} instead of two dimensions")
        elif shapes.keys() & {f"{name}_a", f"{name}_b"}:
            raise Unusable(f"{name} is given both whole and as factors")
        else:
            sizes.append((shapes[name][0], shapes[name][1]))
    return sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1], rank


_FAMILY_SHAPES = {"lora": _lora_shape, "loha": _loha_shape, "lokr": _lokr_shape}


def observed_inputs(group: Group, infos: Infos) -> int | None:
    """Return the input size of the weight that a group's tensors were made for, if they tell."""
    roles = group.roles
    if "down" in roles and len(infos[roles["down"]].shape) >= 2:
        return infos[roles["down"]].shape[1]
    if "diff" in roles and len(infos[roles["diff"]].shape) == 2:
        return infos[roles["diff"]].shape[1]
    if "hada_w1_b" in roles:
        return infos[roles["hada_w1_b"]].shape[-1] if infos[roles["hada_w1_b"]].shape else None
    factors = [roles.get(f"lokr_w{i}", roles.get(f"lokr_w{i}_b")) for i in (1, 2)]
    sizes = [infos[key].shape for key in factors if key is not None]
    if len(sizes) == 2 and all(len(size) >= 2 for size in sizes):
        return sizes[0][1] * sizes[1][1]
    return None
