"""Music for a node, in this process: one shared model, given back, stopped, and counted."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_music import RATE, save_model, tone
from vivace.hub.model_folders import ModelFolderError
from vivace.music.audio_input import Audio
from vivace.music.errors import MusicError
from vivace.music.music_windows import MusicRequest

pytestmark = pytest.mark.usefixtures("comfyui")

SHORT = MusicRequest("piano", 0.2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("mono", tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def session() -> Iterator[Any]:
    from vivace.wrappers import music_session

    yield music_session
    for patcher in list(music_session.POOL.patchers.values()):
        music_session.POOL.drop(patcher)


@pytest.fixture
def steps(session: Any, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the progress bar is told."""
    seen: list[tuple[int, int]] = []

    class Bar:
        total = 1

        def __init__(self, total: int) -> None:
            pass

        def update_absolute(self, value: int, total: int | None = None) -> None:
            self.total = total or self.total
            seen.append((value, self.total))

    monkeypatch.setattr(session, "ProgressBar", Bar)
    return seen


def alive(reference: Any) -> bool:
    gc.collect()
    return reference() is not None


def only(session: Any) -> Any:
    (patcher,) = session.POOL.patchers.values()
    return patcher


def test_it_is_comfyuis_audio(session: Any, folder: Path) -> None:
    audio, report = session.make_music(session.MusicChoice(folder), SHORT)
    assert set(audio) == {"waveform", "sample_rate"}
    assert audio["waveform"].shape == (1, 1, 1600)
    assert audio["sample_rate"] == RATE
    assert "small, float32 on cpu" in report


def test_one_copy_for_all_and_files_are_read_once(session: Any, folder: Path) -> None:
    first, _ = session.make_music(session.MusicChoice(folder), SHORT)
    again, _ = session.make_music(session.MusicChoice(folder), SHORT)
    assert torch.equal(first["waveform"], again["waveform"])
    patcher = only(session)
    assert patcher.loads == 1
    assert patcher.loaded_size() == patcher.local.nbytes == patcher.model_size()
    session.make_music(session.MusicChoice(folder, "bfloat16"), SHORT)
    assert len(session.POOL.patchers) == 2


def test_unload_models_frees_it_and_the_next_use_brings_it_back(session: Any, folder: Path) -> None:
    from comfy.model_management import current_loaded_models, unload_all_models

    first, _ = session.make_music(session.MusicChoice(folder), SHORT)
    patcher = only(session)
    assert any(loaded.model is patcher for loaded in current_loaded_models)
    network = weakref.ref(patcher.local.model)
    weights = weakref.ref(next(patcher.local.model.parameters()))
    unload_all_models()
    assert not any(loaded.model is patcher for loaded in current_loaded_models)
    assert not alive(network)
    assert not alive(weights)
    again, _ = session.make_music(session.MusicChoice(folder), SHORT)
    assert torch.equal(first["waveform"], again["waveform"])
    assert patcher.loads == 2


def test_other_models_evict_it(session: Any, folder: Path) -> None:
    from comfy import model_management

    session.make_music(session.MusicChoice(folder), SHORT)
    patcher = only(session)
    model_management.free_memory(1e30, patcher.load_device)
    assert patcher.local is None
    assert patcher.loaded_size() == 0


def test_not_keeping_it_gives_everything_back(session: Any, folder: Path) -> None:
    model, _ = session.load(session.MusicChoice(folder), SHORT)
    network = weakref.ref(model.model)
    del model
    session.make_music(session.MusicChoice(folder, keep_loaded=False), SHORT)
    assert session.POOL.patchers == {}
    assert not alive(network)


def test_an_error_gives_it_back_too(session: Any, folder: Path) -> None:
    melody = MusicRequest("piano", 0.2, melody=Audio(tone(0.3), RATE))
    with pytest.raises(MusicError, match="takes no melody"):
        session.make_music(session.MusicChoice(folder, keep_loaded=False), melody)
    assert session.POOL.patchers == {}


def test_each_step_is_shown(session: Any, folder: Path, steps: list[tuple[int, int]]) -> None:
    session.make_music(session.MusicChoice(folder), SHORT)
    total = 10 + 3  # frames, and one for each codebook behind the first
    assert steps == [(done, total) for done in range(total + 1)]


def test_cancel_stops_it_within_a_step(
    session: Any, folder: Path, steps: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy import model_management

    compose = session.compose

    def pressed(model: Any, request: Any, progress: Any) -> Any:
        def after_five(done: int, total: int) -> None:
            if done == 5:
                model_management.interrupt_current_processing()
            progress(done, total)

        return compose(model, request, after_five)

    monkeypatch.setattr(session, "compose", pressed)
    with pytest.raises(model_management.InterruptProcessingException):
        session.make_music(session.MusicChoice(folder), SHORT)
    assert [done for done, _ in steps] == [0, 1, 2, 3, 4]
    assert not model_management.processing_interrupted()
    assert only(session).local is not None


def test_a_folder_that_is_not_whole_leaves_nothing(session: Any, tmp_path: Path) -> None:
    half = save_model("mono", tmp_path / "half")
    weights = half / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFolderError, match="half"):
        session.make_music(session.MusicChoice(half), SHORT)
    assert session.POOL.patchers == {}


def test_room_grows_with_what_is_asked(session: Any, folder: Path) -> None:
    def room(seconds: float, variations: int = 1, dtype: torch.dtype = torch.float32) -> int:
        return session.headroom(folder, MusicRequest("x", seconds, variations), dtype)

    # 2 layers of keys and values, 32 wide, 60 positions, with and without the prompt.
    cache = 2 * 2 * 32 * 4 * 60 * 2
    assert room(1.0, 2) - room(1.0) == cache
    assert room(1.0, 2, torch.float16) - room(1.0, 1, torch.float16) == cache // 2
    assert room(2.0) - room(1.0) == 4 * 4 * 4 * RATE
