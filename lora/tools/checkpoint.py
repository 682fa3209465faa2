"""Checkpoints of the supported models as modules, whatever their names and number of files.

Needs headers only, and no torch for them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from ..factors.plan import Fault
from ..files.header import TensorInfo
from ..files.open_file import LoraFile
from ..mapping.architecture import Architecture
from ..mapping.module_names import Owner, Owners, find, spellings
from ..mapping.supported_models import standard
from ..mapping.tensor_names import MAPPED, UNMATCHED, KeyEntry
from ..report import Report
from .errors import ToolError

PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
_FLOATS = frozenset({*PLAIN, "F8_E4M3", "F8_E5M2"})
_REMEDY = "Name a .safetensors file of Qwen-Image or Z-Image, or diffusers' transformer folder"


@dataclass(frozen=True)
class StoredRows:
    """Rows ``start:stop`` of a module's parameter, as a tensor of a file has them."""

    file: LoraFile
    name: str
    info: TensorInfo
    start: int
    stop: int
    first: int
    """The tensor's row that is row `start` of the parameter."""


class ModelCheckpoint:
    """An open checkpoint; use as a context manager.

    Attributes:
        path: what was opened.
        architecture: the supported model that it is, by its names.
        parameters: (module, ``"weight"`` or ``"bias"``) -> where its rows are stored.
        present: every module of which the files hold something, quantized or not.

    Raises:
        LoraError: a file cannot be read, or holds no supported model.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        architectures: tuple[Architecture, ...] | None = None,
    ) -> None:
        self.path = Path(path)
        self._stack = ExitStack()
        try:
            self.files = [self._stack.enter_context(LoraFile(p)) for p in _shards(self.path)]
            owned = list(self._owned(spellings(architectures or standard())))
            if not owned:
                raise ToolError(path, "holds no module of a supported model", _REMEDY)
            self.architecture = _most_fitting(owned)
            self.present: set[str] = set()
            self.parameters: dict[tuple[str, str], list[StoredRows]] = {}
            for file, name, parameter, owner in owned:
                if owner.architecture is self.architecture:
                    self._add(file, name, parameter, owner)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> ModelCheckpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _owned(self, table: dict[str, Owners]) -> Iterator[tuple[LoraFile, str, str, Owner]]:
        for file in self.files:
            for name in file.header.tensors:
                stem, _, last = name.rpartition(".")
                for owner in find(name, table) or ():
                    yield file, name, "weight", owner
                if find(name, table) is None:
                    for owner in find(stem, table) or ():
                        yield file, name, last, owner

    def _add(self, file: LoraFile, name: str, parameter: str, owner: Owner) -> None:
        info, target = file.header.tensors[name], owner.target
        self.present.update(block.module for block in target.blocks)
        if parameter not in ("weight", "bias") or info.dtype not in _FLOATS:
            return
        for block in target.blocks:
            start, stop = self.architecture.rows(block.module, block.part)
            stored = StoredRows(file, name, info, start, stop, block.start)
            self.parameters.setdefault((block.module, parameter), []).append(stored)

    @property
    def nbytes(self) -> int:
        """Size of its files."""
        return sum(file.stamp.size for file in self.files)

    def shape(self, module: str) -> tuple[int, ...] | None:
        """The shape of a module's weight where it is stored unquantized in one tensor."""
        parts = self.parameters.get((module, "weight"), [])
        if len(parts) != 1 or parts[0].first:
            return None
        expected = self.architecture.modules[module].shape
        found = parts[0].info.shape
        return expected if found[0] > expected[0] and found[1:] == expected[1:] else found


def _most_fitting(owned: Iterable[tuple[LoraFile, str, str, Owner]]) -> Architecture:
    """The model that most shapes fit, then most names: some models share names."""
    names: Counter[Architecture] = Counter()
    fitting: Counter[Architecture] = Counter()
    for file, name, parameter, owner in owned:
        names[owner.architecture] += 1
        fits = file.header.tensors[name].shape == owner.target.shape
        fitting[owner.architecture] += parameter == "weight" and fits
    return max(names, key=lambda model: (fitting[model], names[model], model.name))


def _shards(path: Path) -> list[Path]:
    folder = path.parent if path.name.endswith(".index.json") else path
    if not folder.is_dir():
        return [path]
    for place in (folder, folder / "transformer"):
        if found := sorted(place.glob("*.safetensors")):
            return found
    raise ToolError(path, "no .safetensors file in this folder", _REMEDY)


def against(report: Report, checkpoint: ModelCheckpoint) -> Report:
    """The report of a LoRA for one checkpoint: what that does not have is not matched."""
    model = checkpoint.architecture
    if report.architecture is None:
        return report
    if report.architecture != model.name:
        reason = f"for {report.architecture}, but {checkpoint.path.name} is {model.title}"
        keys = tuple(_unmatched(entry, reason) for entry in report.keys)
        return replace(report, refusal=reason, keys=keys, modules_matched=0, nbytes=0)
    reasons = {
        name: reason
        for name in {entry.module for entry in report.keys if entry.module is not None}
        if (reason := _missing(name, checkpoint)) is not None
    }
    lost = {(e.module, e.part) for e in report.keys if e.status == MAPPED and e.module in reasons}
    dropped = {(fault.module, fault.part) for fault in report.faults}
    keys = tuple(
        _unmatched(entry, reasons[entry.module]) if entry.module in reasons else entry
        for entry in report.keys
    )
    faults = tuple(fault for fault in report.faults if fault.module not in reasons)
    faults += tuple(Fault(str(m), p, reasons[str(m)]) for m, p in sorted(lost, key=str))
    matched = report.modules_matched - len(lost - dropped)
    return replace(report, keys=keys, faults=faults, modules_matched=matched)


def _missing(name: str, checkpoint: ModelCheckpoint) -> str | None:
    """Why a module or fusion cannot be applied to the checkpoint, or None."""
    model = checkpoint.architecture
    for block in model.layout(name):
        if block.module not in checkpoint.present:
            return f"{checkpoint.path.name} has no {block.module}"
        expected, found = model.modules[block.module].shape, checkpoint.shape(block.module)
        if found is not None and found != expected:
            return f"{block.module} of {checkpoint.path.name} is {_by(found)}, not {_by(expected)}"
    return None


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _unmatched(entry: KeyEntry, reason: str) -> KeyEntry:
    if entry.status != MAPPED:
        return entry
    return entry._replace(status=UNMATCHED, reason=reason)
