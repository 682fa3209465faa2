"""LoRA names as people and other tools write them, and the listed file that each means."""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Collection

from .file_types import ENDINGS, without_ending

_SHOWN = 5
_COMPARED = 50  # names, with one that is not there
_LETTERS = 60  # of it, that choose them


class LoraNameError(ValueError):
    """A name that means no file of the list, or several; the message names candidates."""


def resolve(name: str, listed: Collection[str]) -> str:
    """Find the one name of `listed` that `name` means; both have forward slashes.

    `name` may lack the extension, and folders at its beginning. A name that is complete but for
    its extension goes before one that also lacks folders; case counts unless nothing matches.

    Raises:
        LoraNameError: none matches, or several do equally well.
    """
    if name in listed:
        return name
    if name:
        for fold in (str, str.casefold):
            stem = fold(without_ending(name))
            # A name with an extension means a file with that one.
            ends = (fold(name),) if stem != fold(name) else (stem, *(stem + e for e in ENDINGS))
            inner = tuple(f"/{end}" for end in ends)
            near = [other for other in listed if stem in fold(other)]  # few, so the rest is quick
            for found in (
                [other for other in near if fold(other) in ends],
                [other for other in near if fold(other).endswith(inner)],
            ):
                if len(found) == 1:
                    return found[0]
                if found:
                    raise LoraNameError(
                        f"The LoRA '{name}' may be any of {_either(sorted(found))}."
                        " Write its folder and extension too."
                    )
    similar = _similar(name, listed)
    hint = f" Did you mean {_either(similar)}?" if similar else ""
    raise LoraNameError(f"The LoRA '{name}' is not in ComfyUI's loras folders.{hint}")


def _similar(name: str, listed: Collection[str]) -> list[str]:
    """Names of files of the same name in other folders, or else of similar names."""
    base = without_ending(name).rpartition("/")[2].casefold()
    near = [other for other in listed if base in other.casefold()]  # few, so the rest is quick
    same = [other for other in near if without_ending(other).rpartition("/")[2].casefold() == base]
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
