"""Whether a model folder is complete, and what identifies its content.

Half a download, a copy without the large files and a mixture of two versions all look like a model.
They are told apart here by the index and the headers of the weights, before anything is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .model_folders import (
    CONFIG,
    MAX_JSON_BYTES,
    ModelFolder,
    ModelFolderError,
    download_again,
    is_lfs_pointer,
    lfs_error,
    read_json,
    read_model,
    shown,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MARKER = ".vivace-download.json"
_UNSAFE_WEIGHTS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
_PROCESSORS = (("preprocessor_config.json",), ("processor_config.json",))


@dataclass(frozen=True)
class CheckedModel:
    """A complete model.

    Attributes:
        weights: the files with the weights, in order of name.
        nbytes: their size.
        revision: the commit that it was downloaded at, if known and nothing changed since.
        identity: equal only for the same path and content; changes with any of the files.
    """

    folder: ModelFolder
    weights: tuple[Path, ...]
    nbytes: int
    revision: str | None
    identity: str


def check_model(
    path: Path, known_types: Callable[[], Container[str]] | None = None
) -> CheckedModel:
    """Check a model folder; only the headers of the weights are read.

    Args:
        known_types: the model types that can be loaded; those of transformers unless given.

    Raises:
        ModelFolderError: not a text generator, incomplete, damaged, or in need of code that came
            with it.
    """
    folder = _read_generator(path)
    check_type(folder, known_types or transformers_types)
    return check_files(folder)


def check_complete(path: Path) -> CheckedModel:
    """As `check_model`, but whether transformers can load the model does not matter.

    Raises:
        ModelFolderError: not a text generator, incomplete or damaged.
    """
    return check_files(_read_generator(path))


def _read_generator(path: Path) -> ModelFolder:
    folder = read_model(path)
    if folder is None:
        problem = "the config is not that of a model that writes text"
        raise ModelFolderError(path, problem, "Choose a language or vision-language model")
    return folder


def transformers_types() -> Container[str]:
    """The model types that the installed transformers has classes for."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING


def check_type(
    folder: ModelFolder, known_types: Callable[[], Container[str]] = transformers_types
) -> None:
    """Check that a model can be loaded by what is installed.

    Raises:
        ModelFolderError: it needs another version, or code that came with it.
    """
    if folder.model_type in known_types():
        return
    kind = f"model type '{folder.model_type}'"
    if folder.has_own_code:
        problem = f"{kind} needs Python code that came with the model, which is never run here"
        remedy = "Use a model that transformers supports itself, or serve this one with vLLM"
    else:
        problem = f"the installed transformers does not know {kind}"
        remedy = "Update transformers, or choose another model"
    raise ModelFolderError(folder.path, problem, remedy)


def check_files(folder: ModelFolder) -> CheckedModel:
    """Check that all files are there and whole; only the headers of the weights are read.

    Raises:
        ModelFolderError: incomplete or damaged, or a file cannot be read or goes meanwhile.
    """
    try:
        return _check_files(folder)
    except OSError as error:
        name = Path(error.filename).name if error.filename else "a file"
        problem = f"{name} cannot be read ({error.strerror})"
        remedy = "Wait if it is being copied or downloaded; else check the file's permissions"
        raise ModelFolderError(folder.path, problem, remedy, (name,)) from None


def _check_files(folder: ModelFolder) -> CheckedModel:
    path = folder.path
    unfinished = sorted(
        file.relative_to(path).as_posix()
        for pattern in ("*.incomplete", ".cache/huggingface/**/*.incomplete")
        for file in path.glob(pattern)
    )
    if unfinished:
        remedy = "Finish it, or delete these files if the model is complete without them"
        problem = f"a download was not finished: {shown(unfinished)}"
        raise ModelFolderError(path, problem, remedy, tuple(unfinished))
    tensors = _expected_weights(path)
    others = [CONFIG, *_one_of(path, _TOKENIZERS, "tokenizer")]
    if folder.has_vision:
        others += _one_of(path, _PROCESSORS, "image processor")
    weights = [path / name for name in sorted(tensors)]
    missing = [file.name for file in weights if not file.is_file()]
    if missing:
        problem = f"{len(missing)} of {len(weights)} weight files are missing: {shown(missing)}"
        raise ModelFolderError(path, problem, download_again(), tuple(missing))
    pointers = [n for n in [*sorted(tensors), *others] if is_lfs_pointer(path / n)]
    if pointers:
        raise lfs_error(path, pointers)
    stamped = [*weights, *(path / name for name in [*others, INDEX] if (path / name).is_file())]
    stamp = _stamp(path, stamped)
    for file in weights:
        _check_weights(path, file, tensors[file.name])
    revision = _revision(path, stamped)
    nbytes = sum(file.stat().st_size for file in weights)
    if _stamp(path, stamped) != stamp:
        problem = "a file changed while the folder was being checked"
        raise ModelFolderError(path, problem, "Wait until the model is complete and run again")
    identity = f"{path.resolve()}@{revision or ''}#{stamp}"
    return CheckedModel(folder, tuple(weights), nbytes, revision, identity)


