"""`vivace doctor` asking servers: a real one, and some that answer otherwise."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.cli_command import vivace_command
from vivace.cli.doctor.installation import Installation
from vivace.cli.doctor.server import look_at_server, our_nodes
from vivace.cli.server.http import Server
from vivace.devkit.rig.server import ComfyServer

STATS = {
    "system": {
        "comfyui_version": "0.30.0",
        "python_version": "3.11.7 (main)",
        "pytorch_version": "2.11.0+cu130",
    },
    "devices": [{"name": "Card", "type": "cuda", "vram_total": 2**34, "vram_free": 2**33}],
}
NOTHING_HERE = Installation(None, "", "python")


def test_a_real_server(server: ComfyServer, comfyui_folder: Path, tmp_path: Path) -> None:
    options = ["--comfyui", comfyui_folder, "--python", sys.executable, "--server", server.url]
    done = vivace_command(tmp_path, "doctor", *options, "--timeout", "120", "--json")
    data = done.json()
    assert [one for one in data["findings"] if one["topic"] == "server"] == []
    assert data["server"]["reachable"]
    assert data["server"]["comfyui"] == data["comfyui"]
    assert data["server"]["python"] == sys.version.split()[0]
    assert data["server"]["nodes"] == dict.fromkeys(our_nodes(), True)
    assert data["packages"]["torch"] == data["server"]["torch"]
    (device,) = data["gpu"]
    assert device["type"] == "cpu"
    assert done.status == (1 if data["broken"] else 0)
    text = vivace_command(tmp_path, "doctor", *options, "--timeout", "120").out
    count = len(our_nodes())
    assert f"{count} of our {count} nodes" in text


@contextmanager
def answering(answers: dict[str, Any], other: Any = None) -> Iterator[Server]:
    """A server with those answers, and `other` for everything else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(answers.get(self.path, other)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield Server(f"http://127.0.0.1:{running.server_address[1]}", 10)
        running.shutdown()


def look(answers: dict[str, Any], other: Any = None) -> tuple[dict[str, Any], list[str]]:
    findings: list[Any] = []
    with answering(answers, other) as server:
        found = look_at_server(server, False, NOTHING_HERE, findings)
    return found, [f"{one.level}: {one.problem}. {one.remedy}." for one in findings]


def test_a_server_without_this_pack() -> None:
    found, findings = look({"/system_stats": STATS}, {})
    assert found["reachable"]
    assert set(found["nodes"].values()) == {False}
    assert findings[0].startswith("broken: The server offers none of our nodes. Install")


def test_one_node_is_missing() -> None:
    nodes = {f"/object_info/{name}": {name: {"description": "fine"}} for name in our_nodes()}
    nodes["/object_info/VivaceQwenVL"] = {}
    found, findings = look({"/system_stats": STATS, **nodes})
    assert [name for name, there in found["nodes"].items() if not there] == ["VivaceQwenVL"]
    assert len(findings) == 1
    assert findings[0].startswith("broken: The server offers no VivaceQwenVL. ")


def test_a_node_whose_module_cannot_be_imported(comfyui: ModuleType) -> None:
    from vivace.lazy_registry import NODE_TABLE, explain

    nodes = {f"/object_info/{name}": {name: {"description": "fine"}} for name in our_nodes()}
    row = next(row for row in NODE_TABLE if row.node_id == "VivaceQwenVL")
    error = ModuleNotFoundError("No module named 'av'", name="av")
    nodes["/object_info/VivaceQwenVL"] = {"VivaceQwenVL": {"description": explain(row, error)}}
    _, findings = look({"/system_stats": STATS, **nodes})
    assert len(findings) == 1
    assert "'QwenVL' is unavailable" in findings[0]
    assert "No module named 'av'. Install the missing package" in findings[0]


def test_a_server_that_is_too_old_or_another_version(tmp_path: Path) -> None:
    system = {**STATS["system"], "comfyui_version": "0.3.60"}  # type: ignore[dict-item]
    nodes = {f"/object_info/{name}": {name: {}} for name in our_nodes()}
    _, findings = look({"/system_stats": {**STATS, "system": system}, **nodes})
    assert findings == [
        "broken: The server's ComfyUI 0.3.60 is too old: the pack needs 0.16.0. Update ComfyUI."
    ]
    seen: list[Any] = []
    with answering({"/system_stats": STATS, **nodes}) as server:
        look_at_server(server, False, Installation(tmp_path, "0.31.0", "python"), seen)
    assert [one.level for one in seen] == ["warning"]
    assert seen[0].problem == f"The server runs ComfyUI 0.30.0, but {tmp_path} holds 0.31.0"


@pytest.mark.parametrize("answer", [None, [], {"system": 1}, {"system": {}, "devices": 3}, "x"])
def test_what_is_not_comfyui(answer: Any) -> None:
    found, findings = look({"/system_stats": answer})
    assert not found["reachable"]
    assert [one for one in findings if not one.startswith("broken: What answers at http://")] == []
    assert len(findings) == 1
