"""LoRA names as people and other tools write them, and the listed file that each means."""

from __future__ import annotations

import difflib
import heapq
import os
from collections.abc import Collection
from pathlib import Path

from .file_types import ENDINGS, is_lora_file, without_ending

_SHOWN = 5
_COMPARED = 50  # names, with one that is not there
_LETTERS = 60  # of it, that choose them


class LoraNameError(ValueError):
    """A name that means no file of the list, or several; the message names candidates.

    Attributes:
        several: whether several files match.
    """

    def __init__(self, message: str, several: bool = False) -> None:
        self.several = several
        super().__init__(message)


def lora_files_below(folder: Path) -> list[str]:
    """The LoRA files below a folder, named as ComfyUI names them: by their path in it."""
    return [
        (Path(inner) / name).relative_to(folder).as_posix()
        for inner, _, names in os.walk(folder, followlinks=True)
        for name in names
        if is_lora_file(name)
    ]


def resolve(name: str, listed: Collection[str], moved: bool = False) -> str:
    """Find the one name of `listed`, all with forward slashes, that `name` means.

    `name` may lack the extension, and folders at its beginning. A name that is complete but for
    its extension goes before one that also lacks folders; case counts unless nothing matches.

    Args:
        moved: where nothing matches so, a file of the same name in any folder and with any ending
            does, since `name` was written for another machine.

    Raises:
        LoraNameError: none matches, or several do equally well.
    """
    if name in listed:
        return name
    plain = name.replace("\\", "/")
    found = [plain] if plain in listed else _matches(plain, listed)
    if not found and moved:
        found = _namesakes(plain, listed)
    if len(found) == 1:
        return found[0]
    if found:
        raise LoraNameError(
            f"The LoRA '{name}' may be any of {_either(sorted(found))}."
            " Write its folder and extension too.",
            several=True,
        )
    similar = _similar(plain, listed)
    hint = f" Did you mean {_either(similar)}?" if similar else ""
    raise LoraNameError(f"The LoRA '{name}' is not in ComfyUI's loras folders.{hint}")


def _matches(name: str, listed: Collection[str]) -> list[str]:
    """The names that match best."""
    if not name:
        return []
    for fold in (str, str.casefold):
        stem = fold(without_ending(name))
        # A name with an extension means a file with that one.
        ends = (fold(name),) if stem != fold(name) else (stem, *(stem + e for e in ENDINGS))
        inner = tuple(f"/{end}" for end in ends)
        near = [other for other in listed if stem in fold(other)]  # few, so the rest is quick
        found = [other for other in near if fold(other) in ends]
        found = found or [other for other in near if fold(other).endswith(inner)]
        if found:
            return found
    return []


def _namesakes(name: str, listed: Collection[str]) -> list[str]:
    """Names of files that are called the same, in any folder and with any ending."""
    base = _base(name)
    near = [other for other in listed if base in other.casefold()]  # few, so the rest is quick
    return [other for other in near if base and _base(other) == base]


def _base(name: str) -> str:
    return without_ending(name).rpartition("/")[2].casefold()


def _similar(name: str, listed: Collection[str]) -> list[str]:
    same = _namesakes(name, listed)
    if same:
        return sorted(same)[:_SHOWN]
    return difflib.get_close_matches(name, _promising(name, listed), n=3, cutoff=0.4)


def _promising(name: str, listed: Collection[str]) -> Collection[str]:
    """The names that share most pairs of letters with `name`; a real comparison takes long."""
    if len(listed) <= _COMPARED:
        return listed
    stem = without_ending(name).casefold()
    pairs = {stem[i : i + 2] for i in range(min(len(stem), _LETTERS) - 1)}

    def shared(other: str) -> int:
        folded = other.casefold()
        return sum(pair in folded for pair in pairs)

    return heapq.nlargest(_COMPARED, listed, key=shared)


def _either(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return " or ".join(names[:_SHOWN]) + (f" or {more} more" if more > 0 else "")
