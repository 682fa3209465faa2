"""Named stacks of LoRAs: one readable JSON file each in one folder, which processes may share.

A stack is replaced as a whole, so readers and other writers need no lock. What is damaged, or half
written by something else, is reported and left out.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..lora.rows import LoraRow, RowError, parse_rows
from .json_files import JsonFileError, damaged, read_object, write_object, write_objects
from .prompt_names import find_fault

SUFFIX = ".json"
Rows = tuple[LoraRow, ...]
_FIELD = "rows"
BUNDLE_FIELD = "vivace_stacks"


class StackPresetError(ValueError):
    """Something that cannot be done with a stack; the message names it and the remedy."""


class NoSuchStackError(StackPresetError):
    """There is no stack of this name."""


@dataclass(frozen=True)
class Listing:
    """Stacks by name, in order, and the files that could not be read."""

    stacks: dict[str, Rows]
    problems: tuple[JsonFileError, ...]


class StackPresets:
    """The stacks in one folder, which is made when one is first saved."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def load(self, name: str) -> Rows:
        """Return the rows of a stack.

        Raises:
            StackPresetError: no possible name, or (`NoSuchStackError`) there is none of it.
            JsonFileError: its file is damaged.
        """
        rows = _read(self._path(name))
        if rows is None:
            raise NoSuchStackError(f"There is no stack '{name}'. Save it first.")
        return rows

    def save(self, name: str, rows: Sequence[LoraRow]) -> None:
        """Save a stack, in place of any other of the name.

        Raises:
            StackPresetError: no possible name, or one that differs from another only in case.
            JsonFileError: the file cannot be written.
        """
        path = self._path(name)
        _refuse_case(path, self._files())
        write_object(path, _as_json(rows))

    def delete(self, name: str) -> None:
        """Delete a stack, damaged or not.

        Raises:
            StackPresetError, JsonFileError: as for `load`.
        """
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise NoSuchStackError(f"There is no stack '{name}'.") from None
        except OSError as error:
            problem = f"cannot be deleted ({error.strerror})"
            raise JsonFileError(path, problem, "Check the permissions") from None

    def list(self) -> Listing:
        """Every stack, and what looks like one but cannot be read."""
        stacks: dict[str, Rows] = {}
        problems: list[JsonFileError] = []
        for path in self._files():
            try:
                rows = _read(self._path(path.stem))
            except StackPresetError as error:
                problems.append(JsonFileError(path, str(error).rstrip("."), "Rename the file"))
            except JsonFileError as error:
                problems.append(error)
            else:
                if rows is not None:  # else deleted meanwhile
                    stacks[path.stem] = rows
        return Listing(stacks, tuple(problems))

    def import_bundle(self, content: Any, overwrite: bool = False) -> tuple[str, ...]:
        """Save the stacks of an exported file, those that exist only with `overwrite`.

        Nothing is saved unless every stack of the file can be read.

        Args:
            content: what the file has as JSON, ``{"vivace_stacks": {name: rows}}``.

        Returns:
            The names that were saved.

        Raises:
            StackPresetError: it has no stacks, one of them is damaged, or a name that no stack can
                have, that differs from another's in case, or that is another's in Unicode NFC.
            JsonFileError: a file cannot be written.
        """
        entries = content.get(BUNDLE_FIELD) if isinstance(content, dict) else None
        if not isinstance(entries, dict):
            raise StackPresetError("This is not a file of exported stacks. Export them again.")
        stacks: dict[str, Rows] = {}
        for given, value in entries.items():
            name = self._path(given).stem
            if name in stacks:
                raise StackPresetError(
                    f"The file has the stack '{name}' twice. Rename one of them."
                )
            stacks[name] = _imported(name, value)
        present = {name for name in stacks if self._path(name).exists()}
        chosen = [name for name in stacks if overwrite or name not in present]
        together = [*self._files(), *(self._path(name) for name in chosen)]
        for name in chosen:
            _refuse_case(self._path(name), together)
        write_objects({self._path(name): _as_json(stacks[name]) for name in chosen})
        return tuple(chosen)

    def _path(self, name: str) -> Path:
        normal = unicodedata.normalize("NFC", name)
        fault = "a slash" if "/" in normal else find_fault(normal) if normal else "no characters"
        if fault:
            shown = normal if len(normal) <= 60 else f"{normal[:60]}..."
            raise StackPresetError(f"{shown!r} cannot name a stack: it has {fault}.")
        return self._folder / f"{normal}{SUFFIX}"

    def _files(self) -> list[Path]:
        try:
            files = [Path(entry.path) for entry in os.scandir(self._folder)]
        except FileNotFoundError:
            return []
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise JsonFileError(self._folder, problem, "Check the permissions") from None
        return sorted(p for p in files if p.suffix == SUFFIX and not p.name.startswith("."))


def _refuse_case(path: Path, others: Iterable[Path]) -> None:
    for other in others:
        if other.name != path.name and other.name.casefold() == path.name.casefold():
            raise StackPresetError(
                f"'{path.stem}' differs from '{other.stem}' only in case, which not every system"
                " tells apart. Choose another name."
            )


def _as_json(rows: Iterable[LoraRow]) -> dict[str, Any]:
    return {_FIELD: [row.as_dict() for row in rows]}


def _imported(name: str, value: Any) -> Rows:
    try:
        return parse_rows(value)
    except RowError as error:
        raise StackPresetError(f"The stack '{name}' of the file is damaged: {error}") from None


def _read(path: Path) -> Rows | None:
    content = read_object(path)
    if content is None:
        return None
    try:
        return parse_rows(content.get(_FIELD))
    except RowError as error:
        raise damaged(path, str(error).rstrip(".")) from None
