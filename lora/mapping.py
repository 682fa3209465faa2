"""What every tensor name of a file means: mapped, ignored with a reason, or unmatched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from .architecture import Architecture, Target
from .naming import (
    REFUSED,
    Owner,
    Suffix,
    find,
    ignored_stem,
    public_role,
    refusal,
    spellings,
    split_suffix,
)

MAPPED, IGNORED, UNMATCHED = "mapped", "ignored", "unmatched"


class KeyEntry(NamedTuple):
    """The fate of one tensor name.

    `part` names the rows of a fused module (``q``, ``k``, ``v``); `status` is ``mapped``,
    ``ignored`` or ``unmatched``; `reason` says why a name is not mapped.
    """

    key: str
    module: str | None
    part: str | None
    role: str
    status: str
    reason: str | None


@dataclass
class Group:
    """The tensors of one target: internal role -> tensor name; `stem` is the trainer's spelling."""

    target: Target
    stem: str
    roles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class KeyMap:
    """The mapping of a whole file. Shared by every file with the same names: never change it.

    `groups` are the modules with something to apply; `modules` counts every module (or part of
    one) that the file addresses, known or not, except knowingly ignored ones such as encoders.
    """

    architecture: Architecture | None
    entries: Mapping[str, KeyEntry]
    groups: tuple[Group, ...]
    modules: int


def map_keys(keys: Iterable[str], architectures: tuple[Architecture, ...]) -> KeyMap:
    """Map a file's tensor names; memoized by the set of names.

    The architecture is the one that knows most of the names. A module given twice (under two
    prefixes or adapter slots, or both fused and split) is applied once; the rest is ignored.
    """
    return _map_key_set(frozenset(keys), architectures)


class _Claim(NamedTuple):
    key: str
    suffix: Suffix


@lru_cache(maxsize=32)
def _map_key_set(keys: frozenset[str], architectures: tuple[Architecture, ...]) -> KeyMap:
    owned, entries, unknown = _resolve(keys, spellings(architectures))
    counts: Counter[Architecture] = Counter()
    for (owner, _), claims in owned:
        counts[owner] += len(claims)
    best = max(counts, key=lambda item: (counts[item], item.name)) if counts else None
    groups: dict[Target, list[_Claim]] = {}
    for (owner, target), claims in owned:
        if owner is best:
            groups.setdefault(target, []).extend(claims)
            continue
        reason = f"a module of {owner.title}, but the file is for {best.title if best else '?'}"
        for key, _ in claims:
            entries[key] = KeyEntry(key, None, None, "other", UNMATCHED, reason)
        unknown += 1
    kept = [_settle(target, claims, entries) for target, claims in groups.items()]
    by_name = {(group.target.module, group.target.part): group for group in kept if group.roles}
    _drop_overlaps(by_name, entries)
    return KeyMap(best, entries, tuple(by_name.values()), len(groups) + unknown)


def _resolve(
    keys: frozenset[str], table: dict[str, Owner]
) -> tuple[list[tuple[Owner, list[_Claim]]], dict[str, KeyEntry], int]:
    """Look every stem up; return the known ones, the fate of other names, and unknown stems."""
    stems: dict[str, list[_Claim]] = {}
    entries: dict[str, KeyEntry] = {}
    unknown = 0
    for key in sorted(keys):
        suffix = split_suffix(key)
        if suffix is not None:
            stems.setdefault(suffix.stem, []).append(_Claim(key, suffix))
            continue
        reason = ignored_stem(key)
        status = UNMATCHED if reason is None else IGNORED
        unknown += reason is None
        entries[key] = KeyEntry(key, None, None, "other", status, reason or "unknown suffix")
    owned: list[tuple[Owner, list[_Claim]]] = []
    for stem, claims in stems.items():
        owner = find(stem, table)
        if owner is not None:
            owned.append((owner, claims))
            continue
        reason = ignored_stem(stem)
        status = UNMATCHED if reason is None else IGNORED
        unknown += reason is None
        for key, _ in claims:
            why = reason or "no supported model has this module"
            entries[key] = KeyEntry(key, None, None, "other", status, why)
    return owned, entries, unknown


