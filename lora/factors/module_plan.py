"""What each module of a file needs, checked from names and shapes before anything is read.

Every tensor of a module takes part in a family's formula, or the module is refused whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from ..errors import Unusable
from ..files.header import FLOAT_DTYPES, INTEGER_DTYPES, TensorInfo
from ..mapping.adapter_config import NONE, AdapterConfig
from ..mapping.architecture import Target
from ..mapping.key_map import Group, KeyMap
from ..mapping.module_names import bare_stem
from ..mapping.peft_oft import OftSettings
from ..mapping.suffixes import SCALE_OF
from ..mapping.unsupported_methods import method_of, refusal_of
from .adapter_families import (
    ALPHA,
    DORA,
    FAMILIES,
    TITLES,
    Family,
    flat_shape,
    magnitude_axis,
    require_shape,
)
from .full_values import are_changes, by_step

Infos = Mapping[str, TensorInfo]
_BIAS = frozenset({"diff_b", "up_bias", "down_bias"})


@dataclass(frozen=True)
class Fault:
    """A module (or part of one) that is dropped, and why. The rest of the file still loads."""

    module: str
    part: str | None
    reason: str


@dataclass(frozen=True)
class ModulePlan:
    """One adapter to build.

    `keys` maps roles to tensor names; `rank` is that of the factors; `scale` is what is known
    without a tensor, None where alpha or the like is one of the tensors; `oft` is for peft's OFT.
    """

    target: Target
    stem: str
    family: str
    keys: Mapping[str, str]
    rank: int | None = None
    scale: float | None = 1.0
    oft: OftSettings | None = None

    @property
    def parameter(self) -> str:
        """The parameter that the adapter changes, ``"weight"`` or ``"bias"``."""
        return "bias" if self.family in ("bias", "peft_ia3_bias") else "weight"

    @property
    def dora(self) -> bool:
        """Whether the adapter re-normalizes the weight (DoRA)."""
        return not DORA.isdisjoint(self.keys)


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


def plan_file(keys: KeyMap, infos: Infos, config: AdapterConfig = NONE) -> Plans:
    """Return the adapters that can be built and the modules that cannot be used."""
    good: list[GroupPlan] = []
    bad: list[tuple[Group | GroupPlan, str]] = []
    values = are_changes(keys.groups)
    for group in keys.groups:
        try:
            plans = tuple(_plan_group(group, infos, config, values))
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


def _plan_group(
    group: Group, infos: Infos, config: AdapterConfig, values: bool
) -> list[ModulePlan]:
    """The adapters of one group; `values` tells whether full values of the file are changes."""
    _refuse_unexplained(group)
    roles, target = group.roles, group.target
    for role, key in roles.items():
        _check_type(role, key, roles, infos)
    plans: list[ModulePlan] = []
    used: set[str] = set()
    found = [family for family in FAMILIES if family.marks & roles.keys()]
    names = [family.name for family in found if family.name != "diff"]
    if len(names) > 1:
        titles = " and ".join(TITLES[name] for name in names)
        raise Unusable(f"holds tensors of {titles} at once")
    for family in found:
        keys = {role: key for role, key in roles.items() if family.takes(role)}
        used |= keys.keys()
        plan = _plan_family(family, group, keys, infos, config)
        plans.append(plan)
        if family.name == "peft_ia3" and target.bias and _scales_rows(infos[keys["ia3_l"]].shape):
            plans.append(replace(plan, family="peft_ia3_bias"))
    bias = {role: roles[role] for role in _BIAS & roles.keys()}
    if bias:
        plans.append(_plan_bias(target, group.stem, bias, plans, infos))
        used |= bias.keys()
    left = sorted(roles.keys() - used)
    if left == ["weight"] and values and not target.linear and not plans:
        require_shape("weight", infos[roles["weight"]].shape, target.shape)
        return [ModulePlan(target, group.stem, "full", {"weight": roles["weight"]})]
    if left:
        raise Unusable(by_step(group, infos) or _left_over(left, roles, plans))
    return plans


def _refuse_unexplained(group: Group) -> None:
    for key in group.unknown:
        tail = key.rpartition(f"{group.stem}.")[2]
        raise Unusable(method_of(tail) or f"its tensor {key!r} is not understood")
    if group.doubled:
        raise Unusable(f"two tensors have one role, the second is {group.doubled[0]!r}")
    for role in group.roles:
        why = refusal_of(role)
        if why is not None:
            raise Unusable(why)


def _left_over(left: list[str], roles: Mapping[str, str], plans: list[ModulePlan]) -> str:
    if "weight" in left:
        return (
            f"a full weight, {roles['weight']!r} (of a checkpoint, or peft's modules_to_save), not"
            " a change to one"
        )
    if not plans:
        if not DORA.isdisjoint(left):
            return "a DoRA magnitude without the factors that it belongs to"
        return f"only {', '.join(left)}, without the tensors that it belongs to"
    if not DORA.isdisjoint(left):
        return f"a DoRA magnitude without the factors that it belongs to, {roles[left[0]]!r}"
    title = TITLES[plans[0].family]
    return f"its tensor {roles[left[0]]!r} has no meaning beside tensors of {title}"


def _check_type(role: str, key: str, roles: Mapping[str, str], infos: Infos) -> None:
    dtype = infos[key].dtype
    if role in ALPHA and prod(infos[key].shape) != 1:
        raise Unusable(f"{role} has shape {list(infos[key].shape)} instead of one element")
    if dtype in FLOAT_DTYPES or (role in ("alpha", "on_input") and dtype in INTEGER_DTYPES):
        return
    if dtype == "I8" and SCALE_OF.get(role) in roles:
        return
    if dtype in INTEGER_DTYPES:
        raise Unusable(f"{role} is stored as {dtype} without a scale, which means nothing alone")
    raise Unusable(f"{role} is stored as {dtype}, not as a floating-point type")


def _plan_family(
    family: Family,
    group: Group,
    keys: dict[str, str],
    infos: Infos,
    config: AdapterConfig,
) -> ModulePlan:
    target = group.target
    if family.linear and len(target.shape) != 2:
        raise Unusable(f"{TITLES[family.name]} on weights of shape {list(target.shape)}")
    _check_method(family, config)
    shapes = {role: flat_shape(infos[key].shape, role) for role, key in keys.items()}
    rank = family.check(shapes, target)
    if len(DORA & keys.keys()) > 1:
        raise Unusable("holds two DoRA magnitudes")
    if len(ALPHA & keys.keys()) > 1:
        raise Unusable("holds both alpha and lora_scaling")
    if config.dora and family.name == "lora" and DORA.isdisjoint(keys):
        raise Unusable(f"has no magnitude, but {config.source} says use_dora")
    for role in DORA & keys.keys():
        magnitude_axis(role, infos[keys[role]].shape, target)
    if family.name == "lokr" and rank is None:  # alpha is a placeholder then, often 1e10
        keys.pop("alpha", None)
    if family.name == "peft_oft":
        settings = config.rotation()
        settings.blocks(shapes["oft_R"], target.shape[1])
        return ModulePlan(target, group.stem, family.name, keys, oft=settings)
    scale = _scale(group.stem, keys, rank, config) if family.scaled else 1.0
    return ModulePlan(target, group.stem, family.name, keys, rank, scale)


# The families that a method of peft, by its name in a configuration, is saved as. LoRA is left out:
# it is also what stands there when a program has written a configuration without saying more.
_SAVED_AS = {"IA3": "peft_ia3", "LOHA": "loha", "LOKR": "lokr", "OFT": "peft_oft"}


def _check_method(family: Family, config: AdapterConfig) -> None:
    expected = _SAVED_AS.get(config.method or "")
    if expected is not None and family.name not in (expected, "diff"):
        raise Unusable(
            f"its tensors are {TITLES[family.name]}, but {config.source} says that it is"
            f" {TITLES[expected]}"
        )


def _scales_rows(shape: tuple[int, ...]) -> bool:
    """Whether peft's IA3 multiplies what a layer puts out, its bias included."""
    return flat_shape(shape)[1:] == (1,)


