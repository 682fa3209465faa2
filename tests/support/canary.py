"""Looks for a key in everything that a ComfyUI server wrote, logged, returned and sent."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import aiohttp
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import CACHE
from vivace.devkit.rig.server import ComfyServer

ROUTES = (
    "/history",
    "/queue",
    "/object_info",
    "/system_stats",
    "/internal/logs",
    "/internal/logs/raw",
    "/settings",
    "/api/jobs",
    "/api/userdata?dir=.&recurse=true&full_info=true",
)
# What a server may keep below `.dev/cache`; the rest is of installers, a hundred thousand files.
CACHES = ("huggingface", "inductor", "triton", "xdg")


def forms(key: str) -> tuple[bytes, ...]:
    """How a text may have the key: as it is, in JSON, in a URL, in base64 at any offset."""
    coded = [base64.b64encode(b"x" * skip + key.encode()).decode()[4:-4] for skip in range(3)]
    texts = {key, json.dumps(key)[1:-1], quote(key, safe=""), quote(key), key[:12], *coded}
    return tuple(text.encode() for text in texts)


class Listener:
    """Keeps every message of a server's websocket, as a client of the given id."""

    def __init__(self, client: ComfyClient) -> None:
        self.messages: list[bytes] = []
        self._url = f"{client.url}/ws?clientId={client.client_id}"
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True)

    def __enter__(self) -> Listener:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    async def _listen(self) -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._url, max_msg_size=0) as socket,
        ):
            self._ready.set()
            while not self._stop.is_set():
                try:
                    message = await socket.receive(timeout=0.2)
                except asyncio.TimeoutError:
                    continue
                if message.type == aiohttp.WSMsgType.TEXT:
                    self.messages.append(message.data.encode())
                elif message.type == aiohttp.WSMsgType.BINARY:
                    self.messages.append(message.data)
                else:
                    return


def written(server: ComfyServer, since: float, leave_out: set[Path]) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file that was changed since then where a server writes."""
    for root in (server.work, server.comfyui, *(CACHE / name for name in CACHES)):
        for folder, _, names in os.walk(root):
            for path in (Path(folder, name) for name in names):
                if path.is_symlink() or path in leave_out:
                    continue
                with suppress(FileNotFoundError):  # of a temporary file that is gone by now
                    if path.stat().st_mtime >= since - 1:
                        yield str(path), path.read_bytes()


def everything(
    server: ComfyServer, client: ComfyClient, since: float, leave_out: set[Path]
) -> list[tuple[str, bytes]]:
    """Where a key might have got to, and what is there."""
    time.sleep(0.5)  # the log and the history are written a moment after a prompt has ended
    returned = [(route, client.get(route)) for route in ROUTES]
    return [*returned, *written(server, since, leave_out)]


def leaks(places: list[tuple[str, bytes]], key: str) -> list[str]:
    """The places that have the key, in whatever form."""
    wanted = forms(key)
    return [place for place, content in places if any(form in content for form in wanted)]
