"""What was found in a LoRA file and what became of it, for people and programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from .factors.module_plan import Fault
from .mapping.key_map import IGNORED, UNMATCHED, KeyEntry
from .mapping.name_ranges import folded

_SHOWN = 3
_LONGEST = 200


@dataclass(frozen=True)
class Report:
    """The fate of every tensor name and module of a file.

    `architecture` is None if the file is refused as a whole, for the reason in `refusal`. `faults`
    are modules whose names are known but whose tensors cannot be applied. `ranks` are the smallest
    and largest rank; `nbytes` counts the tensors that are applied, in bytes. `notes` are what
    people should know of a file that is applied: labels and figures that its tensors contradict.
    """

    file: str
    architecture: str | None
    refusal: str | None
    keys: tuple[KeyEntry, ...]
    faults: tuple[Fault, ...] = ()
    formats: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None
    modules_matched: int = 0
    modules_total: int = 0
    nbytes: int = 0
    notes: tuple[str, ...] = ()

    def names(self, status: str) -> list[str]:
        """Return the tensor names of one status, in file order."""
        return [entry.key for entry in self.keys if entry.status == status]

    def ignored(self) -> dict[str, int]:
        """Return how many tensors are ignored, by reason."""
        return dict(Counter(e.reason or "" for e in self.keys if e.status == IGNORED))

    def ignored_names(self) -> dict[str, list[str]]:
        """Return the names of the tensors that are ignored, by reason."""
        found: dict[str, list[str]] = {}
        for entry in self.keys:
            if entry.status == IGNORED:
                found.setdefault(entry.reason or "", []).append(entry.key)
        return found

    def line(self) -> str:
        """Return the report on one line."""
        if self.refusal is not None:
            return printable(f"{self.file}: not applied, {self.refusal}")
        parts = [self.format(), f"{self.modules_matched} of {self.modules_total} modules"]
        parts += _ignored(self)
        if unmatched := self.names(UNMATCHED):
            parts.append(f"{len(unmatched)} unmatched: {_first(unmatched)}")
        if self.faults:
            shown = _first([f"{_module(fault)} {fault.reason}" for fault in self.faults])
            parts.append(f"{len(self.faults)} modules dropped: {shown}")
        parts += self.notes
        parts.append(_size(self.nbytes))
        return printable(f"{self.file}: {'; '.join(parts)}")

    def format(self) -> str:
        """Return model, adapter families and rank, for instance ``qwen_image LoRA rank 16``."""
        name = " ".join(filter(None, (self.architecture, " + ".join(self.formats))))
        if self.ranks is None:
            return name
        low, high = self.ranks
        return f"{name} rank {low}" if low == high else f"{name} rank {low}-{high}"

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "file": self.file,
            "architecture": self.architecture,
            "refusal": self.refusal,
            "formats": list(self.formats),
            "ranks": list(self.ranks) if self.ranks else None,
            "modules_matched": self.modules_matched,
            "modules_total": self.modules_total,
            "bytes": self.nbytes,
            "faults": [vars(fault) for fault in self.faults],
            "notes": list(self.notes),
            "keys": [entry._asdict() for entry in self.keys],
        }


def markdown(reports: Iterable[Report]) -> str:
    """Return a Markdown table with one row per file, and a list of what was not applied."""
    head = "| LoRA | format | modules | ignored | unmatched | dropped | size |"
    rows, details = [head, "|---|---|---|---|---|---|---|"], []
    for report in reports:
        name = PurePath(report.file).name
        counts = [len(report.names(IGNORED)), len(report.names(UNMATCHED)), len(report.faults)]
        cells = [
            name,
            report.format() or "not applied",
            f"{report.modules_matched} of {report.modules_total}",
            *map(str, counts),
            _size(report.nbytes),
        ]
        rows.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |")
        details += [f"- `{name}`: {text}" for text in _details(report)]
    return "\n".join(map(printable, [*rows, *([""] if details else []), *details]))


def _details(report: Report) -> list[str]:
    if report.refusal is not None:
        return [f"not applied, {report.refusal}"]
    found = [*report.notes, *_ignored(report)]
    found += [
        f"`{entry.key[:_LONGEST]}` unmatched: {entry.reason}"
        for entry in report.keys
        if entry.status == UNMATCHED
    ]
    return found + [f"`{_module(fault)}` dropped: {fault.reason}" for fault in report.faults]


def _ignored(report: Report) -> list[str]:
    """Every tensor that is ignored, by name, and why."""
    found = []
    for why, names in report.ignored_names().items():
        tensors = "tensor" if len(names) == 1 else "tensors"
        found.append(f"{len(names)} {tensors} ignored: {why} ({', '.join(folded(names))})")
    return found


def printable(text: str) -> str:
    """Return text with control characters and lone surrogates (names may hold any) replaced."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _module(fault: Fault) -> str:
    return fault.module if fault.part is None else f"{fault.module}[{fault.part}]"


def _first(names: list[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(name[:_LONGEST] for name in names[:_SHOWN]) + (
        f" and {rest} more" if rest > 0 else ""
    )


def _size(nbytes: int) -> str:
    if nbytes < 10_000:
        return f"{nbytes} B"
    if nbytes < 1_000_000:
        return f"{nbytes / 1000:.0f} kB"
    return f"{nbytes / 1_000_000:.1f} MB"
