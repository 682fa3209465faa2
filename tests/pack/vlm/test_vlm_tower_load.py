"""A vision tower loaded alone: the weights that the whole model has, and no others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from vivace.devkit.doubles.small_vlm import FAMILIES, OTHER_FAMILIES, processor, stock_model
from vivace.vlm.loading.load_options import LoadError, LoadOptions
from vivace.vlm.local_model import load_model
from vivace.vlm.vision.tower_load import load_tower


def save(family: str, folder: Path, shard: str = "1GB") -> Path:
    stock_model(family).save_pretrained(folder, max_shard_size=shard)
    processor(family).save_pretrained(folder)
    return folder


def states(tower: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(tower.named_parameters()), **dict(tower.named_buffers())}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", [*FAMILIES, *OTHER_FAMILIES])
def test_as_with_the_whole_model(family: str, dtype: str, tmp_path: Path) -> None:
    folder = save(family, tmp_path / "m", shard="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    whole = load_model(folder, LoadOptions(dtype=dtype)).tower
    checked, tower = load_tower(folder, dtype)
    assert whole is not None
    assert tower.geometry == whole.geometry
    assert checked.folder.model_type == family
    expected, found = states(whole.module), states(tower.module)
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name
        assert not found[name].requires_grad


def test_no_weight_of_the_language_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save("qwen3_vl", tmp_path / "m")
    read: list[str] = []
    real = safetensors.safe_open

    class Counting:
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.file = real(*arguments, **named)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def keys(self) -> list[str]:
            return self.file.keys()

        def get_tensor(self, name: str) -> torch.Tensor:
            read.append(name)
            return self.file.get_tensor(name)

    monkeypatch.setattr(safetensors, "safe_open", Counting)
    _, tower = load_tower(folder)
    assert len(read) == len(tower.module.state_dict())
    assert all(".visual." in f".{name}" for name in read)


def changed(folder: Path, change: dict[str, torch.Tensor | None]) -> None:
    file = folder / "model.safetensors"
    tensors: dict[str, Any] = {**load_file(file), **change}
    save_file({name: t for name, t in tensors.items() if t is not None}, file)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = save("qwen3_vl", tmp_path / "m")
    names = load_file(folder / "model.safetensors")
    bias = next(name for name in names if name.endswith("visual.blocks.1.norm1.bias"))
    first = next(name for name in names if name.endswith("patch_embed.proj.weight"))
    changed(folder, {bias: torch.zeros(64, dtype=torch.int8)})
    with pytest.raises(LoadError, match=r"blocks\.1\.norm1\.bias is torch\.int8"):
        load_tower(folder)
    changed(folder, {bias: torch.zeros(65)})
    with pytest.raises(LoadError, match=r"do not fit the vision tower .*\[65\]"):
        load_tower(folder)
    changed(folder, {bias: None})
    with pytest.raises(LoadError, match=r"do not fit the vision tower .*Missing.*norm1\.bias"):
        load_tower(folder)
    changed(folder, {first: None})
    with pytest.raises(LoadError, match=r"0 tensors are called patch_embed\.proj\.weight"):
        load_tower(folder)


def test_a_config_that_transformers_refuses(tmp_path: Path) -> None:
    folder = save("qwen3_vl", tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["hidden_act"] = "unknown"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LoadError, match="transformers cannot make the model"):
        load_tower(folder)
