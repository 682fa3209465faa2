"""Finds model folders as Hugging Face lays them out, and tells what each can do.

A model is a folder with a ``config.json`` of a text-generating architecture. What it can do is read
there, not guessed from the folder's name. Only small files are read; see `model_check` for the
question whether a folder is complete.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "config.json"
MAX_JSON_BYTES = 64 * 2**20
MAX_DEPTH = 5  # root/models--org--name/snapshots/<revision> is 3
PARTIAL_SUFFIX = ".partial"
_LFS_POINTER = b"version https://git-lfs"
_GENERATING = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForImageTextToText")
_TEXT_ONLY = ("ForCausalLM", "LMHeadModel")


class ModelFolderError(ValueError):
    """A model folder that cannot be used; the message names folder, fault and remedy.

    Attributes:
        missing: names of the files that are missing or broken.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        problem: str,
        remedy: str,
        missing: tuple[str, ...] = (),
    ) -> None:
        self.path = os.fspath(path)
        self.problem = problem
        self.remedy = remedy
        self.missing = missing
        super().__init__(f"{self.path}: {problem}. {remedy}")

    def __reduce__(self) -> tuple[type[ModelFolderError], tuple[object, ...]]:
        return type(self), (self.path, self.problem, self.remedy, self.missing)


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk, complete or not.

    Attributes:
        name: its path below the root that it was found in, with forward slashes.
        model_type: transformers' name of the family, such as "qwen3_vl".
        has_vision: it takes images.
        has_own_code: its config names Python files of its own.
    """

    path: Path
    name: str
    model_type: str
    architecture: str
    has_vision: bool
    has_own_code: bool


@dataclass(frozen=True)
class FoundModels:
    """Models by name, and folders that look like models but cannot be read."""

    models: dict[str, ModelFolder]
    problems: tuple[ModelFolderError, ...]


def find_models(
    roots: Iterable[str | os.PathLike[str]],
    read: Callable[[Path, str], ModelFolder | None] | None = None,
) -> FoundModels:
    """Look for models below each root, up to `MAX_DEPTH` folders deep.

    Links are followed, hidden and ``.partial`` folders left out. Of two models of one name the one
    in the earlier root counts. Roots that do not exist hold no models.

    Args:
        read: tells what a folder with a config holds; `read_model` unless given.
    """
    read = read or read_model
    models: dict[str, ModelFolder] = {}
    problems: list[ModelFolderError] = []
    for root in roots:
        top = Path(root)
        for folder in _folders_with_config(top, MAX_DEPTH, set()):
            name = folder.relative_to(top).as_posix() if folder != top else top.name
            try:
                model = read(folder, name)
            except ModelFolderError as error:
                problems.append(error)
                continue
            if model is not None:
                models.setdefault(name, model)
    return FoundModels(dict(sorted(models.items())), tuple(problems))


def read_model(folder: str | os.PathLike[str], name: str | None = None) -> ModelFolder | None:
    """Read a folder's config; None if it is that of something else than a text generator.

    Raises:
        ModelFolderError: there is no readable config.
    """
    path = Path(folder)
    config = read_json(path, CONFIG)
    architectures = config.get("architectures")
    text_config = config.get("text_config")
    if architectures is None and isinstance(text_config, dict):
        architectures = text_config.get("architectures")  # transformers 4.57 saves some so
    known = architectures if isinstance(architectures, list) else []
    architecture = next((a for a in known if isinstance(a, str) and a.endswith(_GENERATING)), "")
    has_vision = isinstance(config.get("vision_config"), dict)
    if not (has_vision and architecture) and not architecture.endswith(_TEXT_ONLY):
        return None
    model_type = config.get("model_type")
    return ModelFolder(
        path,
        name if name is not None else path.name,
        model_type if isinstance(model_type, str) else "",
        architecture,
        has_vision,
        bool(config.get("auto_map")),
    )


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Read a JSON object from a model's folder.

    Raises:
        ModelFolderError: the file is missing, a Git LFS pointer, or no JSON object.
    """
    path = folder / name
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
    except FileNotFoundError:
        raise ModelFolderError(folder, f"{name} is missing", download_again(), (name,)) from None
    except OSError as error:
        problem = f"{name} cannot be read ({error.strerror})"
        raise ModelFolderError(folder, problem, "Check the file's permissions", (name,)) from None
    if content.startswith(_LFS_POINTER):
        raise lfs_error(folder, [name])
    try:
        value = json.loads(content[:MAX_JSON_BYTES].decode("utf-8-sig"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        problem = f"{name} is not a JSON object"
        raise ModelFolderError(folder, problem, download_again(), (name,))
    return value


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file stands in for a large one that Git did not fetch."""
    with path.open("rb") as file:
        return file.read(len(_LFS_POINTER)) == _LFS_POINTER


def lfs_error(folder: Path, names: list[str]) -> ModelFolderError:
    """The error for files that Git left as pointers."""
    problem = f"{shown(names)}: only Git LFS pointers, not the files themselves"
    remedy = "Run `git lfs pull` in the folder, or download the model again"
    return ModelFolderError(folder, problem, remedy, tuple(names))


def shown(names: list[str]) -> str:
    """File names for a message, shortened if there are many."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def download_again() -> str:
    """The remedy for files that are missing or broken."""
    return "Download the model again, or copy the missing files into the folder"


def _folders_with_config(folder: Path, depth: int, seen: set[str]) -> Iterator[Path]:
    """Yield folders with a config, outer before inner, by name; each real folder once."""
    real = os.path.realpath(folder)
    if real in seen:
        return
    seen.add(real)
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        folders = [entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return  # missing, not a folder, or not ours to read
    if any(entry.name == CONFIG for entry in entries):
        yield folder
    for name in folders if depth > 0 else ():
        if not name.startswith(".") and not name.endswith(PARTIAL_SUFFIX):
            yield from _folders_with_config(folder / name, depth - 1, seen)
