"""JSON files that are never half written, and never half read."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_BYTES = 16 * 2**20
# A temporary file this old, in seconds, was left by a process that was killed.
ABANDONED_AFTER = 600.0

_PREFIX, _SUFFIX = ".writing-", ".tmp"


class JsonFileError(ValueError):
    """A file that cannot be read or written; the message names it and says what to do."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        self.path = path
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{path}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[JsonFileError], tuple[Path, str, str]]:
        return type(self), (self.path, self.problem, self.remedy)


def read_object(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file.

    Raises:
        JsonFileError: the file cannot be read, is larger than 16 MiB, or is no JSON object.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _system_error(path, "read", error) from None
    if len(content) > MAX_BYTES:
        raise JsonFileError(path, f"larger than {MAX_BYTES >> 20} MiB", "Check what it is")
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise damaged(path, "not a JSON object")
    return value


def write_object(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object so that readers find the old or the new content, never a part.

    Raises:
        JsonFileError: it cannot be written, or would be larger than 16 MiB.
    """
    write_objects({path: value})


def write_objects(values: Mapping[Path, dict[str, Any]]) -> None:
    """Write JSON objects, each as `write_object` does.

    All of them are on the disk before the first takes its place, so that a full disk leaves every
    file as it was. What a killed process left in their folders is removed.

    Raises:
        JsonFileError: one of them cannot be written, or would be larger than 16 MiB.
    """
    contents = {path: _encoded(path, value) for path, value in values.items()}
    staged: dict[Path, Path] = {}
    path = Path()
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            # In the same folder, since a file can be replaced only within one file system.
            handle, temporary = tempfile.mkstemp(_SUFFIX, _PREFIX, path.parent)
            staged[path] = Path(temporary)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path, temporary in staged.items():
            temporary.replace(path)
    except OSError as error:
        raise _system_error(path, "written", error) from None
    finally:
        for temporary in staged.values():
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    for folder in {path.parent for path in contents}:
        _remove_abandoned(folder)


def _remove_abandoned(folder: Path) -> None:
    with suppress(OSError):  # what was to be written is written
        for temporary in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
            # The clock may have been set in between, either way.
            if abs(time.time() - temporary.stat().st_mtime) > ABANDONED_AFTER:
                temporary.unlink()


def _encoded(path: Path, value: dict[str, Any]) -> bytes:
    # Half characters, which JSON allows and UTF-8 does not, become question marks.
    text = json.dumps(value, ensure_ascii=False, indent=2) + "\n"
    content = text.encode("utf-8", errors="replace")
    if len(content) > MAX_BYTES:
        raise JsonFileError(path, f"would be larger than {MAX_BYTES >> 20} MiB", "Write less")
    return content


def damaged(path: Path, problem: str) -> JsonFileError:
    """The error for a file of another content than it should have."""
    return JsonFileError(path, f"damaged: {problem}", "Repair it in an editor, or move it away")


def _system_error(path: Path, what: str, error: OSError) -> JsonFileError:
    reason = error.strerror or type(error).__name__
    problem = f"cannot be {what} ({reason})"
    return JsonFileError(path, problem, "Check the permissions and the disk")
