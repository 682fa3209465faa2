"""A library of named prompts, in folders, shared by processes.

Writers take turns by a lock file. What is damaged is never written over.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from .json_files import JsonFileError, damaged
from .named_json import SUFFIX, NamedJson
from .prompt_history import Run, read_runs, write_runs
from .prompt_names import check_name
from .prompt_template import expand

_LOCK_SECONDS = 10.0


class PromptLibraryError(ValueError):
    """Something the library will not do; the message names the prompt and the remedy."""


class NoSuchPromptError(PromptLibraryError):
    """There is no prompt of this name."""


class PromptConflictError(PromptLibraryError):
    """There is a prompt of this name already, one whose name differs only in case, or another
    than the caller has seen."""


@dataclass(frozen=True)
class SavedPrompt:
    """A positive and negative text, either with variables and alternatives, and its tags."""

    positive: str
    negative: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def revision(self) -> str:
        """The same for equal prompts, another for all others."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def expand_prompt(
    prompt: SavedPrompt, variables: Mapping[str, str] | None = None, seed: int = 0
) -> tuple[str, str]:
    """The positive and the negative text, with variables put in and alternatives chosen.

    Raises:
        TemplateError: see `prompt_template.expand`.
    """
    return expand(prompt.positive, variables, seed), expand(prompt.negative, variables, seed)


class PromptLibrary(NamedJson[SavedPrompt]):
    """The prompts below one folder, which is made when something is first saved."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        super().__init__(root)
        self._history = self._root / ".history.json"

    def save(
        self, name: str, prompt: SavedPrompt, overwrite: bool = True, revision: str | None = None
    ) -> None:
        """Save a prompt.

        Args:
            revision: replace no other than the prompt of this revision.

        Raises:
            PromptNameError: no possible name.
            PromptConflictError: there is one of this name, without `overwrite`, or of another
                `revision`, or one whose name differs only in case.
            JsonFileError: there is a damaged file of this name, or it cannot be written.
        """
        path = self._path(name)
        with self._locked():
            there = self._read(path) is not None  # or it is damaged, and not written over
            if revision is not None:
                self._check_revision(name, path, revision)
            elif there and not overwrite:
                raise _taken(name)
            self._write({name: prompt})

    def save_all(self, prompts: Mapping[str, SavedPrompt], overwrite: bool = True) -> None:
        """Save several prompts, or none of them if one cannot have its name.

        Raises:
            PromptNameError, PromptConflictError, JsonFileError: as for `save`; or two of the names
                differ only in case.
        """
        paths = {name: self._path(name) for name in prompts}
        with self._locked():
            for name, path in paths.items():
                if self._read(path) is not None and not overwrite:
                    raise _taken(name)
            self._write(prompts)

    def rename(self, name: str, new_name: str, revision: str | None = None) -> None:
        """Give a prompt another name, which may be in another folder.

        Raises:
            PromptNameError, NoSuchPromptError, PromptConflictError, JsonFileError: as for `load`
                and `save` without `overwrite`, or it is of another `revision`.
        """
        path, target = self._path(name), self._path(new_name)
        with self._locked():
            self.load(name)  # a damaged one stays where it is looked for
            if revision is not None:
                self._check_revision(name, path, revision)
            if target.name != path.name and self._read(target) is not None:
                raise _taken(new_name)
            if str(target).casefold() != str(path).casefold():
                self._check_case([target])
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            except OSError as error:
                problem = f"cannot be renamed to '{new_name}' ({error.strerror})"
                raise JsonFileError(path, problem, "Check the permissions and the disk") from None

    def delete(self, name: str, revision: str | None = None) -> None:
        """Delete a prompt, damaged or not.

        Raises:
            PromptNameError, NoSuchPromptError, JsonFileError: as for `load` and `save`.
            PromptConflictError: it is of another `revision`.
        """
        path = self._path(name)
        with self._locked():
            if revision is not None:
                self._check_revision(name, path, revision)
            self._unlink(name)

    def record(self, run: Run) -> None:
        """Add to the history, which keeps the last `prompt_history.HISTORY_LENGTH` runs.

        Raises:
            JsonFileError: the history is damaged or cannot be written.
        """
        when = run.when or datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._locked():
            write_runs(self._history, [*read_runs(self._history), replace(run, when=when)])

    def history(self) -> list[Run]:
        """What was run, the latest last.

        Raises:
            JsonFileError: the history is damaged.
        """
        return read_runs(self._history)

    def forget_history(self) -> None:
        """Begin the history anew, damaged or not.

        Raises:
            JsonFileError: it cannot be written.
        """
        with self._locked():
            write_runs(self._history, [])

    def _path(self, name: str) -> Path:
        """The file of a prompt, which links must not have led out of the library."""
        path = self._root / f"{check_name(name)}{SUFFIX}"
        real = os.path.realpath(path)
        if not Path(real).is_relative_to(os.path.realpath(self._root)):
            problem = f"leads out of the library, to {real}"
            raise JsonFileError(path, problem, "Copy the file in place of the link")
        return path

    def _value(self, path: Path, content: dict[str, Any]) -> SavedPrompt:
        return prompt_from_json(path, content)

    def _content(self, value: SavedPrompt) -> dict[str, Any]:
        return {**asdict(value), "tags": list(value.tags)}

    def _missing(self, name: str) -> NoSuchPromptError:
        return NoSuchPromptError(f"there is no prompt '{name}'. Save it first")

    def _clash(self, name: str, other: str) -> PromptConflictError:
        return PromptConflictError(
            f"'{name}' differs from '{other}' only in case, which not every system tells apart."
            " Choose another name"
        )

    def _check_revision(self, name: str, path: Path, revision: str) -> None:
        prompt = self._read(path)
        if prompt is None:
            raise NoSuchPromptError(f"the prompt '{name}' has been deleted or renamed meanwhile")
        if prompt.revision != revision:
            raise PromptConflictError(f"the prompt '{name}' has been changed meanwhile. Look at it")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        path = self._root / ".lock"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            with FileLock(path, timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            problem = f"another process has held this lock for {_LOCK_SECONDS:g} s"
            raise JsonFileError(path, problem, "End that process, or delete the file") from None
        except OSError as error:
            problem = f"cannot be written ({error.strerror})"
            raise JsonFileError(path, problem, "Check the permissions and the disk") from None


def prompt_from_json(path: Path, content: dict[str, Any]) -> SavedPrompt:
    """Make a prompt of a file's content; fields that it does not know are of no account.

    Raises:
        JsonFileError: a text is missing or is none.
    """
    texts = [content.get("positive"), content.get("negative", ""), content.get("note", "")]
    tags = content.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(text, str) for text in [*texts, *tags]):
        raise damaged(path, "needs a text 'positive', and 'negative', 'note', 'tags' as texts")
    positive, negative, note = texts
    return SavedPrompt(positive, negative, tuple(tags), note)


def _taken(name: str) -> PromptConflictError:
    return PromptConflictError(f"there is a prompt '{name}' already. Choose another name")