def _expected_weights(path: Path) -> dict[str, set[str]]:
    """The files with weights, and the tensors that the index says are in each."""
    if (path / INDEX).is_file():
        places = read_json(path, INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            problem = f"{INDEX} has no weight_map"
            raise ModelFolderError(path, problem, download_again(), (INDEX,))
        tensors: dict[str, set[str]] = {}
        for tensor, name in places.items():
            if not isinstance(name, str) or Path(name).name != name or "\\" in name:
                problem = f"{INDEX} names a file outside of the folder"
                raise ModelFolderError(path, problem, "Do not use this model", (INDEX,))
            tensors.setdefault(name, set()).add(tensor)
        return tensors
    if (path / SINGLE).is_file():
        return {SINGLE: set()}
    shards = sorted(file.name for file in path.glob("*.safetensors"))
    if shards:
        problem = f"{INDEX} is missing, which says what {shown(shards)} should hold"
        raise ModelFolderError(path, problem, download_again(), (INDEX,))
    if any(True for pattern in _UNSAFE_WEIGHTS for _ in path.glob(pattern)):
        problem = "the weights are pickles, which can run code, not safetensors"
        raise ModelFolderError(path, problem, "Get the safetensors version", (SINGLE,))
    problem = f"there are no weights: neither {SINGLE} nor {INDEX}"
    raise ModelFolderError(path, problem, download_again(), (SINGLE,))


def _one_of(path: Path, choices: tuple[tuple[str, ...], ...], what: str) -> list[str]:
    for names in choices:
        if all((path / name).is_file() for name in names):
            return list(names)
    names = [" and ".join(group) for group in choices]
    problem = f"the {what} is missing: {' or '.join(names)}"
    raise ModelFolderError(path, problem, download_again(), choices[0])


def _check_weights(path: Path, file: Path, expected: set[str]) -> None:
    """Compare a safetensors file with its own header, and that with the index."""

    def broken(problem: str) -> ModelFolderError:
        return ModelFolderError(path, f"{file.name} {problem}", download_again(), (file.name,))

    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= MAX_JSON_BYTES:
            raise broken(f"is no safetensors file ({size} bytes)")
        text = opened.read(length)
    try:
        header = _header(text)
    except (ValueError, RecursionError, TypeError, LookupError, AttributeError):
        raise broken("has a damaged header") from None
    end = 8 + length + max(header.values(), default=0)
    if size != end:
        raise broken(f"has {size} bytes in place of {end}")
    absent = sorted(expected - set(header))
    if absent:
        raise broken(f"lacks tensors that {INDEX} promises: {shown(absent)}")


def _header(text: bytes) -> dict[str, int]:
    """Where the data of each tensor ends."""
    content: dict[str, Any] = json.loads(text)
    content.pop("__metadata__", None)
    return {name: int(entry["data_offsets"][1]) for name, entry in content.items()}


def _revision(path: Path, files: list[Path]) -> str | None:
    """The commit of a snapshot in the hub's cache, or of a download that was not changed since.

    The hub's own tool writes, for each file, the commit and the time when both agreed.
    """
    if path.parent.name == "snapshots" and path.parent.parent.name.startswith("models--"):
        return path.name
    if (path / MARKER).is_file():
        marker = read_json(path, MARKER)
        noted = marker.get("files")
        sizes = {file.name: file.stat().st_size for file in files}
        times = [file.stat().st_mtime for file in files]
        same = isinstance(noted, dict) and all(noted.get(n) == size for n, size in sizes.items())
        if same and max(times) <= (path / MARKER).stat().st_mtime + 1:
            return str(marker.get("revision"))
        return None
    commits: set[str] = set()
    for file in files:
        note = path / ".cache" / "huggingface" / "download" / f"{file.name}.metadata"
        try:
            commit, _, time = note.read_text(encoding="utf-8").split()[:3]
            if file.stat().st_mtime - 1 > float(time):
                return None
        except (OSError, ValueError):
            return None
        commits.add(commit)
    return commits.pop() if len(commits) == 1 else None


def _stamp(path: Path, files: list[Path]) -> str:
    """A short hash over the small files' content and the large files' sizes and times."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    for name in (CONFIG, INDEX):
        if (path / name).is_file():
            digest.update((path / name).read_bytes())
    return digest.hexdigest()[:16]
