"""What each module of a file needs, checked from names and shapes before anything is read.

Every tensor of a module takes part in a family's formula, or the module is refused whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod

from .architecture import Target
from .errors import Unusable
from .header import FLOAT_DTYPES, INTEGER_DTYPES, TensorInfo
from .mapping import Group, KeyMap
from .methods import method_of
from .suffixes import SCALE_OF

Infos = Mapping[str, TensorInfo]
Shapes = Mapping[str, tuple[int, ...]]
_DORA = frozenset({"dora_scale", "magnitude"})
_ALPHA = frozenset({"alpha", "scaling"})
_BIAS = frozenset({"diff_b", "up_bias", "down_bias"})


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
        return not _DORA.isdisjoint(self.keys)


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """What is to be built of one group, and the names of its tensors."""

    target: Target
    stem: str
    keys: tuple[str, ...]
    plans: tuple[ModulePlan, ...]


@dataclass(frozen=True)
class Plans:
    """What can be built of a file, and what cannot; `refused` tells why by tensor name.

    `rivals` are sets of groups of which each overlaps with others: the file gives those rows
    several times, and only the tensors tell whether all say the same.
    """

    groups: tuple[GroupPlan, ...]
    faults: tuple[Fault, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    rivals: tuple[tuple[GroupPlan, ...], ...] = ()

    @property
    def plans(self) -> tuple[ModulePlan, ...]:
        """The adapters of all groups."""
        return tuple(plan for group in self.groups for plan in group.plans)


def plan_file(keys: KeyMap, infos: Infos) -> Plans:
    """Return the adapters that can be built and the modules that cannot be used."""
    good: list[GroupPlan] = []
    bad: list[tuple[Group | GroupPlan, str]] = []
    for group in keys.groups:
        try:
            plans = tuple(_plan_group(group, infos))
            good.append(GroupPlan(group.target, group.stem, tuple(group.keys), plans))
        except Unusable as error:
            bad.append((group, str(error)))
    if bad:
        good = _without_overlaps(good, bad)
    reasons = dict.fromkeys((group.target, reason) for group, reason in bad)
    faults = tuple(Fault(target.module, target.part, reason) for target, reason in reasons)
    refused = {key: reason for group, reason in bad for key in group.keys}
    return Plans(tuple(good), faults, refused, tuple(_rivals(good)))


def _without_overlaps(
    good: list[GroupPlan], bad: list[tuple[Group | GroupPlan, str]]
) -> list[GroupPlan]:
    """Refuse whatever else the file has for the rows of a refused module, until nothing is left."""
    rows = {block: group.stem for group, _ in bad for block in covered(group.target)}
    while True:
        touched = [group for group in good if not rows.keys().isdisjoint(covered(group.target))]
        if not touched:
            return good
        good = [group for group in good if group not in touched]
        for group in touched:
            other = next(rows[block] for block in covered(group.target) if block in rows)
            bad.append((group, f"the file also gives it as {other}, which cannot be used"))
            rows.update((block, group.stem) for block in covered(group.target))


def _rivals(groups: list[GroupPlan]) -> Iterator[tuple[GroupPlan, ...]]:
    """Yield the sets of groups that are connected by overlaps."""
    owners: dict[tuple[str, str | None], list[GroupPlan]] = {}
    for group in groups:
        for block in covered(group.target):
            owners.setdefault(block, []).append(group)
    pending = [group for found in owners.values() if len(found) > 1 for group in found]
    seen: set[int] = set()
    for first in dict.fromkeys(pending):
        together, queue = [], [first]
        while queue:
            group = queue.pop()
            if id(group) in seen:
                continue
            seen.add(id(group))
            together.append(group)
            queue += [other for block in covered(group.target) for other in owners[block]]
        if together:
            yield tuple(together)


def covered(target: Target) -> frozenset[tuple[str, str | None]]:
    """Return the smallest named pieces, ``(module, part)``, that a target covers."""
    return frozenset((block.module, block.part) for block in target.blocks)


def _plan_group(group: Group, infos: Infos) -> list[ModulePlan]:
    _refuse_unexplained(group)
    roles, target = group.roles, group.target
    for role, key in roles.items():
        _check_type(role, key, roles, infos)
    plans: list[ModulePlan] = []
    used: set[str] = set()
    found = [family for family in _FAMILIES if family.marks & roles.keys()]
    if sum(family.scaled for family in found) > 1:
        names = " and ".join(family.name for family in found if family.scaled)
        raise Unusable(f"holds {names} at once, so alpha is ambiguous")
    for family in found:
        keys = {role: key for role, key in roles.items() if family.takes(role)}
        used |= keys.keys()
        plans.append(_plan_family(family, group, keys, infos))
    bias = {role: roles[role] for role in _BIAS & roles.keys()}
    if bias:
        plans.append(_plan_bias(target, group.stem, bias, plans, infos))
        used |= bias.keys()
    left = sorted(roles.keys() - used)
    if left:
        raise Unusable(_left_over(left, roles, plans))
    return plans


def _refuse_unexplained(group: Group) -> None:
    for key in group.unknown:
        tail = key.rpartition(f"{group.stem}.")[2]
        raise Unusable(method_of(tail) or f"its tensor {key!r} is not understood")
    if group.doubled:
        raise Unusable(f"two tensors have one role, the second is {group.doubled[0]!r}")
    for role in group.roles:
        why = method_of(role)
        if why is not None:
            raise Unusable(why)


def _left_over(left: list[str], roles: Mapping[str, str], plans: list[ModulePlan]) -> str:
    if "weight" in left:
        return (
            f"a full weight, {roles['weight']!r} (of a checkpoint, or peft's modules_to_save), not"
            " a change to one"
        )
    if not plans:
        if not _DORA.isdisjoint(left):
            return "a DoRA magnitude without the factors that it belongs to"
        return f"only {', '.join(left)}, without the tensors that it belongs to"
    if not _DORA.isdisjoint(left):
        return f"a DoRA magnitude without the factors that it belongs to, {roles[left[0]]!r}"
    return f"its tensor {roles[left[0]]!r} has no meaning beside {plans[0].family} tensors"


def _check_type(role: str, key: str, roles: Mapping[str, str], infos: Infos) -> None:
    dtype = infos[key].dtype
    if role in _ALPHA and prod(infos[key].shape) != 1:
        raise Unusable(f"{role} has shape {list(infos[key].shape)} instead of one element")
    if dtype in FLOAT_DTYPES or (role in ("alpha", "on_input") and dtype in INTEGER_DTYPES):
        return
    if dtype == "I8" and SCALE_OF.get(role) in roles:
        return
    if dtype in INTEGER_DTYPES:
        raise Unusable(f"{role} is stored as {dtype} without a scale, which means nothing alone")
    raise Unusable(f"{role} is stored as {dtype}, not as a floating-point type")


def _plan_family(family: Family, group: Group, keys: dict[str, str], infos: Infos) -> ModulePlan:
    target = group.target
    if family.linear and len(target.shape) != 2:
        raise Unusable(f"a {family.name} adapter on weights of shape {list(target.shape)}")
    shapes = {role: flat_shape(infos[key].shape, role) for role, key in keys.items()}
    rank = family.check(shapes, target)
    if len(_DORA & keys.keys()) > 1:
        raise Unusable("holds two DoRA magnitudes")
    if len(_ALPHA & keys.keys()) > 1:
        raise Unusable("holds both alpha and lora_scaling")
    for role in _DORA & keys.keys():
        magnitude_axis(role, infos[keys[role]].shape, target)
    if family.check is _lokr and rank is None:  # alpha is a placeholder then, often 1e10
        keys.pop("alpha", None)
    return ModulePlan(target, group.stem, family.name, keys, rank)


def _plan_bias(
    target: Target, stem: str, bias: dict[str, str], plans: list[ModulePlan], infos: Infos
) -> ModulePlan:
    # What runs beside a linear layer can add to an output that has no bias.
    if not target.bias and len(target.shape) != 2:
        raise Unusable("a bias change, but this module has no bias")
    for role, key in bias.items():
        if role != "down_bias":
            _require_shape(role, infos[key].shape, target.shape[:1])
    keys = dict(bias)
    if bias.keys() == {"diff_b"}:
        return ModulePlan(target, stem, "bias", keys)
    lora = next((plan for plan in plans if plan.family == "lora"), None)
    if lora is None:
        raise Unusable("a bias of a projection without the projections")
    if lora.dora:
        raise Unusable("a bias of a projection beside a DoRA magnitude")
    if "down_bias" in bias:
        _require_shape("down_bias", infos[bias["down_bias"]].shape, (lora.rank or 0,))
    scales = ("alpha", "scaling", "up", "up_scale")
    keys.update({role: key for role, key in lora.keys.items() if role in scales})
    return ModulePlan(target, stem, "bias", keys, lora.rank)


def flat_shape(shape: tuple[int, ...], role: str = "") -> tuple[int, ...]:
    """Return the shape of a linear factor that may be stored as a 1x1 convolution.

    Raises:
        Unusable: it is a real convolution.
    """
    if len(shape) > 2 and role not in _STACKED:
        if prod(shape[2:]) != 1:
            raise Unusable(f"convolution factor of shape {list(shape)} on a linear layer")
        return shape[:2]
    return shape


_STACKED = frozenset({"oft_blocks"})


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


def _pair(shapes: Shapes, first: str, second: str) -> tuple[int, int, int]:
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


def _require_size(out: int, inp: int, target: Target) -> None:
    if (out, inp) != target.shape:
        expected = f"{target.shape[0]}x{target.shape[1]}"
        raise Unusable(f"is for a {out}x{inp} weight, but this one is {expected}")


def _lora(shapes: Shapes, target: Target) -> int:
    down, up = shapes.get("down", ()), shapes.get("up", ())
    turned = len(down) == len(up) == 2 and (up[1], down[0]) == target.shape and down[1] == up[0]
    if turned and (up[0], down[1]) != target.shape:
        raise Unusable(
            f"its factors are transposed, {list(down)} and {list(up)}, as MLX keeps them;"
            " transpose both in the program that wrote the file"
        )
    if "mid" in shapes:
        middle = shapes["mid"]
        if len(middle) != 2 or middle[0] != middle[1]:
            raise Unusable(f"lora_mid of shape {list(middle)} cannot be folded exactly")
        _pair(shapes, "mid", "down")
    out, inp, rank = _pair(shapes, "up", "down")
    _require_size(out, inp, target)
    if "lora_E" in shapes and shapes["lora_E"] not in ((rank, 1), (rank,)):
        raise Unusable(f"lora_E has shape {list(shapes['lora_E'])} at rank {rank}")
    for factor, scale in SCALE_OF.items():
        if scale in shapes:
            _scale_shape(shapes[scale], shapes.get(factor, ()), scale)
    return rank


def _scale_shape(shape: tuple[int, ...], factor: tuple[int, ...], role: str) -> None:
    if not factor:
        raise Unusable(f"{role} without the factor that it belongs to")
    if prod(shape) != 1 and shape not in ((factor[0],), (factor[0], 1)):
        raise Unusable(f"{role} has shape {list(shape)} for a factor {list(factor)}")


def _numbered(shapes: Shapes, target: Target) -> int:
    """kohya's parts: part i is ``up_i @ down_i``, all with alpha over the rank of one."""
    numbers = sorted(int(role[5:]) for role in shapes if role.startswith("down."))
    pairs = [_pair(shapes, f"up.{number}", f"down.{number}") for number in numbers]
    if not pairs or sum(role[:2] in ("up", "do") for role in shapes) != 2 * len(pairs):
        raise Unusable("its numbered parts (lora_down.0, lora_up.0, ...) do not pair up")
    if numbers != list(range(len(pairs))) or len({pair[1:] for pair in pairs}) > 1:
        raise Unusable("its numbered parts (lora_down.0, lora_down.1, ...) do not fit together")
    _require_size(sum(pair[0] for pair in pairs), pairs[0][1], target)
    return pairs[0][2]


