"""What a prompt made: files to download, and texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .http import Json, RequestRefusedError, Server


def files_of(outputs: Json, *, temporary: bool = False) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Node id and entry of each file in the outputs: pictures, sound, video, latents and so on.

    Args:
        outputs: as the server's history has them, by node id.
        temporary: whether to name previews too, which the server deletes later.
    """
    for node, found in outputs.items():
        for value in found.values() if isinstance(found, dict) else ():
            for item in value if isinstance(value, list) else ():
                if _is_file(item) and (temporary or item.get("type") != "temp"):
                    yield node, item


def texts_of(outputs: Json) -> dict[str, list[str]]:
    """The texts that nodes show, by node id."""
    found: dict[str, list[str]] = {}
    for node, output in outputs.items():
        texts = output.get("text") if isinstance(output, dict) else None
        if isinstance(texts, str):
            texts = [texts]
        if isinstance(texts, list | tuple) and any(isinstance(text, str) for text in texts):
            found[node] = [text for text in texts if isinstance(text, str)]
    return found


def save_all(server: Server, outputs: Json, folder: Path, *, previews: bool = False) -> list[Json]:
    """Download the files of the outputs; without any but previews, those.

    Returns:
        Node id, the file here ("path"), and the server's name of it, for each.
    """
    items = list(files_of(outputs, temporary=previews)) or list(files_of(outputs, temporary=True))
    saved = []
    for node, item in items:
        target = free_name(folder / Path(item["filename"]).name)
        try:
            server.download(item, target)
        except RequestRefusedError as error:
            if error.status != 404:
                raise
            continue  # a node may tell of files that /view does not give out
        name = "/".join(filter(None, (item.get("subfolder", ""), item["filename"])))
        saved.append({"node": node, "path": str(target), "on_server": name})
    return saved


def free_name(path: Path) -> Path:
    """The path, or with a number behind the name if there is such a file."""
    number = 1
    found = path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _is_file(item: Any) -> bool:
    return isinstance(item, dict) and all(
        isinstance(item.get(name), str) for name in ("filename", "type")
    )
