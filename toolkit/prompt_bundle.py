"""Prompts as one file, to take them elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

from .json_files import JsonFileError
from .prompt_library import PromptLibrary, SavedPrompt, prompt_from_json
from .prompt_names import PromptNameError, check_name

_FIELD = "vivace_prompts"
Existing = Literal["keep", "replace", "rename"]


@dataclass(frozen=True)
class Imported:
    """Names under which prompts were saved, and of those that were left as they are."""

    saved: tuple[str, ...]
    skipped: tuple[str, ...]


def bundle_of(library: PromptLibrary, names: Iterable[str]) -> dict[str, Any]:
    """What an exported file holds.

    Raises:
        PromptNameError, PromptLibraryError, JsonFileError: as for `PromptLibrary.load`.
    """
    return {_FIELD: {name: asdict(library.load(name)) for name in names}}


def import_bundle(
    library: PromptLibrary, content: dict[str, Any], path: Path, existing: Existing = "keep"
) -> Imported:
    """Save the prompts of a file; `existing` says what happens where there is another of the name.

    Nothing is saved unless every prompt of the file can be read, and have its name.

    Args:
        content: what the file holds.
        path: how errors name it.

    Raises:
        JsonFileError: it is not one of prompts, has a name that leads elsewhere or twice; or a file
            of the library is damaged.
        PromptLibraryError: a name that differs from another only in case, or, unless `existing` is
            replace, another process has just saved a prompt of the name.
    """
    prompts = _parse_bundle(content, path)
    present = library.list().values
    saved: dict[str, SavedPrompt] = {}
    skipped: list[str] = []
    for name, prompt in prompts.items():
        if present.get(name) == prompt or (name in present and existing == "keep"):
            skipped.append(name)
            continue
        target = _free_name(name, present) if existing == "rename" else name
        saved[target] = present[target] = prompt
    library.save_all(saved, overwrite=existing == "replace")
    return Imported(tuple(saved), tuple(skipped))


def _parse_bundle(content: dict[str, Any], path: Path) -> dict[str, SavedPrompt]:
    entries = content.get(_FIELD)
    if not isinstance(entries, dict):
        raise JsonFileError(path, "not a file of exported prompts", "Export the prompts again")
    prompts: dict[str, SavedPrompt] = {}
    for name, entry in entries.items():
        try:
            right = check_name(name)
        except PromptNameError as error:
            raise JsonFileError(path, str(error), "Correct the name in the file") from None
        if right in prompts:  # in two forms of Unicode
            raise JsonFileError(path, f"the prompt '{right}' twice", "Rename one of them")
        prompts[right] = prompt_from_json(path, entry if isinstance(entry, dict) else {})
    return prompts


def _free_name(name: str, present: dict[str, SavedPrompt]) -> str:
    if name not in present:
        return name
    return next(other for n in count(2) if (other := f"{name} {n}") not in present)
