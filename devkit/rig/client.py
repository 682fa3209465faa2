"""A small client of ComfyUI's HTTP API, for the demo and the tests."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from typing import Any

Prompt = dict[str, dict[str, Any]]


class PromptRejectedError(Exception):
    """The server refused a prompt; `body` is its JSON answer."""

    def __init__(self, body: dict[str, Any]) -> None:
        super().__init__(json.dumps(body, indent=2))
        self.body = body

    def messages(self, node_id: str) -> str:
        """The messages and details about one node, joined."""
        errors = self.body.get("node_errors", {}).get(node_id, {}).get("errors", [])
        return "\n".join(f"{error['message']}: {error['details']}" for error in errors)


class PromptFailedError(Exception):
    """A node raised while a prompt ran; `details` is the server's `execution_error`."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details.get("exception_message", str(details)))
        self.details = details


class ComfyClient:
    """Talks to one server."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client_id = uuid.uuid4().hex

    def get(self, path: str, **query: str) -> bytes:
        """The body of a GET request."""
        address = f"{self.url}{path}"
        if query:
            address += "?" + urllib.parse.urlencode(query)
        with urllib.request.urlopen(address, timeout=60) as response:  # noqa: S310 - our own server
            return response.read()

    def get_json(self, path: str) -> Any:
        """The JSON body of a GET request."""
        return json.loads(self.get(path))

    def post(self, path: str, body: Any) -> None:
        """Send a JSON body and ignore the answer."""
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode())  # noqa: S310
        urllib.request.urlopen(request, timeout=60).close()  # noqa: S310

    def queue(self, prompt: Prompt) -> str:
        """Queue an API-format prompt.

        Returns:
            Its id.

        Raises:
            PromptRejectedError: the server found it invalid.
        """
        body = json.dumps({"prompt": prompt, "client_id": self.client_id}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/prompt", body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310
                return json.load(response)["prompt_id"]
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise PromptRejectedError(json.load(error)) from None

    def wait(
        self, prompt_id: str, seconds: float = 300, tick: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Wait until a prompt has run.

        Returns:
            The outputs of its nodes, by node id.

        Raises:
            PromptFailedError: a node raised.
            TimeoutError: it is still running after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry:
                for kind, details in entry["status"]["messages"]:
                    if kind in ("execution_error", "execution_interrupted"):
                        raise PromptFailedError(details)
                return entry["outputs"]
            tick()
            time.sleep(0.1)
        raise TimeoutError(f"prompt {prompt_id} is still running after {seconds} s")

    def run(self, prompt: Prompt) -> dict[str, Any]:
        """Queue a prompt and wait for its outputs."""
        return self.wait(self.queue(prompt))

    def fetch(self, item: dict[str, str]) -> bytes:
        """The content of a file that a node saved, from its entry in the outputs."""
        return self.get("/view", **{key: item[key] for key in ("filename", "subfolder", "type")})