def _loha(shapes: Shapes, target: Target) -> int:
    first = _pair(shapes, "hada_w1_a", "hada_w1_b")
    second = _pair(shapes, "hada_w2_a", "hada_w2_b")
    if first[:2] != second[:2]:
        raise Unusable("the two LoHa products differ in shape")
    _require_size(first[0], first[1], target)
    return first[2]


def _lokr(shapes: Shapes, target: Target) -> int | None:
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
    _require_size(sizes[0][0] * sizes[1][0], sizes[0][1] * sizes[1][1], target)
    return rank


def _diff(shapes: Shapes, target: Target) -> None:
    _require_shape("diff", shapes["diff"], target.shape)


def _glora(shapes: Shapes, target: Target) -> int:
    inner = _pair(shapes, "glora_a1", "glora_a2")
    out, inp, rank = _pair(shapes, "glora_b1", "glora_b2")
    _require_size(out, inp, target)
    if inner != (inp, inp, rank):
        raise Unusable(f"GLoRA's a1 and a2 are for {inner[1]} inputs, b1 and b2 for {inp}")
    return rank


def _ia3(shapes: Shapes, target: Target) -> None:
    if shapes.keys() != {"weight", "on_input"} or prod(shapes["on_input"]) != 1:
        raise Unusable("is IA3 of LyCORIS without both its weight and on_input")
    count = prod(shapes["weight"])
    if count not in target.shape or max(shapes["weight"]) != count:
        raise Unusable(f"IA3's weight has shape {list(shapes['weight'])}")


