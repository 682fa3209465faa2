"""What the tests share: the real ComfyUI, its server, the demo's models."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from skips import ON_CI, Skips
from vivace.devkit.doubles.demo_models import ensure_models, import_comfy
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import MODELS, OUT
from vivace.devkit.rig.server import ComfyServer
from without_browser import WithoutBrowser

# How long an example takes says something about the machine, not about the code.
settings.register_profile("vivace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vivace")

# What several processes that run tests at once must not share.
WORK = OUT / "tests" / os.environ.get("PYTEST_XDIST_WORKER", "alone")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the tests marked as long, too")
    parser.addoption("--no-browser", action="store_true", help="leave out those in a browser")


def pytest_configure(config: pytest.Config) -> None:
    """What a run leaves out is said, and fails it where nobody has allowed it."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Skips())
    if config.getoption("no_browser"):
        config.pluginmanager.register(WithoutBrowser())


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests only if asked for. Tests with a server first: the short ones fill up the end."""
    if not config.getoption("long"):
        left_out = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
    items.sort(key=lambda item: "comfyui_folder" not in getattr(item, "fixturenames", ()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several processes share the tests."""
    from scheduling import Scheduling

    return Scheduling(config, log)


def missing(what: str) -> None:
    """Skip by hand, fail on CI: there, everything the tests need must have been installed."""
    if ON_CI:
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="module", autouse=True)
def memory_given_back() -> Iterator[None]:
    """What `dev.py test` has malloc keep for the tests of a file goes back to the system after it.

    The servers need it: a process that has worked on whole models would hold on to 6 GB.
    """
    yield
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        gc.collect()
        trim(0)


@pytest.fixture(scope="session")
def comfyui_folder() -> Path:
    """The folder of the real ComfyUI that `dev.py test` names in `VIVACE_COMFYUI`."""
    folder = os.environ.get("VIVACE_COMFYUI")
    if not folder:
        missing("VIVACE_COMFYUI is not set; run the tests with `python3 dev.py test`")
    return Path(str(folder))


@pytest.fixture(scope="session")
def comfyui(comfyui_folder: Path) -> ModuleType:
    """ComfyUI's `comfy` package, importable in this process, on the CPU."""
    import_comfy(comfyui_folder)
    import comfy

    return comfy


def _making_models() -> FileLock:
    MODELS.mkdir(parents=True, exist_ok=True)
    return FileLock(MODELS / ".lock")


@pytest.fixture(scope="session")
def models(comfyui_folder: Path) -> Path:
    """The folder with the demo's checkpoint, VAE and LoRAs."""
    with _making_models():
        ensure_models(MODELS, comfyui_folder)
    return MODELS


@pytest.fixture(scope="session")
def svdquant_models(comfyui: ModuleType) -> Path:
    """The folder with a one-block SVDQuant checkpoint, and dense models that it stands for."""
    from vivace.devkit.doubles.svdquant_files import ensure_svdquant_models

    with _making_models():
        ensure_svdquant_models(MODELS)
    return MODELS


@pytest.fixture(scope="session")
def z_image(comfyui: ModuleType) -> None:
    """A Z-Image among the models."""
    from support.z_image_file import ensure_z_image

    with _making_models():
        ensure_z_image(MODELS)


@pytest.fixture(scope="session")
def vlm_models() -> Path:
    """A folder with small vision-language models; one of them is not complete."""
    from vivace.devkit.doubles.small_vlm import FAMILIES, save_model

    folder = WORK / "llm"
    shutil.rmtree(folder, ignore_errors=True)
    for family in FAMILIES:
        save_model(family, folder / f"small-{family}")
    half = shutil.copytree(folder / f"small-{FAMILIES[0]}", folder / "unfinished")
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return folder


@pytest.fixture(scope="session")
def music_models() -> Path:
    """A folder with small MusicGen models; one of them is not complete."""
    from support.small_music import KINDS, save_model

    folder = WORK / "musicgen"
    shutil.rmtree(folder, ignore_errors=True)
    for kind in KINDS:
        save_model(kind, folder / f"small-{kind}")
    (shutil.copytree(folder / "small-mono", folder / "half") / "model.safetensors").unlink()
    return folder


@pytest.fixture(scope="session")
def server(
    comfyui_folder: Path, models: Path, vlm_models: Path, music_models: Path
) -> Iterator[ComfyServer]:
    """A real ComfyUI with the pack and the helper nodes, for the whole session."""
    work = WORK / "server"
    shutil.rmtree(work, ignore_errors=True)
    running = ComfyServer(
        Path(sys.executable),
        comfyui_folder,
        work,
        arguments=["--disable-dynamic-vram"],
        test_nodes=True,
        model_dirs={"LLM": [vlm_models], "musicgen": [music_models]},
        log=work / "server.log",
    )
    with running:
        running.wait_until_ready()
        yield running


@pytest.fixture(scope="session")
def client(server: ComfyServer) -> ComfyClient:
    """A client of the session's server."""
    return ComfyClient(server.url)


@pytest.fixture
def prompts_folder(server: ComfyServer) -> Iterator[Path]:
    """The user's library of prompts on that server, empty before and afterwards."""
    path = server.work / "user" / "default" / "vivace" / "prompts"
    shutil.rmtree(path, ignore_errors=True)
    yield path
    shutil.rmtree(path, ignore_errors=True)
