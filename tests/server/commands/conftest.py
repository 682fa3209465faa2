"""What the tests of commands that work through a server share."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from filelock import FileLock
from support.cli_queue import Queue
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import OUT
from vivace.devkit.rig.server import ComfyServer


@pytest.fixture
def queue(client: ComfyClient) -> Queue:
    """The queue of the session's server."""
    return Queue(client)


@pytest.fixture(scope="package")
def whole_server(
    comfyui_folder: Path,
    comfyui: ModuleType,
    models: Path,
    svdquant_models: Path,
    z_image: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[ComfyServer]:
    """A ComfyUI with all that Qwen-Image and Z-Image need, text encoders included."""
    from support.text_encoder_files import ensure_text_encoders

    files = OUT / "tests" / "text_encoders"
    files.mkdir(parents=True, exist_ok=True)
    with FileLock(files / ".lock"):
        ensure_text_encoders(files, models)
    work = tmp_path_factory.mktemp("whole-server")
    (work / "loras").mkdir()
    running = ComfyServer(
        Path(sys.executable),
        comfyui_folder,
        work,
        arguments=["--disable-dynamic-vram"],
        test_nodes=True,
        model_dirs={
            "custom_nodes": [Path(__file__).with_name("custom_nodes")],
            "text_encoders": [files / "text_encoders"],
            "vae": [files / "vae"],
            "loras": [work / "loras"],
        },
        log=work / "server.log",
    )
    with running:
        running.wait_until_ready()
        yield running
    shutil.rmtree(work)


@pytest.fixture
def whole_queue(whole_server: ComfyServer) -> Queue:
    """The queue of that server."""
    return Queue(ComfyClient(whole_server.url))
