"""Two real servers with one user directory, of which one is killed in the middle of a write."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

NODES = Path(__file__).parent / "nodes"
ROUNDS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="module")
def servers(folder: Path, comfyui_folder: Path) -> Iterator[tuple[ComfyServer, ComfyServer]]:
    (folder / "user").mkdir()
    one, two = (
        ComfyServer(
            Path(sys.executable),
            comfyui_folder,
            folder / name,
            arguments=["--user-directory", str(folder / "user"), "--disable-dynamic-vram"],
            model_dirs={"custom_nodes": [NODES]},
            log=folder / f"{name}.log",
        )
        for name in ("one", "two")
    )
    with one, two:
        one.wait_until_ready()
        two.wait_until_ready()
        yield one, two


def call(server: ComfyServer, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, content, headers, method=method)  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=120)  # noqa: S310 - our own server
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return int(answer.status or 0), json.load(answer)


def together(*actions: Callable[[], Any]) -> list[Any]:
    """What they return, done at the same time."""
    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]


def revision(server: ComfyServer, name: str) -> str:
    return call(server, "GET", "/vivace/prompts")[1]["revisions"][name]


def test_two_that_save_at_once_lose_nothing(servers: tuple[ComfyServer, ComfyServer]) -> None:
    one, two = servers
    assert call(one, "PUT", "/vivace/prompts/shared", {"positive": "first"})[0] == 200
    for number in range(ROUNDS):
        seen = revision(two, "shared")

        def change(server: ComfyServer, text: str, seen: str = seen) -> tuple[int, Any]:
            path = f"/vivace/prompts/shared?revision={seen}"
            return call(server, "PUT", path, {"positive": text})

        def add(server: ComfyServer, who: str, number: int = number) -> int:
            body = {"positive": f"{who} {number}"}
            return call(server, "PUT", f"/vivace/prompts/{who}/{number}", body)[0]

        answers = together(
            lambda change=change, number=number: change(one, f"one {number}"),
            lambda change=change, number=number: change(two, f"two {number}"),
            lambda add=add: add(one, "one"),
            lambda add=add: add(two, "two"),
        )
        assert sorted(answer[0] for answer in answers[:2]) == [200, 409]
        assert answers[2:] == [200, 200]
        lost = next(body for status, body in answers[:2] if status == 409)
        assert "changed meanwhile" in str(lost)
        winner = next(body for status, body in answers[:2] if status == 200)
        for server in servers:
            kept = call(server, "GET", "/vivace/prompts/shared")[1]
            assert kept["prompt"] == winner["prompt"]
    for server in servers:
        listing = call(server, "GET", "/vivace/prompts")[1]
        assert len(listing["prompts"]) == 1 + 2 * ROUNDS
        assert listing["problems"] == []


def test_a_server_killed_in_the_middle_of_a_write(
    servers: tuple[ComfyServer, ComfyServer], folder: Path
) -> None:
    one, two = servers
    call(one, "PUT", "/vivace/prompts/cat", {"positive": "old"})
    hold = {"class_type": "VivaceTestHold", "inputs": {"name": "cat.json"}}
    ComfyClient(one.url).run({"hold": hold})

    def save() -> None:
        with contextlib.suppress(OSError):  # the connection breaks
            call(one, "PUT", "/vivace/prompts/cat", {"positive": "new"})

    library = folder / "user" / "default" / "vivace" / "prompts"
    writer = threading.Thread(target=save)
    writer.start()
    deadline = time.monotonic() + 60
    while not list(library.glob(".*.tmp")):
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.05)
    one.kill()
    writer.join(60)
    assert call(two, "GET", "/vivace/prompts/cat")[1]["prompt"]["positive"] == "old"
    path = f"/vivace/prompts/cat?revision={revision(two, 'cat')}"
    assert call(two, "PUT", path, {"positive": "newer"})[0] == 200, "its lock is still held"
    listing = call(two, "GET", "/vivace/prompts")[1]
    assert listing["problems"] == []
    assert listing["prompts"]["cat"]["positive"] == "newer"
