"""The memory that models of QwenVL take in a real ComfyUI: shared, evicted, given back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.graphs import free, node
from support.qwenvl_graphs import ask, figures, graph, local, run
from vivace.devkit.demo.workflow import Run, build
from vivace.devkit.doubles.demo_models import MODEL_FILE
from vivace.devkit.rig.client import ComfyClient


@pytest.fixture
def memory(client: ComfyClient) -> Any:
    def look(**inputs: Any) -> dict[str, list[str]]:
        return client.run({"memory": node("VivaceTestMemory", **inputs)})["memory"]

    return look


def test_nodes_share_one_copy_and_a_changed_setting_loads_another(
    client: ComfyClient, memory: Any
) -> None:
    free(client, unload_models=True)
    prompt = graph(prompt="one")
    prompt["more"] = ask("two", **{"images.image0": ["image", 0]})
    prompt["memory"] = node("VivaceTestMemory", after=["more", 0])
    client.run(prompt)
    seen = memory()
    assert seen["loaded"] == ["PooledModelPatcher"]
    assert len(seen["alive"]) == 1
    client.run(graph(prompt="three", **local(compile_vision="off")))
    assert len(memory()["alive"]) == 1
    client.run(graph(prompt="three", **local(attention="eager")))
    assert len(memory()["alive"]) == 2


def test_free_gives_the_memory_back_and_the_image_cache_stays(
    client: ComfyClient, memory: Any
) -> None:
    before = run(client, graph(prompt="before"))["text"]
    assert memory()["alive"]
    free(client, unload_models=True, free_memory=True)
    seen = memory()
    assert seen.get("alive", []) == []
    assert seen.get("loaded", []) == []
    after = run(client, graph(prompt="before"))
    assert after["text"] == before
    assert figures(after["report"]) == (1, 0)


@pytest.fixture
def small_device(client: ComfyClient, models: Path) -> Iterator[None]:
    """A device that the demo's model and a small QwenVL do not fit on together."""
    size = (models / "diffusion_models" / MODEL_FILE).stat().st_size
    free(client, unload_models=True, free_memory=True)
    client.run({"device": node("VivaceTestSmallDevice", nbytes=int(1.1 * size) + 2**20)})
    yield
    free(client, unload_models=True, free_memory=True)
    client.run({"device": node("VivaceTestSmallDevice", nbytes=0)})


@pytest.mark.usefixtures("small_device")
def test_a_model_that_is_loaded_evicts_it_and_it_comes_back(
    client: ComfyClient, memory: Any
) -> None:
    text = run(client, graph(prompt="evict"))["text"]
    assert memory()["loaded"] == ["PooledModelPatcher"]
    sampled = build(Run("evicting", []), MODEL_FILE, None, 3584, [])
    client.run(sampled)
    # Older versions let go of the sampled model when a prompt without it runs, as this look does.
    assert "PooledModelPatcher" not in memory()["loaded"]
    again = graph(prompt="evict")
    again["ask"]["inputs"]["seed"] = 1  # so that the node runs again
    assert run(client, again)["text"] == text
    assert "PooledModelPatcher" in memory()["loaded"]


@pytest.mark.parametrize("quantization", ["8-bit", "4-bit"])
def test_a_quantized_model_is_dropped_and_built_again(
    client: ComfyClient, memory: Any, quantization: str
) -> None:
    free(client, unload_models=True)
    asked = graph(prompt="quantized", **local(quantization=quantization))
    text = run(client, asked)["text"]
    assert len(memory()["alive"]) == 1
    free(client, unload_models=True)
    assert memory().get("alive", []) == []
    asked["ask"]["inputs"]["seed"] = 1
    assert run(client, asked)["text"] == text


def test_keep_loaded_off_gives_it_back_after_the_run(client: ComfyClient, memory: Any) -> None:
    free(client, unload_models=True)
    run(client, graph(prompt="short", **local(keep_loaded=False)))
    assert memory().get("alive", []) == []
