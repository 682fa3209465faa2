"""A real HTTP server on localhost that speaks what the download needs of the hub's endpoints."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer:
    """Serves the files of a folder as the model ``org/tiny``, and counts what it sends.

    Attributes:
        commit: what ``main`` points to.
        cut_after: bytes of a file's body after which the connection is dropped, once for each
            entry, by file name.
        served: bytes of file bodies sent, by name.
        ranges: Range headers received, by name.
        refuse: status and X-Error-Code to answer model look-ups with.
        file_status: status to answer for files, by name.
        with_ranges: whether Range headers are honoured.
        corrupt: names of files of which one bit is sent wrong.
        lookups: model look-ups received.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commit = COMMIT
        self.cut_after: dict[str, list[int]] = {}
        self.served: dict[str, int] = {}
        self.ranges: dict[str, list[str | None]] = {}
        self.refuse: tuple[int, str] | None = None
        self.file_status: dict[str, int] = {}
        self.with_ranges = True
        self.corrupt: set[str] = set()
        self.lookups = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None: ...

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path.startswith("/api/models/org/tiny/revision/"):
                    outer.look_up(self, path.rpartition("/")[2])
                elif path.startswith(f"/org/tiny/resolve/{outer.commit}/"):
                    outer.file(self, path.rpartition("/")[2])
                else:
                    outer.error(self, 404, "RepoNotFound")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is nothing to print."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def error(self, handler: BaseHTTPRequestHandler, status: int, code: str) -> None:
        handler.send_response(status)
        handler.send_header("X-Error-Code", code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def look_up(self, handler: BaseHTTPRequestHandler, revision: str) -> None:
        self.lookups += 1
        if self.refuse is not None:
            self.error(handler, *self.refuse)
            return
        if revision not in ("main", self.commit):
            self.error(handler, 404, "RevisionNotFound")
            return
        siblings = [self._sibling(file) for file in sorted(self.folder.iterdir())]
        body = json.dumps({"id": "org/tiny", "sha": self.commit, "siblings": siblings}).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _sibling(self, file: Path) -> dict[str, Any]:
        content = file.read_bytes()
        sibling: dict[str, Any] = {"rfilename": file.name, "size": len(content), "blobId": "0"}
        if file.suffix == ".safetensors":
            digest = hashlib.sha256(content).hexdigest()
            sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 1}
        return sibling

    def file(self, handler: BaseHTTPRequestHandler, name: str) -> None:
        wanted = handler.headers.get("Range")
        self.ranges.setdefault(name, []).append(wanted)
        if name in self.file_status:
            self.error(handler, self.file_status[name], "")
            return
        content = (self.folder / name).read_bytes()
        if name in self.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        match = re.fullmatch(r"bytes=(\d+)-", wanted or "") if self.with_ranges else None
        begin = int(match[1]) if match else 0
        body = content[begin:]
        handler.send_response(206 if match else 200)
        handler.send_header("Content-Length", str(len(body)))
        if match:
            handler.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        cuts = self.cut_after.get(name)
        if cuts:
            body = body[: cuts.pop(0)]
            handler.close_connection = True
        self.served[name] = self.served.get(name, 0) + len(body)
        handler.wfile.write(body)
