"""From a header to everything that can be known of a LoRA without reading its tensors."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from .factors.adapter_families import TITLES
from .factors.contradictions import contradictions
from .factors.module_plan import ModulePlan, Plans, plan_file
from .file_report import Report
from .files.header import TensorInfo
from .files.open_file import LoraFile, Stamp, stamp
from .mapping.adapter_config import NAME, AdapterConfig, config_beside, read_config
from .mapping.architecture import Architecture
from .mapping.key_map import (
    IGNORED,
    MAPPED,
    REFUSED,
    UNMATCHED,
    KeyEntry,
    KeyMap,
    map_keys,
    resolve_names,
)
from .mapping.supported_models import standard
from .mapping.which_model import judge, labels_of


class Identity(NamedTuple):
    """What a LoRA's content depends on: the file, and the configuration beside it, if any.

    `used` tells whether that is this file's own.
    """

    file: Stamp
    config: Stamp | None = None
    used: bool = False


def identity(path: str | os.PathLike[str]) -> Identity:
    """Return the identity of a LoRA file.

    Raises:
        LoraFileError: it is missing, cannot be accessed, or is no regular file.
    """
    content = stamp(path)
    config = Path(path).with_name(NAME)
    try:
        beside = Stamp.of(config.stat())
    except (OSError, ValueError):
        return Identity(content)
    return Identity(content, beside, config_beside(Path(path)) is not None)


@dataclass(frozen=True)
class Examination:
    """The mapping of a file, the adapters to build, what is said of scales, and the report."""

    keys: KeyMap
    plans: Plans
    config: AdapterConfig
    report: Report


def examine(file: LoraFile, architectures: tuple[Architecture, ...]) -> Examination:
    """Map and check an open file by its header, and by the configuration beside it."""
    header = file.header
    config = read_config(file.path, header.metadata)
    names = resolve_names(frozenset(header.tensors), architectures)
    verdict = judge(names, header.tensors, labels_of(header.metadata, config), architectures)
    keys = map_keys(header.tensors, architectures, verdict.architecture)
    refusal = verdict.refusal or config.refusal
    if refusal is not None:
        entries = tuple(_refused(keys.entries[name], refusal) for name in header.tensors)
        report = Report(str(file.path), None, refusal, entries, modules_total=keys.modules)
        return Examination(keys, Plans((), ()), config, report)
    plans = plan_file(keys, header.tensors, config)
    report = _report(file, keys, plans)
    notes = (*verdict.notes, *config.notes, *contradictions(header, plans, config))
    return Examination(keys, plans, config, replace(report, notes=notes))


def _refused(entry: KeyEntry, reason: str) -> KeyEntry:
    if entry.status == IGNORED and entry.module is None:
        return entry
    return KeyEntry(entry.key, None, None, "other", UNMATCHED, reason)


def _report(file: LoraFile, keys: KeyMap, plans: Plans) -> Report:
    infos = file.header.tensors
    entries = tuple(settled(keys.entries[name], plans.refused) for name in infos)
    if keys.architecture is None:
        reasons = {entry.reason for entry in entries if entry.status != MAPPED}
        only = reasons.pop() if len(reasons) == 1 else "no module of a supported model in it"
        return Report(str(file.path), None, only, entries, modules_total=keys.modules)
    return Report(
        file=str(file.path),
        architecture=keys.architecture.name,
        refusal=None,
        keys=entries,
        faults=plans.faults,
        formats=formats_of(plans.plans),
        ranks=ranks_of(plans.plans),
        modules_matched=len({(group.target.module, group.target.part) for group in plans.groups}),
        modules_total=keys.modules,
        nbytes=applied_bytes(plans.plans, infos),
    )


def applied_bytes(plans: tuple[ModulePlan, ...], infos: Mapping[str, TensorInfo]) -> int:
    """Return the bytes of the tensors that these adapters are built from."""
    used = {key for plan in plans for key in plan.keys.values()}
    return sum(infos[key].end - infos[key].begin for key in used)


def settled(entry: KeyEntry, refused: Mapping[str, str], status: str = REFUSED) -> KeyEntry:
    """Return the fate of a name, given the reasons of those that are not applied."""
    reason = refused.get(entry.key)
    return entry if reason is None else entry._replace(status=status, reason=reason)


def formats_of(plans: tuple[ModulePlan, ...]) -> tuple[str, ...]:
    """Return the families of adapters, for people, in the order of the alphabet."""
    return tuple(sorted({("DoRA " if p.dora else "") + TITLES[p.family] for p in plans}))


def ranks_of(plans: tuple[ModulePlan, ...]) -> tuple[int, int] | None:
    """Return the smallest and the largest rank, None if nothing has one."""
    ranks = [plan.rank for plan in plans if plan.rank is not None]
    return (min(ranks), max(ranks)) if ranks else None


@dataclass(frozen=True)
class Seen:
    """What was found in a file before: the report, and the metadata of its header."""

    report: Report
    metadata: Mapping[str, str]


def inspect(
    path: str | os.PathLike[str], architectures: tuple[Architecture, ...] | None = None
) -> Report:
    """Report on a file from its header alone; safetensors files need no torch for this.

    A file that was inspected or loaded before, and has not changed, is not opened again.

    Raises:
        LoraError: the file cannot be read or is not valid.
    """
    return replace(look(path, architectures).report, file=os.fspath(path))


def look(
    path: str | os.PathLike[str], architectures: tuple[Architecture, ...] | None = None
) -> Seen:
    """Return what is in a file, by its header; see `inspect`."""
    known = architectures or standard()
    content = identity(path)
    seen = SEEN.get(_key(path, content, known))
    if seen is not None:
        return seen
    with LoraFile(path) as file:
        seen = Seen(examine(file, known).report, file.header.metadata)
        file.check_unchanged(content.file)
    remember(path, content, known, seen)
    return seen


REMEMBERED = 64
_LARGEST = 2**20  # characters of metadata, of which some files have 30 MB
SEEN: OrderedDict[tuple[str, Identity, tuple[Architecture, ...]], Seen] = OrderedDict()
_lock = Lock()


def remember(
    path: str | os.PathLike[str], content: Identity, known: tuple[Architecture, ...], seen: Seen
) -> None:
    """Keep what was found for later looks at the same file; only the latest few are kept."""
    if sum(map(len, seen.metadata.values())) > _LARGEST:
        return
    with _lock:
        SEEN[_key(path, content, known)] = seen
        while len(SEEN) > REMEMBERED:
            SEEN.popitem(last=False)


def _key(
    path: str | os.PathLike[str], content: Identity, known: tuple[Architecture, ...]
) -> tuple[str, Identity, tuple[Architecture, ...]]:
    return os.path.abspath(path), content, known  # noqa: PTH100  (resolve would follow links)
