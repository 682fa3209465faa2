"""Follows a prompt over ComfyUI's websocket with a progress bar on the terminal."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from ..rig.client import ComfyClient, Prompt, PromptFailedError

WIDTH = 30


def run_with_progress(client: ComfyClient, prompt: Prompt, label: str) -> dict[str, Any]:
    """Queue a prompt, show which node runs and how far the sampler is, and return the outputs.

    Raises:
        PromptRejectedError: the server found the prompt invalid.
        PromptFailedError: a node raised.
    """
    return asyncio.run(_follow(client, prompt, label))


async def _follow(client: ComfyClient, prompt: Prompt, label: str) -> dict[str, Any]:
    import aiohttp

    address = f"{client.url.replace('http', 'ws', 1)}/ws?clientId={client.client_id}"
    bar = _Bar(label, len(prompt))
    async with aiohttp.ClientSession() as session, session.ws_connect(address) as socket:
        prompt_id = await asyncio.to_thread(client.queue, prompt)
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue  # binary messages are previews
            event = message.json()
            data = event.get("data", {})
            if data.get("prompt_id") != prompt_id:
                continue
            if event["type"] in ("execution_error", "execution_interrupted"):
                raise PromptFailedError(data)
            if event["type"] == "execution_success":
                break
            bar.update(event["type"], data)
    bar.close()
    return await asyncio.to_thread(client.wait, prompt_id)


class _Bar:
    """One line: nodes done, with the steps of the node that runs as a part of a node."""

    def __init__(self, label: str, nodes: int) -> None:
        self.label = label
        self.nodes = nodes
        self.done: set[str] = set()

    def update(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "execution_cached":
            self.done.update(data["nodes"])
            self._draw(0.0, "")
        elif kind == "executing" and data.get("node"):
            self.done.add(data["node"])
            self._draw(0.0, data["node"])
        elif kind == "progress":
            self._draw(data["value"] / data["max"], f"{data['node']} {data['value']}/{data['max']}")

    def close(self) -> None:
        if sys.stdout.isatty():
            print("\r" + " " * (len(self.label) + WIDTH + 40) + "\r", end="", flush=True)

    def _draw(self, part: float, what: str) -> None:
        if sys.stdout.isatty():
            filled = round(WIDTH * min(1.0, (len(self.done) - 1 + part) / self.nodes))
            bar = "█" * filled + "░" * (WIDTH - filled)
            print(f"\r{self.label:<34} {bar} {what:<24}", end="", flush=True)
