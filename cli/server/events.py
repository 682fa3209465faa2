"""What a server tells over its websocket while a prompt runs.

The events only feed the display: whether a prompt has ended is asked for over HTTP, so a websocket
that breaks, or that a proxy does not let through, costs the display and nothing else.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import uuid
from contextlib import suppress
from typing import Any

Event = tuple[str, dict[str, Any]]


class Events:
    """The events of one client, gathered by a thread.

    Attributes:
        client_id: under which the server sends them.
        missing: what has to be installed for events, or "".
    """

    def __init__(self, url: str) -> None:
        self.client_id = uuid.uuid4().hex
        self.missing = ""
        self._address = f"{url.replace('http', 'ws', 1)}/ws?clientId={self.client_id}"
        self._found: queue.Queue[Event] = queue.Queue()
        self._ready = threading.Event()

    def open(self, seconds: float = 5) -> None:
        """Connect, waiting so long at most: what happens before is not told."""
        try:
            import aiohttp  # noqa: F401
        except ImportError:
            self.missing = "aiohttp"
            return
        threading.Thread(target=self._run, daemon=True).start()
        self._ready.wait(seconds)

    def next(self, seconds: float) -> Event | None:
        """The next event, or None if there is none within so many seconds."""
        try:
            return self._found.get(timeout=seconds)
        except queue.Empty:
            return None

    def _run(self) -> None:
        import aiohttp

        while True:
            # If the server is gone, HTTP finds out.
            with suppress(aiohttp.ClientError, OSError):
                asyncio.run(self._listen())
            self._ready.set()
            threading.Event().wait(1)

    async def _listen(self) -> None:
        import aiohttp

        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(self._address, max_msg_size=0) as socket,
        ):
            self._ready.set()
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue  # pictures of the preview
                event = message.json()
                if isinstance(event, dict) and isinstance(event.get("data"), dict):
                    self._found.put((str(event.get("type")), event["data"]))