def _scale(
    stem: str, keys: Mapping[str, str], rank: int | None, config: AdapterConfig
) -> float | None:
    """The scale that is stated outside of the tensors; None where one of them tells it."""
    own = not ALPHA.isdisjoint(keys)
    if "lora_E" in keys:
        if own:
            raise Unusable("is AdaLoRA with a scale of its own, which AdaLoRA does not have")
        return config.adaptive_scale()
    if config.method == "ADALORA":
        raise Unusable(f"has no lora_E, but {config.source} says that it is AdaLoRA")
    return None if own else config.scale(bare_stem(stem), rank)


def _plan_bias(
    target: Target, stem: str, bias: dict[str, str], plans: list[ModulePlan], infos: Infos
) -> ModulePlan:
    # What runs beside a linear layer can add to an output that has no bias.
    if not target.linear:
        raise Unusable("a bias change, but this module has no bias")
    for role, key in bias.items():
        if role != "down_bias":
            require_shape(role, infos[key].shape, target.shape[:1])
    keys = dict(bias)
    if bias.keys() == {"diff_b"}:
        return ModulePlan(target, stem, "bias", keys)
    lora = next((plan for plan in plans if plan.family == "lora"), None)
    if lora is None:
        raise Unusable("a bias of a projection without the projections")
    if lora.dora:
        raise Unusable("a bias of a projection beside a DoRA magnitude")
    if "lora_E" in lora.keys or ("mid" in lora.keys and "down_bias" in bias):
        raise Unusable("a bias of a projection beside lora_mid or lora_E")
    if "down_bias" in bias:
        require_shape("down_bias", infos[bias["down_bias"]].shape, (lora.rank or 0,))
    scales = ("alpha", "scaling", "up", "up_scale")
    keys.update({role: key for role, key in lora.keys.items() if role in scales})
    return ModulePlan(target, stem, "bias", keys, lora.rank, lora.scale)
