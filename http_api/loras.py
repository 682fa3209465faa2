"""The routes of the LoRA editor: what there is, what is known of it, and saved stacks.

LoRAs are named as ComfyUI lists them, so no path of this machine goes in or out. Only the routes of
stacks change anything. File systems may be slow, so every look at them is taken in a thread.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from aiohttp import web

from ..lora.errors import LoraError
from ..lora.rows import RowError, parse_rows
from ..nodes import lora_files
from ..toolkit.stack_presets import NoSuchStackError, StackPresetError, StackPresets
from .answers import RefusedError, answers, read_json, user_folder

FOLDER = "vivace/stacks"  # below the folder of a ComfyUI user
_IMAGE_TYPES = {".jpg": "image/jpeg"}  # of others the type is the ending
_MAX_STACK_BYTES, _MAX_BUNDLE_BYTES = 2**20, 2**24
_answers = answers({NoSuchStackError: 404, StackPresetError: 400, RowError: 400, LoraError: 400})


@_answers
async def get_loras(request: web.Request) -> web.StreamResponse:
    """`{"loras": [{"name", "preview": bool, "modified": s}]}`."""
    return web.json_response({"loras": await asyncio.to_thread(lora_files.lora_entries)})


@_answers
async def get_info(request: web.Request) -> web.StreamResponse:
    """What is known of the LoRA `?name=`: the fields of `lora.info.LoraInfo`."""
    name, path = await _lora(request)
    return web.json_response({**await asyncio.to_thread(_info, path), "name": name})


@_answers
async def get_preview(request: web.Request) -> web.StreamResponse:
    """The preview image of the LoRA `?name=`."""
    from ..lora.files.sidecars import find_preview

    name, path = await _lora(request)
    preview = await asyncio.to_thread(find_preview, path)
    if preview is None:
        raise RefusedError(404, f"The LoRA '{name}' has no preview image.")
    ending = preview.suffix.lower()
    headers = {
        "Content-Type": _IMAGE_TYPES.get(ending, f"image/{ending[1:]}"),
        "Cache-Control": "no-cache",  # the browser asks whether it has changed
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(preview, headers=headers)


@_answers
async def get_stacks(request: web.Request) -> web.StreamResponse:
    """`{"stacks": {name: rows}, "problems": [...]}`; problems are files that were left out."""
    listing = await asyncio.to_thread(_presets(request).list)
    stacks = {name: [row.as_dict() for row in rows] for name, rows in listing.values.items()}
    problems = [
        f"{error.path.name}: {error.problem}. {error.remedy}." for error in listing.problems
    ]
    return web.json_response({"stacks": stacks, "problems": problems})


@_answers
async def put_stack(request: web.Request) -> web.StreamResponse:
    """Save the rows of the body under a name; answer with `{"rows"}` as they were saved."""
    rows = parse_rows(await read_json(request, _MAX_STACK_BYTES))
    await asyncio.to_thread(_presets(request).save, request.match_info["name"], rows)
    return web.json_response({"rows": [row.as_dict() for row in rows]})


@_answers
async def delete_stack(request: web.Request) -> web.StreamResponse:
    """Delete a stack."""
    name = request.match_info["name"]
    await asyncio.to_thread(_presets(request).delete, name)
    return web.json_response({"deleted": name})


@_answers
async def import_stacks(request: web.Request) -> web.StreamResponse:
    """Save the stacks of an exported file, the body; answer with `{"saved": [names]}`.

    Those that exist are left as they are, but replaced with `?existing=replace`.
    """
    content = await read_json(request, _MAX_BUNDLE_BYTES)
    replace = request.query.get("existing") == "replace"
    saved = await asyncio.to_thread(_presets(request).import_bundle, content, replace)
    return web.json_response({"saved": list(saved)})


async def _lora(request: web.Request) -> tuple[str, Path]:
    """Name and file of the LoRA that a request asks for."""
    name = request.query.get("name")
    if not name:
        raise RefusedError(400, "Say which LoRA: ?name=styles/ink.safetensors.")
    try:
        path = await asyncio.to_thread(lora_files.lora_path, name)
    except ValueError as error:
        raise RefusedError(404, str(error)) from None
    return lora_files.listed_name(name).replace("\\", "/"), path


def _info(path: Path) -> dict[str, Any]:
    from ..lora.info import lora_info

    return lora_info(path).as_dict()


def _presets(request: web.Request) -> StackPresets:
    """The stacks of the ComfyUI user who asks."""
    return StackPresets(user_folder(request, FOLDER))
