"""LoRA names, as they stand in a workflow, and the files they mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import folder_paths

_REMEDY = "Put the file there and press R to refresh, or change the row."
_last: tuple[list[str], Mapping[str, str]] = ([], MappingProxyType({}))


def listed_loras() -> Mapping[str, str]:
    """ComfyUI's own list of LoRA names, by the same name with forward slashes.

    A workflow saved on Windows names `styles\\ink.safetensors`; it must work on Linux too. A prompt
    asks for every row, so the table is made anew only when the list has changed.
    """
    from ..lora.files.file_types import by_slashes

    global _last
    names = folder_paths.get_filename_list("loras")
    known, table = _last
    if names != known:
        table = MappingProxyType(by_slashes(names))
        _last = names, table
    return table


def missing_loras(names: Iterable[str]) -> str | None:
    """What is wrong with these names, or None when each of them means one file of the list.

    Only listed names are ever opened, so a name that climbs out of the LoRA folders is missing too.
    """
    from ..lora.files.file_names import LoraNameError, resolve

    listed = listed_loras()
    complaints = []
    for name in dict.fromkeys(map(str, names)):
        try:
            resolve(name, listed)
        except LoraNameError as error:
            complaints.append(str(error))
    return f"{' '.join(complaints)} {_REMEDY}" if complaints else None


def lora_path(name: str) -> Path:
    """The file of a LoRA.

    Raises:
        ValueError: the name means no listed file, or several, or its file has gone since.
    """
    try:
        return Path(folder_paths.get_full_path_or_raise("loras", listed_name(name)))
    except FileNotFoundError:
        raise ValueError(f"The file of the LoRA '{name}' has gone. {_REMEDY}") from None


def listed_name(name: str) -> str:
    """The name as ComfyUI lists it on this system, in full.

    Raises:
        ValueError: it means no listed file, or several.
    """
    from ..lora.files.file_names import LoraNameError, resolve

    listed = listed_loras()
    try:
        return listed[resolve(name, listed)]
    except LoraNameError as error:
        raise ValueError(f"{error} {_REMEDY}") from None


def file_identity(name: str) -> tuple[Any, ...]:
    """Name and identity of the file, also of the files that other tools keep beside it.

    Equal as long as the files are the same, and of values that ComfyUI can hash.
    """
    from ..lora.examine import identity
    from ..lora.files.sidecars import stamps

    path = lora_path(name)
    return name, identity(path), stamps(path)


def trigger_words(names: Iterable[str]) -> list[str]:
    """The trigger words of these LoRAs, each word once.

    Raises:
        ValueError: a name is not listed, or its file cannot be read.
    """
    from ..lora.info import lora_info

    words = (word for name in names for word in lora_info(lora_path(name)).trigger_words)
    return list(dict.fromkeys(words))


def lora_entries() -> list[dict[str, Any]]:
    """Name, whether there is a preview image, and mtime in s, of every listed LoRA that is there.

    Each folder is read once, whatever the number of files.
    """
    from ..lora.files.sidecars import previews

    folders: dict[str, list[str]] = {}
    for name in listed_loras():
        folders.setdefault(name.rpartition("/")[0], []).append(name)
    found: dict[str, dict[str, Any]] = {}
    for root in folder_paths.get_folder_paths("loras"):  # the first that has a file is the one
        for folder, names in folders.items():
            files = dict(_files(Path(root, folder)))
            images = previews(files)
            for name in names:
                base = name.rpartition("/")[2]
                if name not in found and base in files:
                    preview = base.rpartition(".")[0] in images
                    found[name] = {"name": name, "preview": preview, "modified": files[base]}
    return [found[name] for name in sorted(found)]


def _files(folder: Path) -> Iterator[tuple[str, float]]:
    """Name and mtime of every file of a folder."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # gone since
                    if entry.is_file():
                        yield entry.name, entry.stat().st_mtime
    except OSError:
        return  # the folder is not below this root, or has gone since
