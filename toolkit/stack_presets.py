"""Named stacks of LoRAs, without folders.

A stack is replaced as a whole, so writers need no lock.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..lora.rows import LoraRow, RowError, parse_rows
from .json_files import damaged
from .named_json import SUFFIX, NamedJson
from .prompt_names import find_fault

Rows = tuple[LoraRow, ...]
_FIELD = "rows"
BUNDLE_FIELD = "vivace_stacks"


class StackPresetError(ValueError):
    """Something that cannot be done with a stack; the message names it and the remedy."""


class NoSuchStackError(StackPresetError):
    """There is no stack of this name."""


class StackPresets(NamedJson[Rows]):
    """The stacks in one folder, which is made when one is first saved."""

    in_folders = False

    def save(self, name: str, rows: Sequence[LoraRow]) -> None:
        """Save a stack, in place of any other of the name.

        Raises:
            StackPresetError: no possible name, or one that differs from another only in case.
            JsonFileError: the file cannot be written.
        """
        self._write({name: tuple(rows)})

    def delete(self, name: str) -> None:
        """Delete a stack, damaged or not.

        Raises:
            StackPresetError: no possible name, or (`NoSuchStackError`) there is none of it.
            JsonFileError: the file cannot be deleted.
        """
        self._unlink(name)

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
        self._write({name: stacks[name] for name in chosen})
        return tuple(chosen)

    def _path(self, name: str) -> Path:
        normal = unicodedata.normalize("NFC", name)
        fault = "a slash" if "/" in normal else find_fault(normal) if normal else "no characters"
        if fault:
            shown = normal if len(normal) <= 60 else f"{normal[:60]}..."
            raise StackPresetError(f"{shown!r} cannot name a stack: it has {fault}.")
        return self._root / f"{normal}{SUFFIX}"

    def _value(self, path: Path, content: dict[str, Any]) -> Rows:
        try:
            return parse_rows(content.get(_FIELD))
        except RowError as error:
            raise damaged(path, str(error).rstrip(".")) from None

    def _content(self, value: Rows) -> dict[str, Any]:
        return {_FIELD: [row.as_dict() for row in value]}

    def _missing(self, name: str) -> NoSuchStackError:
        return NoSuchStackError(f"There is no stack '{name}'.")

    def _clash(self, name: str, other: str) -> StackPresetError:
        return StackPresetError(
            f"'{name}' differs from '{other}' only in case, which not every system tells apart."
            " Choose another name."
        )


def _imported(name: str, value: Any) -> Rows:
    try:
        return parse_rows(value)
    except RowError as error:
        raise StackPresetError(f"The stack '{name}' of the file is damaged: {error}") from None