def _peft_ia3(shapes: Shapes, target: Target) -> None:
    out, inp = target.shape
    if shapes["ia3_l"] == (out, 1):
        if target.bias:
            raise Unusable(
                "is IA3 of peft, which scales the bias of this layer too; merge it with peft and"
                " extract a LoRA from the result ('vivace lora extract')"
            )
    elif shapes["ia3_l"] != (1, inp):
        raise Unusable(f"ia3_l has shape {list(shapes['ia3_l'])} on a {out}x{inp} weight")
    if len(target.blocks) > 1 and target.blocks[0].module != target.module:
        raise Unusable("IA3 of fused projections cannot be split")


def _oft(shapes: Shapes, target: Target) -> None:
    blocks = shapes["oft_blocks"]
    out = target.shape[0]
    butterfly = len(blocks) == 4
    if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2] or blocks[-3] * blocks[-1] != out:
        raise Unusable(f"oft_blocks has shape {list(blocks)} on {out} rows")
    if butterfly and (blocks[1] & (blocks[1] - 1) or 2 ** (blocks[0] - 1) > blocks[1]):
        raise Unusable(f"BOFT with {blocks[1]} blocks in {blocks[0]} stages")
    if butterfly and blocks[2] % 2:
        raise Unusable(f"BOFT with blocks of an odd size ({blocks[2]})")
    if len(target.blocks) > 1 and target.blocks[0].module != target.module:
        raise Unusable("a rotation of fused projections cannot be split")
    if "rescale" in shapes and shapes["rescale"] not in ((out,), (out, 1)):
        raise Unusable(f"rescale has shape {list(shapes['rescale'])} on {out} rows")