def _settle(target: Target, claims: list[_Claim], entries: dict[str, KeyEntry]) -> Group:
    """Decide which of a target's tensors are used, and record the fate of each."""
    group = Group(target, claims[0].suffix.stem)
    for key, (_, role, _) in claims:
        group.roles.setdefault(role, key)
    refused = [claim for claim in claims if claim.suffix.role.startswith(REFUSED)]
    if refused or len(group.roles) < len(claims):
        claims = _selected(target, claims, refused, entries)
        group.roles = {claim.suffix.role: claim.key for claim in claims}
        if claims:
            group.stem = claims[0].suffix.stem
    for claim in claims:
        entries[claim.key] = _entry(target, claim, MAPPED, None)
    return group


def _selected(
    target: Target, claims: list[_Claim], refused: list[_Claim], entries: dict[str, KeyEntry]
) -> list[_Claim]:
    """Return the tensors to use of a target that has refused or competing ones."""
    for claim in refused:
        entries[claim.key] = _entry(target, claim, IGNORED, refusal(claim.suffix.role))
    usable = [claim for claim in claims if claim not in refused]
    if refused and all(claim.suffix.role in ("alpha", "dora_scale") for claim in usable):
        reason = f"belongs to a refused adapter: {refusal(refused[0].suffix.role)}"
        for claim in usable:
            entries[claim.key] = _entry(target, claim, IGNORED, reason)
        return []
    if len({claim.suffix.role for claim in usable}) < len(usable):
        return _first_variant(target, usable, entries)
    return usable


def _entry(target: Target, claim: _Claim, status: str, reason: str | None) -> KeyEntry:
    role = public_role(claim.suffix.role)
    return KeyEntry(claim.key, target.module, target.part, role, status, reason)


def _first_variant(
    target: Target, claims: list[_Claim], entries: dict[str, KeyEntry]
) -> list[_Claim]:
    """Keep one spelling of a module that a file gives under several; ignore the others.

    The spelling with most roles wins, then the unslotted or ``default`` slot, then the first by
    name. Names without a slot (``.alpha``) go with every slot of the same stem.
    """
    variants = {(claim.suffix.stem, claim.suffix.slot) for claim in claims}

    def members(variant: tuple[str, str | None]) -> list[_Claim]:
        stem, slot = variant
        found: dict[str, _Claim] = {}
        for claim in claims:
            if claim.suffix.stem == stem and claim.suffix.slot in (slot, None):
                found.setdefault(claim.suffix.role, claim)
        return list(found.values())

    def preference(variant: tuple[str, str | None]) -> tuple[int, bool, str, str]:
        stem, slot = variant
        return -len(members(variant)), slot not in (None, "default"), stem, slot or ""

    chosen = members(min(variants, key=preference))
    names = {claim.key for claim in chosen}
    for claim in claims:
        if claim.key not in names:
            reason = f"the module is also given as {chosen[0].suffix.stem}, which is used"
            entries[claim.key] = _entry(target, claim, IGNORED, reason)
    return chosen


def _drop_overlaps(
    groups: dict[tuple[str, str | None], Group], entries: dict[str, KeyEntry]
) -> None:
    """Where a projection is given both fused and split, keep the split set if it is complete."""
    for name, group in list(groups.items()):
        blocks = group.target.blocks
        if len(blocks) == 1:
            continue
        split = [(b.module, b.part) for b in blocks if (b.module, b.part) in groups]
        if not split:
            continue
        if len(split) == len(blocks):
            dropped, reason = [name], "the file also gives this projection split, which is used"
        else:
            dropped, reason = split, f"the file also gives {name[0]} fused, which is used"
        for item in dropped:
            for key in groups.pop(item).roles.values():
                entries[key] = entries[key]._replace(status=IGNORED, reason=reason)
