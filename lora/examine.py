"""From a header to everything that can be known of a LoRA without reading its tensors."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from threading import Lock

from .architecture import Architecture, standard
from .file import LoraFile, Stamp, stamp
from .lookalike import recognize
from .mapping import IGNORED, MAPPED, UNMATCHED, KeyEntry, KeyMap, map_keys
from .plan import Fault, ModulePlan, plan_file
from .report import Report


@dataclass(frozen=True)
class Examination:
    """The mapping of a file, the adapters to build, and the report so far."""

    keys: KeyMap
    plans: tuple[ModulePlan, ...]
    report: Report


def examine(file: LoraFile, architectures: tuple[Architecture, ...]) -> Examination:
    """Map and check an open file by its header."""
    header = file.header
    keys = map_keys(header.tensors, architectures)
    refusal = recognize(keys, header.tensors, header.metadata)
    if refusal is not None:
        entries = tuple(_refused(keys.entries[name], refusal) for name in header.tensors)
        report = Report(str(file.path), None, refusal, entries, modules_total=keys.modules)
        return Examination(keys, (), report)
    plans, faults = plan_file(keys, header.tensors)
    return Examination(keys, tuple(plans), _report(file, keys, plans, faults))


def _refused(entry: KeyEntry, reason: str) -> KeyEntry:
    if entry.status == IGNORED and entry.module is None:
        return entry
    return KeyEntry(entry.key, None, None, "other", UNMATCHED, reason)


def _report(file: LoraFile, keys: KeyMap, plans: list[ModulePlan], faults: list[Fault]) -> Report:
    infos = file.header.tensors
    entries = tuple(keys.entries[name] for name in infos)
    if keys.architecture is None:
        reasons = {entry.reason for entry in entries if entry.status != MAPPED}
        only = reasons.pop() if len(reasons) == 1 else "no module of a supported model in it"
        return Report(str(file.path), None, only, entries, modules_total=keys.modules)
    used = {key for plan in plans for key in plan.keys.values()}
    ranks = [plan.rank for plan in plans if plan.rank is not None]
    return Report(
        file=str(file.path),
        architecture=keys.architecture.name,
        refusal=None,
        keys=entries,
        faults=tuple(faults),
        formats=tuple(sorted({_format(plan) for plan in plans})),
        ranks=(min(ranks), max(ranks)) if ranks else None,
        modules_matched=len({(plan.target.module, plan.target.part) for plan in plans}),
        modules_total=keys.modules,
        nbytes=sum(infos[key].end - infos[key].begin for key in used),
    )


_FORMATS = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "diff": "diff", "bias": "bias"}


def _format(plan: ModulePlan) -> str:
    return ("DoRA " if plan.dora else "") + _FORMATS[plan.family]


def inspect(
    path: str | os.PathLike[str], architectures: tuple[Architecture, ...] | None = None
) -> Report:
    """Report on a file from its header alone; safetensors files need no torch for this.

    A file that was inspected or loaded before, and has not changed, is not opened again.

    Raises:
        LoraError: the file cannot be read or is not valid.
    """
    known = architectures or standard()
    content = stamp(path)
    report = _reports.get(_identity(path, content, known))
    if report is not None:
        return replace(report, file=os.fspath(path))
    with LoraFile(path) as file:
        report = examine(file, known).report
        file.check_unchanged(content)
    remember(path, content, known, report)
    return report


_REMEMBERED = 32
_reports: OrderedDict[tuple[str, Stamp, tuple[Architecture, ...]], Report] = OrderedDict()
_lock = Lock()


def remember(
    path: str | os.PathLike[str], content: Stamp, known: tuple[Architecture, ...], report: Report
) -> None:
    """Keep a report for later inspections of the same file; only the latest few are kept."""
    with _lock:
        _reports[_identity(path, content, known)] = report
        while len(_reports) > _REMEMBERED:
            _reports.popitem(last=False)


def _identity(
    path: str | os.PathLike[str], content: Stamp, known: tuple[Architecture, ...]
) -> tuple[str, Stamp, tuple[Architecture, ...]]:
    return os.path.abspath(path), content, known  # noqa: PTH100  (resolve would follow links)