@dataclass(frozen=True)
class Family:
    """A kind of adapter.

    Attributes:
        name: of the family, in plans and reports.
        marks: roles that only it has.
        more: further roles that take part in its formula.
        check: checks shapes and returns the rank; raises `Unusable`.
        scaled: whether alpha belongs to it.
        linear: whether it is for linear layers only.
    """

    name: str
    marks: frozenset[str]
    more: frozenset[str]
    check: Callable[[Shapes, Target], int | None]
    scaled: bool = True
    linear: bool = True

    def takes(self, role: str) -> bool:
        """Whether a tensor of this role takes part."""
        return role in self.marks or role in self.more


_NUMBERS = frozenset(f"{side}.{number}" for side in ("down", "up") for number in range(8))
_FAMILIES = (
    Family(
        "lora",
        frozenset({"down", "up", "mid", "lora_E", *SCALE_OF.values()}),
        _ALPHA | _DORA,
        _lora,
    ),
    Family("numbered", _NUMBERS, _ALPHA, _numbered),
    Family("loha", frozenset(f"hada_w{i}_{f}" for i in "12" for f in "ab"), _ALPHA | _DORA, _loha),
    Family(
        "lokr",
        frozenset(f"lokr_w{i}{f}" for i in "12" for f in ("", "_a", "_b")),
        _ALPHA | _DORA,
        _lokr,
    ),
    Family("glora", frozenset(f"glora_{n}" for n in ("a1", "a2", "b1", "b2")), _ALPHA, _glora),
    Family("oft", frozenset({"oft_blocks"}), frozenset({"alpha", "rescale"}), _oft),
    Family("ia3", frozenset({"on_input"}), frozenset({"weight"}), _ia3),
    Family("peft_ia3", frozenset({"ia3_l"}), frozenset(), _peft_ia3),
    Family("diff", frozenset({"diff"}), frozenset(), _diff, scaled=False, linear=False),
)
