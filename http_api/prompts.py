"""The routes of the prompt library: prompts by name, the history, and files to take along.

Each ComfyUI user has a library of his own. Names go through the library's own checks; no path of
this machine goes in or out.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from aiohttp import web

from ..nodes.prompt_manager import FOLDER
from ..toolkit.json_files import MAX_BYTES, JsonFileError
from ..toolkit.prompt_bundle import Existing, bundle_of, import_bundle
from ..toolkit.prompt_library import (
    NoSuchPromptError,
    PromptConflictError,
    PromptLibrary,
    PromptLibraryError,
    prompt_from_json,
)
from ..toolkit.prompt_names import PromptNameError, check_name
from .answers import RefusedError, answers, read_json, user_folder

MAX_PROMPT_BYTES = 2**20
_answers = answers(
    {
        NoSuchPromptError: 404,
        PromptConflictError: 409,
        PromptLibraryError: 400,
        PromptNameError: 400,
    }
)


@_answers
async def get_prompts(request: web.Request) -> web.StreamResponse:
    """`{"prompts": {name: prompt}, "revisions": {name: revision}, "problems": [...]}`.

    Problems are files that were left out.
    """
    listing = await asyncio.to_thread(_library(request).list)
    prompts = {name: asdict(prompt) for name, prompt in listing.values.items()}
    problems = [
        f"{error.path.name}: {error.problem}. {error.remedy}." for error in listing.problems
    ]
    revisions = {name: prompt.revision for name, prompt in listing.values.items()}
    return web.json_response({"prompts": prompts, "revisions": revisions, "problems": problems})


@_answers
async def get_prompt(request: web.Request) -> web.StreamResponse:
    """`{"name", "prompt"}`."""
    name = _name(request)
    prompt = await asyncio.to_thread(_library(request).load, name)
    return web.json_response({"name": name, "prompt": asdict(prompt)})


@_answers
async def put_prompt(request: web.Request) -> web.StreamResponse:
    """Save the prompt of the body.

    With `?overwrite=false` only if there is none of the name, with `?revision=` only in place of
    the one that has it; the latter goes for `rename_prompt` and `delete_prompt`, too.
    """
    name, body = _name(request), await read_json(request, MAX_PROMPT_BYTES)
    overwrite = request.query.get("overwrite", "true") != "false"
    try:
        prompt = prompt_from_json(Path(name), _object(body))
    except JsonFileError as error:
        problem = error.problem.removeprefix("damaged: ")
        raise RefusedError(400, f"The body is no prompt: it {problem}.") from None
    await asyncio.to_thread(_library(request).save, name, prompt, overwrite, _revision(request))
    return web.json_response({"name": name, "prompt": asdict(prompt)})


@_answers
async def rename_prompt(request: web.Request) -> web.StreamResponse:
    """Give a prompt the name `{"name"}` of the body."""
    new_name = _object(await read_json(request, MAX_PROMPT_BYTES)).get("name")
    if not isinstance(new_name, str):
        raise RefusedError(400, 'Say which name it shall have: {"name": "portraits/soft light"}.')
    name, revision = _name(request), _revision(request)
    await asyncio.to_thread(_library(request).rename, name, new_name, revision)
    return web.json_response({"name": check_name(new_name)})


@_answers
async def delete_prompt(request: web.Request) -> web.StreamResponse:
    """Delete a prompt."""
    name = _name(request)
    await asyncio.to_thread(_library(request).delete, name, _revision(request))
    return web.json_response({"deleted": name})


@_answers
async def get_history(request: web.Request) -> web.StreamResponse:
    """`{"runs": [...]}`, the latest first."""
    runs = await asyncio.to_thread(_library(request).history)
    return web.json_response({"runs": [asdict(run) for run in reversed(runs)]})


@_answers
async def delete_history(request: web.Request) -> web.StreamResponse:
    """Forget what was run."""
    await asyncio.to_thread(_library(request).forget_history)
    return web.json_response({"runs": []})


@_answers
async def export_prompts(request: web.Request) -> web.StreamResponse:
    """A file with the prompts of every `?name=`, or with all of them."""
    library = _library(request)
    names = request.query.getall("name", [])
    content = await asyncio.to_thread(_export, library, names)
    headers = {"Content-Disposition": 'attachment; filename="prompts.json"'}
    return web.Response(text=content, content_type="application/json", headers=headers)


@_answers
async def import_prompts(request: web.Request) -> web.StreamResponse:
    """Save the prompts of a file in the body; answer with `{"saved": names, "skipped": names}`.

    `?existing=` says what happens where there is another of the name: keep, replace or rename.
    """
    existing: Any = request.query.get("existing", "keep")
    if existing not in get_args(Existing):
        raise RefusedError(400, f"existing must be one of {', '.join(get_args(Existing))}.")
    content = _object(await read_json(request, MAX_BYTES))
    file = Path("the file")
    done = await asyncio.to_thread(import_bundle, _library(request), content, file, existing)
    return web.json_response({"saved": list(done.saved), "skipped": list(done.skipped)})


def _export(library: PromptLibrary, names: list[str]) -> str:
    content = bundle_of(library, names or library.list().values)
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"


def _name(request: web.Request) -> str:
    return check_name(request.match_info["name"])


def _revision(request: web.Request) -> str | None:
    return request.query.get("revision")


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise RefusedError(400, "The body must be a JSON object.")
    return body


def _library(request: web.Request) -> PromptLibrary:
    """The prompts of the ComfyUI user who asks."""
    return PromptLibrary(user_folder(request, FOLDER))
