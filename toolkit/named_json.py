"""Values by name: one readable JSON file each below one folder, which processes may share.

Files are replaced as a whole, so readers need no lock. What is damaged, or half written by
something else, is reported and left out.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .json_files import JsonFileError, read_object, write_objects

SUFFIX = ".json"
V = TypeVar("V")


@dataclass(frozen=True)
class Listing(Generic[V]):
    """Values by name, in order, and the files that could not be read."""

    values: dict[str, V]
    problems: tuple[JsonFileError, ...]


class NamedJson(ABC, Generic[V]):
    """The values below one folder, which is made when something is first saved."""

    in_folders = True
    """Whether names have folders."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)

    @abstractmethod
    def _path(self, name: str) -> Path:
        """The file of a name.

        Raises:
            ValueError: no possible name.
        """

    @abstractmethod
    def _value(self, path: Path, content: dict[str, Any]) -> V:
        """What a file holds.

        Raises:
            JsonFileError: the file is damaged.
        """

    @abstractmethod
    def _content(self, value: V) -> dict[str, Any]:
        """What is written for a value."""

    @abstractmethod
    def _missing(self, name: str) -> ValueError:
        """The error where nothing has this name."""

    @abstractmethod
    def _clash(self, name: str, other: str) -> ValueError:
        """The error where two names differ only in case, which not every system tells apart."""

    def load(self, name: str) -> V:
        """Return a value.

        Raises:
            ValueError: no possible name, or nothing has it.
            JsonFileError: its file is damaged.
        """
        value = self._read(self._path(name))
        if value is None:
            raise self._missing(name)
        return value

    def list(self) -> Listing[V]:
        """Every value, and what looks like one but cannot be read."""
        values: dict[str, V] = {}
        problems: list[JsonFileError] = []

        def unreadable(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                problem = f"cannot be read ({error.strerror})"
                where = Path(error.filename)
                problems.append(JsonFileError(where, problem, "Check the permissions"))

        for folder, folders, files in os.walk(self._root, onerror=unreadable):
            folders[:] = [name for name in sorted(folders) if name[0] != "." and self.in_folders]
            for file in sorted(files):
                path = Path(folder, file)
                if file.startswith(".") or path.suffix != SUFFIX:
                    continue
                name = path.relative_to(self._root).with_suffix("").as_posix()
                try:
                    value = self._read(self._path(name))
                except JsonFileError as error:
                    problems.append(error)
                except ValueError as error:
                    problems.append(JsonFileError(path, str(error).rstrip("."), "Rename the file"))
                else:
                    if value is not None:  # else deleted meanwhile
                        values[name] = value
        return Listing(dict(sorted(values.items())), tuple(problems))

    def _read(self, path: Path) -> V | None:
        content = read_object(path)
        return None if content is None else self._value(path, content)

    def _write(self, values: Mapping[str, V]) -> None:
        """Write all or, where one name clashes or does not fit onto the disk, none."""
        paths = {self._path(name): value for name, value in values.items()}
        self._check_case(paths)
        write_objects({path: self._content(value) for path, value in paths.items()})

    def _unlink(self, name: str) -> None:
        path = self._path(name)
        try:
            path.unlink()
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            problem = f"cannot be deleted ({error.strerror})"
            raise JsonFileError(path, problem, "Check the permissions") from None

    def _check_case(self, paths: Iterable[Path]) -> None:
        """Refuse what some file systems would take for the same file, and others not."""
        names: dict[Path, set[str]] = {}  # by folder, those of `paths` among them
        for path in paths:
            here = self._root
            for part in path.relative_to(self._root).parts:
                if here not in names:
                    names[here] = _names_in(here)
                for other in () if part in names[here] else names[here]:
                    if other.casefold() == part.casefold():
                        raise self._clash(part.removesuffix(SUFFIX), other.removesuffix(SUFFIX))
                names[here].add(part)
                here /= part


def _names_in(folder: Path) -> set[str]:
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise JsonFileError(folder, problem, "Check the permissions") from None
