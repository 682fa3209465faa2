"""`vivace run`, in processes of its own, against the real server."""

from __future__ import annotations

import http.server
import json
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.cli_process import refused, start, vivace_json
from support.cli_queue import FLOW, Queue, endless_run, until
from vivace.cli.errors import UsageError
from vivace.cli.workflow.matrix import combinations, read_axis
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_matrix_and_picture(server: ComfyServer, tmp_path: Path) -> None:
    words = ["run", FLOW, "-o", tmp_path / "a", "--set", "8.filename_prefix=cli/matrix"]
    strengths = "--matrix=VivaceLoraStack.rows.0.strength=0.2,0.9"
    found = vivace_json(server.url, *words, strengths, "--matrix=KSampler.seed=1..2")
    assert [list(run["values"].values()) for run in found["runs"]] == [
        ["0.2", "1"],
        ["0.2", "2"],
        ["0.9", "1"],
        ["0.9", "2"],
    ]
    files = [item for run in found["runs"] for item in run["files"]]
    assert [item["node"] for item in files] == ["8"] * 4
    assert all(item["on_server"].startswith("cli/matrix_") for item in files)
    assert len({pixels(item["path"]) for item in files}) == 4
    with Image.open(found["sheet"]) as sheet:
        assert sheet.width == 2 * (256 + 12) + 12  # two seeds side by side
        assert sheet.height > 2 * (256 + 12) + 12  # and labels below
        labels = sheet.crop((12, 12 + 256, 12 + 256, 12 + 256 + 40)).convert("L")
        assert labels.getextrema() == (0, 255)
    # The picture holds what made it, and nothing that was changed is mistaken for it.
    with Image.open(files[1]["path"]) as image:
        assert json.loads(image.info["prompt"])["5"]["inputs"]["seed"] == 2
        assert "workflow" not in image.info
    again = vivace_json(
        server.url, "run", files[1]["path"], "--set", "KSampler.seed=1", "-o", tmp_path / "a"
    )
    assert pixels(again["runs"][0]["files"][0]["path"]) == pixels(files[0]["path"])
    assert again["sheet"] is None
    assert len(list((tmp_path / "a").iterdir())) == 6


def test_progress_without_terminal(server: ComfyServer, tmp_path: Path) -> None:
    process = start(server.url, "run", FLOW, "--set=KSampler.seed=77", "-o", tmp_path)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0
    lines = output.splitlines()
    assert lines[0] == "1 LoRA, 4 modules"  # what nodes report comes first, then the files
    assert lines[-1:] == [str(path) for path in tmp_path.iterdir()]
    assert "KSampler (5)" in errors
    assert "\x1b" not in errors


@pytest.fixture
def endless(queue: Queue, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with endless_run(queue, tmp_path / "endless") as process:
        yield process


def test_interrupt(
    server: ComfyServer,
    client: ComfyClient,
    queue: Queue,
    endless: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    running = queue.ids("running")
    other = client.queue({"1": {"class_type": "PreviewAny", "inputs": {"source": "kept"}}})
    waiting = start(server.url, "run", FLOW, "--set=KSampler.seed=6", "-o", tmp_path / "waiting")
    until(lambda: len(queue.ids("pending")) == 2, "the second prompt did not come")
    waiting.send_signal(signal.SIGINT)
    waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert queue.ids("pending") == [other]
    assert queue.ids("running") == running
    endless.send_signal(signal.SIGINT)
    _, errors = endless.communicate(timeout=120)
    assert endless.returncode == 130
    assert "Traceback" not in errors
    assert client.wait(other)["1"]["text"] == ["kept"]
    assert not list(tmp_path.rglob("*.*"))


def test_taken_away_by_others(
    server: ComfyServer,
    client: ComfyClient,
    queue: Queue,
    endless: subprocess.Popen[str],
    tmp_path: Path,
) -> None:
    waiting = start(server.url, "run", FLOW, "--set=KSampler.seed=6", "-o", tmp_path / "waiting")
    until(lambda: len(queue.ids("pending")) == 1, "the second prompt did not come")
    client.post("/queue", {"clear": True})
    _, errors = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "no longer knows the prompt" in errors
    client.post("/interrupt", {})
    _, errors = endless.communicate(timeout=120)
    assert endless.returncode == 1
    assert "was interrupted on the server" in errors


BAD: list[tuple[list[Any], int, str]] = [
    (["absent.json"], 1, "there is no such file"),
    ([FLOW, "--set", "seed"], 2, "there is no '='"),
    ([FLOW, "--set", "seed=1"], 2, "Say which: 3.seed, 5.seed"),
    ([FLOW, "--set", "KSampler.stps=1"], 2, "did you mean steps?"),
    ([FLOW, "--set", "KSample.steps=1"], 2, "did you mean KSampler?"),
    ([FLOW, "--set", "KSampler.steps=many"], 2, "must be a whole number"),
    ([FLOW, "--set", "KSampler.cfg=1000"], 2, "must be from 0.0 to 100.0"),
    ([FLOW, "--set", "KSampler.model=x"], 2, "a MODEL comes from another node"),
    ([FLOW, "--set", "sampler_name=eulr"], 2, "did you mean euler?"),
    ([FLOW, "--set", "2.rows.7.strength=1"], 2, "there is no '7' in the value"),
    ([FLOW, "--matrix", "KSampler.seed=1..100000"], 2, "more than 1000"),
    ([FLOW, "--matrix", "5.steps=1,2", "--matrix", "5.steps=3"], 2, "names 5.steps twice"),
    ([FLOW, "--matrix", "5.steps=1,x"], 2, "must be a whole number"),
    ([FLOW, "--set", "2.rows.0.lora=gone.safetensors"], 1, "LoRA Stack (2): "),
    ([FLOW, "--set", "3.width=100"], 1, "KSampler (5) failed: "),
]


def test_bad_input(server: ComfyServer, queue: Queue, tmp_path: Path) -> None:
    for words, status, message in BAD:
        found = refused(server.url, "run", *words, "-o", tmp_path / "none")
        assert found[0] == status, (words, found)
        assert message in found[1], (words, found)
    assert queue.ids("pending") == []
    assert not (tmp_path / "none").exists()


def test_no_server(tmp_path: Path) -> None:
    assert refused("nonsense://x", "run", FLOW)[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        status, errors = refused(url, "run", FLOW, "--timeout", "1")
        assert (status, "did not answer within 1 s" in errors) == (3, True)
    status, errors = refused(url, "run", FLOW)
    assert (status, "Start ComfyUI" in errors) == (3, True)
    other = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    status, errors = refused(f"http://127.0.0.1:{other.server_port}", "run", FLOW)
    other.shutdown()
    other.server_close()
    assert (status, "answers /object_info with 404" in errors) == (1, True)


def test_axes() -> None:
    assert read_axis(r"a.b=x\,y,z") == ("a.b", ["x,y", "z"])
    assert read_axis("seed=3..1") == ("seed", ["3", "2", "1"])
    assert list(combinations([])) == [[]]
    with pytest.raises(UsageError, match="1200 runs"):
        list(combinations([("a", ["1"] * 30), ("b", ["1"] * 40)]))
