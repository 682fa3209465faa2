"""What every tensor name of a file means: mapped, refused or ignored (and why), or unmatched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .architecture import Architecture, Target
from .module_names import (
    Owners,
    bare_stem,
    find,
    find_inside,
    ignored_stem,
    may_be_wrapped,
    spellings,
    without_wrappers,
)
from .suffixes import PUBLIC_ROLES, TensorName, split_suffix
from .unsupported_methods import method_of

MAPPED, REFUSED, IGNORED, UNMATCHED = "mapped", "refused", "ignored", "unmatched"
_NO_MODULE = "no supported model has this module"


class KeyEntry(NamedTuple):
    """The fate of one tensor name.

    `part` names the rows of a fused module (``q``, ``k``, ``v``); `status` is ``mapped``,
    ``refused`` (the module is not applied), ``ignored`` (no part of the diffusion model) or
    ``unmatched``; `reason` says why a name is not mapped.
    """

    key: str
    module: str | None
    part: str | None
    role: str
    status: str
    reason: str | None


class Stem(NamedTuple):
    """A module as the file spells it, the models that have it, and its tensors in the file."""

    name: str
    owners: Owners
    claims: Sequence[TensorName]

    def target(self, architecture: Architecture) -> Target | None:
        """Return what the stem means in an architecture, None if that has no such module."""
        for owner in self.owners:
            if owner.architecture is architecture:
                return owner.target
        return None


@dataclass(frozen=True)
class Names:
    """What the names of a file say by themselves. Shared by files with the same names.

    `stems` are the modules that some supported model has; `foreign` tells why every other tensor
    name is not one of them, and `strange` lists those stems of which no reason is known.
    """

    stems: tuple[Stem, ...]
    foreign: Mapping[str, KeyEntry]
    strange: tuple[str, ...]


@dataclass
class Group:
    """The tensors of one target in one spelling and adapter slot.

    `roles` maps the role to the tensor name. `unknown` are tensors of the module whose role is not
    known, `doubled` those whose role another tensor of the group has.
    """

    target: Target
    stem: str
    roles: dict[str, str] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """Every tensor name of the group."""
        return [*self.roles.values(), *self.unknown, *self.doubled]


@dataclass(frozen=True)
class KeyMap:
    """The mapping of a whole file. Shared by every file with the same names: never change it.

    `groups` are the modules with something to apply: a module that the file gives in several
    spellings or slots has a group for each. `modules` counts every module (or part of one) that
    the file addresses, known or not, except knowingly ignored ones such as encoders.
    """

    architecture: Architecture | None
    entries: Mapping[str, KeyEntry]
    groups: tuple[Group, ...]
    modules: int
    strange: tuple[str, ...] = ()


def map_keys(
    keys: Iterable[str],
    architectures: tuple[Architecture, ...],
    chosen: Architecture | None = None,
) -> KeyMap:
    """Map a file's tensor names; memoized by the set of names.

    The architecture is `chosen`, or the one that knows most of the names.
    """
    found = frozenset(keys)
    return map_key_set(found, architectures, chosen)


@lru_cache(maxsize=32)
def resolve_names(keys: frozenset[str], architectures: tuple[Architecture, ...]) -> Names:
    """Look every name up in the tables of all architectures."""
    table = spellings(architectures)
    split: dict[str, list[TensorName]] = {}
    unsplit: list[str] = []
    for key in sorted(keys):
        parts = split_suffix(key)
        if parts is None:
            unsplit.append(key)
        elif parts.stem in split:
            split[parts.stem].append(parts)
        else:
            split[parts.stem] = [parts]
    _join_wrapped(split)
    found: dict[str, tuple[Owners, list[TensorName]]] = {}
    for name, claims in split.items():
        owners = find(name, table)
        if owners is None:
            unsplit += [claim.key for claim in claims]
        else:
            found[name] = owners, claims
    foreign: dict[str, KeyEntry] = {}
    strange: dict[str, None] = {}
    for key in unsplit:
        inside = find_inside(key, table)
        if inside is None:
            _record_foreign(key, foreign, strange)
            continue
        name, owners = inside
        unknown = TensorName(key, name, None)
        found.setdefault(name, (owners, []))[1].append(unknown)
    stems = tuple(Stem(name, owners, claims) for name, (owners, claims) in found.items())
    return Names(stems, foreign, tuple(strange))


def _join_wrapped(split: dict[str, list[TensorName]]) -> None:
    """Bring together what a wrapper separates: ``x._orig_mod.lora_A.weight`` and ``x.alpha``.

    Stems that have a role in common stay apart: they are several versions of one module.
    """
    if not may_be_wrapped(split):
        return
    wrapped = [(name, bare) for name in split if (bare := without_wrappers(name)) != name]
    for name, bare in wrapped:
        others = split.get(bare, [])
        roles = {claim.role for claim in others}
        if roles.isdisjoint(claim.role for claim in split[name]):
            split[bare] = others + split.pop(name)


def _record_foreign(key: str, foreign: dict[str, KeyEntry], strange: dict[str, None]) -> None:
    suffix = split_suffix(key)
    stem = key if suffix is None else suffix.stem
    reason = ignored_stem(key)
    if reason is None:
        strange[stem] = None
    bare = bare_stem(key)
    method = method_of(bare) if "." not in bare else None
    status = UNMATCHED if reason is None else IGNORED
    why = reason or method or _NO_MODULE
    foreign[key] = KeyEntry(key, None, None, "other", status, why)


def _most_names(names: Names, architectures: tuple[Architecture, ...]) -> Architecture | None:
    counts: Counter[Architecture] = Counter()
    for stem in names.stems:
        for owner in stem.owners:
            counts[owner.architecture] += len(stem.claims)
    return max(architectures, key=counts.__getitem__) if counts else None


@lru_cache(maxsize=32)
def map_key_set(
    keys: frozenset[str], architectures: tuple[Architecture, ...], chosen: Architecture | None
) -> KeyMap:
    """Map a set of names, as `map_keys`; this is what is memoized."""
    names = resolve_names(keys, architectures)
    best = chosen or _most_names(names, architectures)
    entries = dict(names.foreign)
    groups: list[Group] = []
    modules: dict[Target | str, None] = dict.fromkeys(names.strange)
    for stem in names.stems:
        target = None if best is None else stem.target(best)
        if target is None:
            _belongs_elsewhere(stem, best, entries)
            modules[stem.name] = None
            continue
        modules[target] = None
        groups += _grouped(target, stem)
        module, part = target.module, target.part
        for key, _, role, _ in stem.claims:
            public = PUBLIC_ROLES.get(role, "other")
            entry = KeyEntry(key, module, part, public, MAPPED, None)
            if role is None:
                entry = entry._replace(status=REFUSED, reason="what it is for is not known")
            entries[key] = entry
    return KeyMap(best, entries, tuple(groups), len(modules), names.strange)


def _belongs_elsewhere(stem: Stem, best: Architecture | None, entries: dict[str, KeyEntry]) -> None:
    title = stem.owners[0].architecture.title
    reason = f"a module of {title}, but the file is for {best.title if best else '?'}"
    for claim in stem.claims:
        entries[claim.key] = KeyEntry(claim.key, None, None, "other", UNMATCHED, reason)


def _grouped(target: Target, stem: Stem) -> list[Group]:
    """One group for each adapter slot; tensors without a slot (``.alpha``) go with every one."""
    slots = {slot: None for *_, slot in stem.claims if slot is not None}
    if not slots:
        return [_group(target, stem.name, stem.claims)]
    own = [c for c in stem.claims if c.slot is None]
    return [
        _group(target, stem.name, [c for c in stem.claims if c.slot == slot] + own)
        for slot in slots
    ]


def _group(target: Target, stem: str, claims: Sequence[TensorName]) -> Group:
    roles: dict[str, str] = {}
    group = Group(target, stem, roles)
    for key, _, role, _ in claims:
        if role is None:
            group.unknown += (key,)
        elif role in roles:
            group.doubled += (key,)
        else:
            roles[role] = key
    return group
