"""What is wrong with the LoRA files of a folder: broken, the same twice, for another model."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import LoraError
from ..examine import examine
from ..files.file_types import PICKLES, is_lora_file
from ..files.header import Header
from ..files.open_file import LoraFile
from ..mapping.supported_models import standard
from .errors import ToolError

_BLOCK = 2**20


@dataclass(frozen=True)
class Checked:
    """A file. `problem` is why it cannot be used; `other` why it is for no supported model."""

    path: Path
    architecture: str | None = None
    format: str | None = None
    problem: str | None = None
    other: str | None = None


@dataclass(frozen=True)
class FolderReport:
    """The files of a folder, and the groups of those whose tensors are the same."""

    files: tuple[Checked, ...]
    duplicates: tuple[tuple[Path, ...], ...]


def check_folder(
    folder: Path, model: str | None = None, step: Callable[[float, str], None] | None = None
) -> FolderReport:
    """Check every LoRA file below a folder, by headers.

    Data is read only of files whose headers describe the same tensors, to tell whether they are
    the same; names of files and metadata do not count. With `model` (the name of an
    architecture), files for another one have a problem.

    Raises:
        ToolError: it is no folder, or cannot be listed.
    """
    if not folder.is_dir():
        raise ToolError(folder, "is not a folder", "Name the folder that the LoRAs are in")
    paths = list(_files(folder))
    found: list[Checked] = []
    alike: dict[object, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            with LoraFile(path) as file:
                found.append(_checked(file, model))
                alike[_signature(file.header)].append(path)
        except LoraError as error:
            found.append(Checked(path, problem=error.problem))
        if step is not None:
            step(1 / len(paths), path.name)
    return FolderReport(tuple(found), tuple(_same(alike.values())))


def _files(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise ToolError(error.filename, f"cannot be listed ({error.strerror})", "Check it")

    for place, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        folders.sort()
        yield from (Path(place, name) for name in sorted(names) if is_lora_file(name))


def _checked(file: LoraFile, model: str | None) -> Checked:
    report = examine(file, standard()).report
    wrong = None
    if model is not None and report.architecture != model:
        wrong = f"for {report.architecture or 'another model'}, not {model}"
    elif report.architecture is not None and not report.modules_matched:
        wrong = "none of its modules can be applied"
    return Checked(file.path, report.architecture, report.format() or None, wrong, report.refusal)


def _signature(header: Header) -> object:
    return tuple(sorted((name, info.dtype, info.shape) for name, info in header.tensors.items()))


def _same(groups: Iterable[list[Path]]) -> Iterator[tuple[Path, ...]]:
    for group in groups:
        if len(group) < 2:
            continue
        by_content: dict[bytes, list[Path]] = defaultdict(list)
        for path in group:
            by_content[_content(path)].append(path)
        yield from (tuple(paths) for paths in by_content.values() if len(paths) > 1)


def _content(path: Path) -> bytes:
    """A digest of the tensors' bytes, in the order of their names."""
    digest = hashlib.sha256()
    with LoraFile(path) as file, path.open("rb") as data:
        if path.suffix.lower() in PICKLES:  # its tensors have no place in the file
            return hashlib.sha256(data.read()).digest()
        for _, info in sorted(file.header.tensors.items()):
            data.seek(file.header.data_start + info.begin)
            left = info.end - info.begin
            while left and (block := data.read(min(left, _BLOCK))):
                digest.update(block)
                left -= len(block)
    return digest.digest()
