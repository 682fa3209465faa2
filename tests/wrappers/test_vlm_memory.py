"""Language models in ComfyUI's memory management, in this process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.tests.vlm.small_models import save_model
from vivace.vlm.load_options import LoadError, LoadOptions

pytestmark = pytest.mark.usefixtures("comfyui")

FULL = LoadOptions(dtype="float32", compile_vision="off")
ROOM = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("qwen3_vl", tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def unloaded() -> list[Any]:
    return []


@pytest.fixture
def pool(unloaded: list[Any]) -> Iterator[Any]:
    from vivace.wrappers.vlm_models import ModelPool

    made = ModelPool(lambda local: unloaded.append(weakref.ref(local.model)))
    yield made
    for patcher in list(made.patchers.values()):
        made.drop(patcher)


def listed(patcher: Any) -> bool:
    from comfy.model_management import current_loaded_models

    return any(loaded.model is patcher for loaded in current_loaded_models)


def alive(reference: Any) -> bool:
    gc.collect()
    return reference() is not None


def test_one_copy_for_all_and_files_are_read_once(pool: Any, folder: Path) -> None:
    first, patcher = pool.load(folder, FULL, ROOM)
    again, same = pool.load(folder, LoadOptions(dtype="float32", compile_vision="on"), ROOM)
    assert again is first
    assert same is patcher
    assert patcher.loads == 1
    assert listed(patcher)
    assert patcher.loaded_size() == first.nbytes == patcher.model_size()


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"attention": "eager"}])
def test_another_setting_is_another_copy(change: dict[str, str], pool: Any, folder: Path) -> None:
    first, _ = pool.load(folder, FULL, ROOM)
    other, patcher = pool.load(folder, LoadOptions(**{"dtype": "float32", **change}), ROOM)
    assert other is not first
    assert patcher.loads == 1
    assert pool.load(folder, FULL, ROOM)[0] is first


def test_a_changed_file_is_another_model(pool: Any, folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "changed"
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    first, _ = pool.load(place, FULL, ROOM)
    weights = place / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert pool.load(place, FULL, ROOM)[0] is not first


def test_unload_models_frees_it_and_the_next_use_brings_it_back(
    pool: Any, unloaded: list[Any], folder: Path
) -> None:
    from comfy.model_management import unload_all_models

    local, patcher = pool.load(folder, FULL, ROOM)
    weights = weakref.ref(next(local.model.parameters()))
    network = weakref.ref(local.model)
    del local
    unload_all_models()
    assert not listed(patcher)
    assert not alive(network)
    assert not alive(weights)
    assert len(unloaded) == 1
    assert patcher.loaded_size() == 0
    again, same = pool.load(folder, FULL, ROOM)
    assert same is patcher
    assert patcher.loads == 2
    assert patcher.loaded_size() == again.nbytes


def test_other_models_evict_it(pool: Any, folder: Path) -> None:
    from comfy import model_management

    _, patcher = pool.load(folder, FULL, ROOM)
    # What load_models_gpu does in front of a model that does not fit.
    model_management.free_memory(1e30, patcher.load_device)
    assert not listed(patcher)
    assert patcher.local is None


def test_a_movable_model_waits_in_main_memory(
    pool: Any, unloaded: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, patcher = pool.load(folder, FULL, ROOM)
    monkeypatch.setattr(patcher, "offload_device", torch.device("meta"))
    moved: list[torch.device] = []
    monkeypatch.setattr(local, "to", moved.append)
    patcher.detach()
    assert moved == [torch.device("meta")]
    assert patcher.local is local
    assert patcher.loaded_size() == 0
    assert len(unloaded) == 1
    patcher.load(patcher.load_device)
    assert patcher.loads == 1


@pytest.mark.parametrize("reason", ["quantized", "no room"])
def test_others_are_dropped(
    reason: str, pool: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers import vlm_models

    local, patcher = pool.load(folder, FULL, ROOM)
    monkeypatch.setattr(patcher, "offload_device", torch.device("meta"))
    if reason == "quantized":
        monkeypatch.setattr(local, "movable", False)
    else:
        monkeypatch.setattr(vlm_models, "_RAM_FACTOR", 1e9)
    patcher.detach()
    assert patcher.local is None
    assert pool.load(folder, FULL, ROOM)[0] is not local
    assert patcher.loads == 2


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    pool: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers import vlm_models

    def fails(*_: Any) -> None:
        raise LoadError("no")

    with monkeypatch.context() as patch:
        patch.setattr(vlm_models, "load_model", fails)
        with pytest.raises(LoadError):
            pool.load(folder, FULL, ROOM)
    assert not any(listed(patcher) for patcher in pool.patchers.values())
    local, patcher = pool.load(folder, FULL, ROOM)
    assert patcher.loaded_size() == local.nbytes


def test_dropping_gives_everything_back(pool: Any, folder: Path) -> None:
    local, patcher = pool.load(folder, FULL, ROOM)
    network = weakref.ref(local.model)
    del local
    pool.drop(patcher)
    assert pool.patchers == {}
    assert not listed(patcher)
    assert not alive(network)


def test_a_new_model_takes_the_place_of_one_that_waits(pool: Any, folder: Path) -> None:
    _, first = pool.load(folder, FULL, ROOM)
    first.drop()
    _, second = pool.load(folder, LoadOptions(), ROOM)
    assert list(pool.patchers.values()) == [second]
