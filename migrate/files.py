"""Workflows in files: JSON, and the pictures that ComfyUI wrote them into."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..hub.model_folders import ModelFolder, find_models
from ..lora.files.file_names import lora_files_below
from ..toolkit.json_files import MAX_BYTES, JsonFileError, read_object
from .rules import Known

_PNG = b"\x89PNG\r\n\x1a\n"
_REMEDY = "Save it from ComfyUI again, or export the workflow as JSON"


def read_workflow(path: Path, keys: tuple[str, ...] = ("workflow", "prompt")) -> dict[str, Any]:
    """A workflow from a JSON file, or from a PNG with one in its text.

    Args:
        path: the file.
        keys: which of a picture's texts to take, the first that it has.

    Raises:
        JsonFileError: there is none, or it cannot be read.
    """
    if is_picture(path):
        return _from_picture(path, keys)
    found = read_object(path)
    if found is None:
        raise JsonFileError(path, "there is no such file", "Check the name")
    return found


def is_picture(path: Path) -> bool:
    """Whether the file is a PNG, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(len(_PNG)) == _PNG
    except OSError:
        return False


def files_here(models: Path) -> Known:
    """The LoRAs and language models below ComfyUI's `models` folder, as ComfyUI names them."""
    loras = lora_files_below(models / "loras")
    language = _folders(models, "LLM", "text_encoders")
    return Known(loras, language, music_models=_folders(models, "musicgen"))


def _folders(models: Path, *roots: str) -> list[str]:
    """The model folders below some folders of `models`."""
    return list(find_models((models / root for root in roots), _any_model).models)


def _any_model(path: Path, name: str) -> ModelFolder:
    # What a model can do decides the node that is made, not which names there are.
    return ModelFolder(path, name, "", "", has_vision=False, has_own_code=False)


def _from_picture(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        texts = dict(_texts(path.read_bytes()))
    except OSError as error:
        raise JsonFileError(path, f"cannot be read ({error.strerror})", "Check it") from None
    except (struct.error, ValueError, zlib.error):
        raise JsonFileError(path, "a damaged PNG", _REMEDY) from None
    for key in keys:
        if key not in texts:
            continue
        try:
            found = json.loads(texts[key])
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise JsonFileError(path, f"its '{key}' is not a JSON object", _REMEDY)
        return found
    raise JsonFileError(path, "no workflow in this picture", _REMEDY)


def _texts(content: bytes) -> Iterator[tuple[str, str]]:
    """Keyword and text of each text chunk."""
    place = len(_PNG)
    while place + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[place : place + 8])
        data = content[place + 8 : place + 8 + size]
        place += size + 12
        if kind == b"IEND":
            return
        if kind not in (b"tEXt", b"zTXt", b"iTXt"):
            continue
        keyword, _, rest = data.partition(b"\0")
        if kind == b"tEXt":
            yield keyword.decode("latin-1"), rest.decode("latin-1")
        elif kind == b"zTXt":
            yield keyword.decode("latin-1"), _inflated(rest[1:]).decode("latin-1")
        else:
            compressed, text = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
            yield keyword.decode("latin-1"), (_inflated(text) if compressed else text).decode()


def _inflated(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    found = stream.decompress(data, MAX_BYTES)
    if stream.unconsumed_tail:
        raise ValueError("too large")
    return found
