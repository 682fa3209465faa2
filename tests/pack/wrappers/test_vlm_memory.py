"""Language models in ComfyUI's memory management, in this process."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import save_model
from vivace.vlm.loading.load_options import LoadError, LoadOptions

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
    from vivace.wrappers.vlm.vlm_models import ModelPool

    made = ModelPool(lambda local: unloaded.append(weakref.ref(local.model)))
    yield made
    for patcher in list(made.patchers.values()):
        made.drop(patcher)


@pytest.fixture
def nothing_loaded() -> None:
    from comfy.model_management import unload_all_models

    unload_all_models()


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


def test_other_models_evict_it(pool: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher

    # Loading to "cpu" evicts nothing, "cpu:0" is a device like any other to ComfyUI.
    device = torch.device("cpu:0")
    local, ours = pool.load(folder, LoadOptions("float32", device="cpu:0"), ROOM)
    other = ModelPatcher(torch.nn.Linear(1000, 1000), device, torch.device("cpu"))
    _small_device(monkeypatch, ours.model_size() + other.model_size() // 2)
    model_management.load_models_gpu([other])
    assert [loaded.model for loaded in model_management.current_loaded_models] == [other]
    assert ours.loaded_size() == 0
    assert pool.load(folder, LoadOptions("float32", device="cpu:0"), ROOM)[0] is local
    assert ours.loaded_size() == ours.model_size()
    assert other.loaded_size() < other.model_size()  # a model of ComfyUI's goes in parts
    assert ours.loads == 1  # it waited in main memory


@pytest.mark.usefixtures("nothing_loaded")
def test_models_that_fit_stay(pool: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy import model_management
    from comfy.model_patcher import ModelPatcher

    device = torch.device("cpu:0")
    _, ours = pool.load(folder, LoadOptions("float32", device="cpu:0"), ROOM)
    other = ModelPatcher(torch.nn.Linear(1000, 1000), device, torch.device("cpu"))
    _small_device(monkeypatch, ours.model_size() + 2 * other.model_size())
    model_management.load_models_gpu([other])
    assert [loaded.model for loaded in model_management.current_loaded_models] == [other, ours]


def _small_device(monkeypatch: pytest.MonkeyPatch, capacity: int) -> None:
    """Let ComfyUI see a device of so many bytes, with what it has loaded there, and no reserve."""
    from comfy import model_management

    def free(device: Any = None, torch_free_too: bool = False) -> Any:
        loaded = sum(m.model_loaded_memory() for m in model_management.current_loaded_models)
        return (capacity - loaded, 0) if torch_free_too else capacity - loaded

    monkeypatch.setattr(model_management, "get_free_memory", free)
    monkeypatch.setattr(model_management, "minimum_inference_memory", lambda: 0)
    monkeypatch.setattr(model_management, "extra_reserved_memory", lambda: 0)


@pytest.mark.parametrize("quantization", ["8-bit", "4-bit"])
def test_a_quantized_model_is_dropped_and_built_again(
    quantization: str, pool: Any, unloaded: list[Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy.model_management import unload_all_models

    options = LoadOptions("float32", quantization)
    local, patcher = pool.load(folder, options, ROOM)
    monkeypatch.setattr(patcher, "offload_device", torch.device("meta"))
    tokens = torch.tensor([[1, 2, 3]])
    before = local.model(input_ids=tokens).logits
    network = weakref.ref(local.model)
    del local
    unload_all_models()
    assert not alive(network)
    assert len(unloaded) == 1
    local, same = pool.load(folder, options, ROOM)
    assert same is patcher
    assert patcher.loads == 2
    assert patcher.loaded_size() == local.nbytes
    assert torch.equal(local.model(input_ids=tokens).logits, before)


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
    from vivace.wrappers import transformers_pool

    local, patcher = pool.load(folder, FULL, ROOM)
    monkeypatch.setattr(patcher, "offload_device", torch.device("meta"))
    if reason == "quantized":
        monkeypatch.setattr(local, "movable", False)
    else:
        monkeypatch.setattr(transformers_pool, "RAM_FACTOR", 1e9)
    patcher.detach()
    assert patcher.local is None
    assert pool.load(folder, FULL, ROOM)[0] is not local
    assert patcher.loads == 2


def test_a_model_that_cannot_be_loaded_leaves_nothing(
    pool: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers.vlm import vlm_models

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
