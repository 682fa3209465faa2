"""LoRA names, as they stand in a workflow, and the files they mean."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

import folder_paths


def listed_loras() -> dict[str, str]:
    """ComfyUI's own list of LoRA names, by the same name with forward slashes.

    A workflow saved on Windows names `styles\\ink.safetensors`; it must work on Linux too.
    """
    return {name.replace("\\", "/"): name for name in folder_paths.get_filename_list("loras")}


def missing_loras(names: Iterable[str]) -> str | None:
    """What is wrong with these names, or None when every one of them is in the list.

    Only listed names are ever opened, so a name that climbs out of the LoRA folders is missing too.
    """
    listed = listed_loras()
    complaints = []
    for name in dict.fromkeys(map(str, names)):
        if name.replace("\\", "/") not in listed:
            near = difflib.get_close_matches(name, listed, n=3, cutoff=0.4)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            complaints.append(f"The LoRA '{name}' is not in ComfyUI's loras folders.{hint}")
    if not complaints:
        return None
    return " ".join([*complaints, "Put the file there and press R to refresh, or change the row."])


def lora_path(name: str) -> Path:
    """The file of a listed LoRA.

    Raises:
        ValueError: the name is not listed, or its file has gone since.
    """
    problem = missing_loras([name])
    if problem:
        raise ValueError(problem)
    return Path(folder_paths.get_full_path_or_raise("loras", listed_name(name)))


def listed_name(name: str) -> str:
    """The name as ComfyUI lists it on this system."""
    return listed_loras()[name.replace("\\", "/")]


def file_identity(name: str) -> tuple[str, int, int]:
    """Name, size in bytes and mtime in ns: equal as long as the file is the same."""
    status = lora_path(name).stat()
    return name, status.st_size, status.st_mtime_ns
