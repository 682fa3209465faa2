"""Text that grows under a node while it is written; `web/live_text.js` shows it."""

from __future__ import annotations

import sys
from threading import Lock, Timer
from time import monotonic
from typing import Any

from ...vlm.text.thinking import Piece

EVENT = "vivace.text"
_SECONDS = 0.1  # between two messages; each holds all of the text


class LiveText:
    """Sends the text of one answer to the editor that queued the prompt.

    Args:
        node_id: of the node that shows it; None to send nothing.
    """

    def __init__(self, node_id: str | None) -> None:
        self.answer = ""
        self.thinking = ""
        self._node_id = node_id
        self._sent_at = 0.0
        self._later: Timer | None = None
        self._lock = Lock()

    def push(self, piece: Piece) -> None:
        """Add a piece; it is shown at once, or a moment after what was shown before."""
        if piece.kind == "retract":
            self.thinking, self.answer = piece.text, ""
        elif piece.kind == "thinking":
            self.thinking += piece.text
        else:
            self.answer += piece.text
        self._send_in_time()

    def clear(self) -> None:
        """Begin another text, which shows with its first piece."""
        self.answer = self.thinking = ""

    def show(self, text: str) -> None:
        """Show another text."""
        self.answer = text
        self._send_in_time()

    def _send_in_time(self) -> None:
        wait = self._sent_at + _SECONDS - monotonic()
        if wait <= 0:
            self.send()
            return
        with self._lock:
            if self._later is None:  # nothing may come after this piece for long
                self._later = Timer(wait, self.send)
                self._later.daemon = True
                self._later.start()

    def send(self) -> None:
        """Send all of the text."""
        with self._lock:
            if self._later is not None:
                self._later.cancel()
                self._later = None
            self._sent_at = monotonic()
        server = _server()
        if self._node_id is None or server is None:
            return
        content = {"node": self._node_id, "answer": self.answer, "thinking": self.thinking}
        server.send_sync(EVENT, content, server.client_id)


def _server() -> Any:
    """The running server; None where there is none, as in tests."""
    server = sys.modules.get("server")
    return getattr(getattr(server, "PromptServer", None), "instance", None)
