"""What the modules of routes share: bodies within limits, folders of users, errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from aiohttp import web

from ..toolkit.json_files import JsonFileError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    """A request that is answered with an HTTP status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def answers(statuses: Mapping[type[Exception], int]) -> Callable[[Handler], Handler]:
    """Turn what goes wrong in a handler into `{"error": message}`.

    Args:
        statuses: the HTTP status by the kind of exception; the first that fits counts.
    """

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except (RefusedError, JsonFileError, *statuses) as error:
                return web.json_response({"error": _message(error)}, status=_status(error))

        return answer

    def _status(error: Exception) -> int:
        if isinstance(error, RefusedError):
            return error.status
        return next((code for kind, code in statuses.items() if isinstance(error, kind)), 400)

    return decorate


def _message(error: Exception) -> str:
    path = getattr(error, "path", None)
    if path is None:
        return str(error)
    # Its own message would tell the path.
    return f"{Path(path).name}: {getattr(error, 'problem', '')}. {getattr(error, 'remedy', '')}."


async def read_json(request: web.Request, limit: int) -> Any:
    """The body of a request.

    Raises:
        RefusedError: it has more than `limit` bytes, or is no JSON.
    """
    content = bytearray()
    async for part in request.content.iter_any():
        content += part
        if len(content) > limit:
            raise RefusedError(413, f"The body has more than {limit >> 10} KiB. Send less.")
    try:
        return json.loads(content.decode(request.charset or "utf-8"))
    except (ValueError, LookupError, RecursionError) as error:  # also an unknown charset
        raise RefusedError(400, f"The body is no JSON ({error}).") from None


def user_folder(request: web.Request, folder: str) -> str:
    """A folder of the ComfyUI user who asks.

    Raises:
        RefusedError: there is no such user.
    """
    from server import PromptServer  # pyright: ignore[reportMissingImports]

    users = PromptServer.instance.user_manager
    try:
        found = users.get_request_user_filepath(request, folder, create_dir=False)
    except KeyError as error:
        raise RefusedError(400, str(error.args[0])) from None
    if found is None:
        raise RefusedError(400, "This user has no folder.")
    return found
