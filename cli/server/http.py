"""Requests to a ComfyUI server, with errors that say what is wrong and what to do."""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import CliError, UnreachableError, UsageError

Json = dict[str, Any]
_START = "Start ComfyUI, or name its address with --server or VIVACE_SERVER"
_CHUNK = 2**20


class RequestRefusedError(CliError):
    """The server answered with an error; `status` is HTTP's, `body` its JSON answer or {}."""

    def __init__(self, problem: str, remedy: str, status: int, body: Json) -> None:
        super().__init__(problem, remedy)
        self.status = status
        self.body = body


class Server:
    """One server.

    Args:
        url: its address, such as ``http://127.0.0.1:8188``.
        timeout: seconds to wait for an answer.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urllib.parse.urlsplit(url if "//" in url else f"http://{url}")
        try:
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise UsageError(
                f"'{url}' is no address of a server", "Write it as http://127.0.0.1:8188"
            )
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self.timeout = timeout
        self._object_info: Json | None = None

    def get(self, path: str, **query: str) -> Any:
        """The JSON answer to a GET request.

        Raises:
            UnreachableError: no ComfyUI answers.
            RefusedError: it answers with an error.
        """
        return self._json(self._address(path, query), None)

    def post(self, path: str, body: Json) -> Any:
        """The JSON answer to a POST request, None if it is empty; raises as `get` does."""
        return self._json(self._address(path, {}), json.dumps(body).encode())

    def object_info(self) -> Json:
        """What every node of the server takes and gives, by class; asked for once."""
        if self._object_info is None:
            found = self.get("/object_info")
            if not isinstance(found, dict) or "KSampler" not in found:
                raise self._no_comfyui()
            self._object_info = found
        return self._object_info

    def upload(self, content: bytes, name: str, subfolder: str) -> None:
        """Put a file into the server's input folder; one that is there is replaced.

        Args:
            name: of letters, digits, dots and dashes, as `subfolder`.
        """
        parts = [("overwrite", b"true"), ("type", b"input"), ("subfolder", subfolder.encode())]
        boundary = uuid.uuid4().hex
        start = f"--{boundary}\r\nContent-Disposition: form-data; name="
        body = b"".join(
            f'{start}"{key}"\r\n\r\n'.encode() + value + b"\r\n" for key, value in parts
        )
        body += f'{start}"image"; filename="{name}"\r\n\r\n'.encode() + content
        body += f"\r\n--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        with self._open(self._address("/upload/image", {}), body, kind) as answer:
            self._read(answer)

    def download(self, item: Mapping[str, str], target: Path) -> None:
        """Write a file of the server to `target`, whole or not at all.

        Args:
            item: "filename", "subfolder" and "type", as the server's outputs have them.
            target: the file; a file that is there is replaced.
        """
        keys = ("filename", "subfolder", "type")
        address = self._address("/view", {key: item[key] for key in keys if item.get(key)})
        with self._open(address, None) as answer:  # before anything is made here
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    self._transfer(answer, file, address)
                Path(unfinished).replace(target)
            finally:
                Path(unfinished).unlink(missing_ok=True)
        target.chmod(0o666 & ~_umask())

    def _transfer(self, answer: http.client.HTTPResponse, file: IO[bytes], address: str) -> None:
        wanted = answer.headers.get("Content-Length")
        while chunk := self._read(answer, _CHUNK):
            file.write(chunk)
        if wanted is not None and file.tell() != int(wanted):
            problem = f"The download of {address} broke off after {file.tell()} bytes"
            raise UnreachableError(problem, "Run it again")

    def _address(self, path: str, query: Mapping[str, str]) -> str:
        address = self.url + urllib.parse.quote(path)
        return f"{address}?{urllib.parse.urlencode(query)}" if query else address

    def _json(self, address: str, body: bytes | None) -> Any:
        with self._open(address, body) as answer:
            text = self._read(answer)
        try:
            return json.loads(text) if text else None
        except ValueError:
            raise self._no_comfyui() from None

    def _open(
        self, address: str, body: bytes | None, kind: str = "application/json"
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": kind} if body is not None else {}
        request = urllib.request.Request(address, body, headers)  # noqa: S310 - checked in __init__
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)  # noqa: S310
        except urllib.error.HTTPError as error:
            raise self._refused(address, error) from None
        except urllib.error.URLError as error:
            raise self._unreachable(error.reason) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _read(self, answer: http.client.HTTPResponse, size: int | None = None) -> bytes:
        try:
            return answer.read() if size is None else answer.read(size)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _refused(self, address: str, error: urllib.error.HTTPError) -> CliError:
        try:
            body = json.loads(error.read())
        except (OSError, ValueError, http.client.HTTPException):
            body = {}
        where = address.removeprefix(self.url).partition("?")[0]
        problem = f"The server {self.url} answers {where} with {error.code} {error.reason}"
        remedy = "Check that it is a ComfyUI server of 0.18 or later, and see its log"
        return RequestRefusedError(
            problem, remedy, error.code, body if isinstance(body, dict) else {}
        )

    def _unreachable(self, reason: object) -> UnreachableError:
        if isinstance(reason, TimeoutError):
            problem = f"The server {self.url} did not answer within {self.timeout:g} s"
            return UnreachableError(problem, "It may be busy: try again, or raise --timeout")
        why = reason.strerror if isinstance(reason, OSError) and reason.strerror else reason
        return UnreachableError(f"No server answers at {self.url} ({why})", _START)

    def _no_comfyui(self) -> UnreachableError:
        return UnreachableError(f"What answers at {self.url} is not ComfyUI", _START)


def _umask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found
