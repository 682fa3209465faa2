"""`vivace caption`, in processes of its own, against the real server and a small model."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.cli_process import refused, start, vivace_json
from support.openai_server import OpenAIServer, hang, stream
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.server import ComfyServer

SMALL = ("--model=small-qwen3_vl", "--dtype=float32", "--greedy", "--max-tokens=24")
COLORS = ("red", "green", "blue")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for color in COLORS:
        Image.new("RGB", (96, 64), color).save(folder / f"{color}.png")
    Image.new("RGB", (64, 96), "white").save(folder / "more" / "white.png")
    return folder


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in sorted(folder.rglob("*.txt"))}


def counts(found: dict[str, Any]) -> tuple[int, int, int]:
    return found["written"], found["present"], found["failed"]


def test_a_folder(server: ComfyServer, pictures: Path) -> None:
    words = ("caption", pictures, *SMALL, "--quality=fast", "--batch-size=2")
    first = vivace_json(server.url, *words)
    assert counts(first) == (3, 0, 0)
    assert first["folder"] == str(pictures)
    assert set(texts(pictures)) == set(COLORS)
    (pictures / "red.txt").write_text("mine")
    below = vivace_json(server.url, *words, "--subfolders")
    assert counts(below) == (1, 3, 0)
    kept = texts(pictures)
    assert set(kept) == {*COLORS, "white"}
    assert kept["red"] == "mine"
    assert counts(vivace_json(server.url, *words, "--existing=overwrite")) == (3, 0, 0)
    assert texts(pictures)["red"] != "mine"
    assert texts(pictures)["white"] == kept["white"]


def test_a_relative_folder_and_a_bad_image(server: ComfyServer, pictures: Path) -> None:
    (pictures / "green.png").write_bytes(b"no picture")
    process = start(server.url, "caption", pictures / "more" / "..", *SMALL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert "2 written, 0 there already, 1 failed" in output
    assert "green.png" in output
    assert set(texts(pictures)) == {"red", "blue"}


def test_an_endpoint_and_ones_own_prompt(server: ComfyServer, pictures: Path) -> None:
    with OpenAIServer(stream("A plain colour.")) as endpoint:
        words = (f"--endpoint={endpoint.url}", "--endpoint-model=tiny", "--prompt=Which colour?")
        found = vivace_json(server.url, "caption", pictures, *words)
        asked = str(endpoint.posts[-1].body)
    assert counts(found) == (3, 0, 0)
    assert texts(pictures) == dict.fromkeys(COLORS, "A plain colour.\n")
    assert "Which colour?" in asked
    assert "detail" not in asked.lower()


def test_interrupt(server: ComfyServer, client: ComfyClient, pictures: Path) -> None:
    with OpenAIServer(stream("Red."), hang()) as endpoint:
        words = (f"--endpoint={endpoint.url}", "--endpoint-model=tiny", "--batch-size=1")
        process = start(server.url, "caption", pictures, *words)
        deadline = time.monotonic() + 120
        while len(endpoint.posts) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130
        assert "Traceback" not in errors
        while client.get_json("/queue")["queue_running"]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert sorted(path.name for path in pictures.iterdir()) == [
        "blue.png",
        "blue.txt",
        "green.png",
        "more",
        "red.png",
    ]


BAD: list[tuple[tuple[str, ...], int, str]] = [
    (("--model=none-such",), 2, "--model none-such: the server has no such choice"),
    (("--preset=Detaild description",), 2, "did you mean Detailed description?"),
    (("--quality=best",), 2, "It has auto, fast, balanced, high, ultra"),
    (("--existing=replace",), 2, "It has skip, overwrite, append"),
    (("--batch-size=65",), 2, "--batch-size 65: must be from 1 to 64"),
    (("--endpoint=http://127.0.0.1:9/v1",), 2, "--endpoint-model is missing"),
    (("--endpoint=x", "--endpoint-model=y", "--dtype=float32"), 2, "does not go with --endpoint"),
    (("--endpoint-model=y",), 2, "does not go without --endpoint"),
    (("--model=unfinished",), 1, "model.safetensors"),
]


def test_bad_input(server: ComfyServer, pictures: Path, tmp_path: Path) -> None:
    for words, status, message in BAD:
        found = refused(server.url, "caption", pictures, *words)
        assert found[0] == status, (words, found)
        assert message in found[1], (words, found)
    assert texts(pictures) == {}
    status, errors = refused(server.url, "caption", tmp_path / "absent", *SMALL)
    assert (status, f"There is no folder {tmp_path / 'absent'}" in errors) == (1, True)
    # Each process has its own: here it is there, for the server it is not.
    status, errors = refused(server.url, "caption", "/proc/self/cwd/web/docs", *SMALL)
    assert (status, "cannot read /proc/self/cwd/web/docs, which is" in errors) == (1, True)
    (tmp_path / "empty").mkdir()
    status, errors = refused(server.url, "caption", tmp_path / "empty", *SMALL)
    assert (status, "holds no images" in errors) == (1, True)
