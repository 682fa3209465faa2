"""What peft saves beside or instead of factors, and bases that training has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.oracle.compare import check, check_refused, write
from support.oracle.libraries import library
from support.oracle.peft_cases import targets
from support.oracle.peft_models import adapted, changes, layers, randomize, save
from support.oracle.tiny import NAMES, Tiny, tiny
from torch import Tensor

_FLOAT = torch.float32


def _lora(model: Tiny, **arguments: Any) -> Any:
    return adapted(model, _config(model, **arguments))


def _config(model: Tiny, **arguments: Any) -> Any:
    known = {"r": 4, "lora_alpha": 6, "target_modules": targets(model, "attention")}
    return library("peft").LoraConfig(**{**known, **arguments})


def _drawn(adapter: Any) -> Any:
    randomize(adapter, _FLOAT)
    return adapter


# Initializations from the base weight


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_initialized_from_the_base(start: str, model: str, tmp_path: Path) -> None:
    """The factors are applied as they are, and the report says that the base was another one."""
    known = tiny(model)
    adapter = adapted(known, _config(known, init_lora_weights=start), torch.float32)
    randomize(adapter, _FLOAT)
    path = save(adapter, tmp_path, _FLOAT, "beside")
    deltas = {
        (name, "weight"): layer.get_delta_weight("default").detach()
        for name, layer in layers(adapter)
    }
    lora = check(path, known, deltas)
    assert f"init_lora_weights: {start}" in " ".join(lora.report.notes)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_converted_to_plain_lora(start: str, model: str, tmp_path: Path) -> None:
    """peft's own conversion of such an adapter is exact on the base that it started from."""
    known = tiny(model)
    adapter = adapted(known, _config(known, init_lora_weights=start), torch.float32)
    adapter.peft_config["default"].init_lora_weights = True
    adapter.save_pretrained(str(tmp_path / "first"))
    adapter.peft_config["default"].init_lora_weights = start
    for _, layer in layers(adapter):
        for linear in (layer.lora_A["default"], layer.lora_B["default"]):
            linear.weight.data += torch.randn(linear.weight.shape).double()
    found = {}
    for name, layer in layers(adapter):
        trained = layer.get_base_layer().weight + layer.get_delta_weight("default")
        base: Any = known.module.get_submodule(name)
        found[name, "weight"] = (trained - base.weight.float()).detach()
    adapter.save_pretrained(
        str(tmp_path / "converted"),
        path_initial_model_for_weight_conversion=str(tmp_path / "first"),
    )
    lora = check(tmp_path / "converted" / "adapter_model.safetensors", known, found)
    assert "init_lora_weights" not in " ".join(lora.report.notes)


# AdaLoRA


def _adalora(model: Tiny, **arguments: Any) -> Any:
    paths = targets(model, "attention")
    known = {"init_r": 6, "target_r": 3, "lora_alpha": 4, "total_step": 10}
    return _drawn(
        adapted(
            model, library("peft").AdaLoraConfig(**{**known, "target_modules": paths, **arguments})
        )
    )


@pytest.mark.parametrize("model", NAMES)
def test_pruned_adalora(model: str, tmp_path: Path) -> None:
    """Rows that were cut off are not saved; what divides the scale is still the first rank."""
    known = tiny(model)
    adapter = _adalora(known)
    pattern = {}
    for number, (name, layer) in enumerate(layers(adapter)):
        kept = [(number + row) % 3 != 0 for row in range(6)]
        layer.lora_E["default"].data[~torch.tensor(kept)] = 0
        pattern[f"{name}.lora_E"] = kept
    adapter.peft_config["default"].rank_pattern = pattern
    adapter.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_model.safetensors"
    sizes = {len(value) for name, value in load_file(path).items() if name.endswith("lora_E")}
    assert sizes == {4}
    check(path, known, changes(adapter, known))


@pytest.mark.parametrize("model", NAMES)
def test_adalora_without_configuration(model: str, tmp_path: Path) -> None:
    path = save(_adalora(tiny(model)), tmp_path, _FLOAT, "beside")
    path.with_name("adapter_config.json").unlink()
    check_refused(path, "is AdaLoRA, whose scale is known only from lora_alpha and init_r")


# Tensors that replace something


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_trained_biases(bias: str, tmp_path: Path) -> None:
    """Biases are saved in full. Their modules are not applied."""
    known = tiny("qwen_image")
    adapter = _drawn(_lora(known, bias=bias, target_modules=["norm_out.linear", "img_in"]))
    path = save(adapter, tmp_path, _FLOAT, "beside")
    assert any(name.endswith("base_layer.bias") for name in load_file(path))
    check_refused(path, "a full bias, not a change to one")


@pytest.mark.parametrize("model", NAMES)
def test_modules_to_save(model: str, tmp_path: Path) -> None:
    """A module that was trained in full is refused; the others are applied."""
    known = tiny(model)
    whole = {"z_image": "cap_embedder.1"}.get(model, "img_in")
    adapter = _drawn(_lora(known, modules_to_save=[whole]))
    path = save(adapter, tmp_path, _FLOAT, "beside")
    lora = check(path, known, changes(adapter, known), {whole: "a full "})
    assert f"trained in full: {whole}" in " ".join(lora.report.notes)


@pytest.mark.parametrize("model", NAMES)
def test_whole_state_dict(model: str, tmp_path: Path) -> None:
    """A dump of everything has the base weights among the factors."""
    adapter = _drawn(_lora(tiny(model)))
    path = write(
        tmp_path / "a.safetensors", {k: v.float() for k, v in adapter.state_dict().items()}
    )
    check_refused(path, "a full ")


# Names of adapters


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("slot", ["default", "default_0", "style"])
def test_state_dict_with_the_name_of_the_adapter(slot: str, model: str, tmp_path: Path) -> None:
    known = tiny(model)
    adapter = _drawn(_lora(known, r=6, lora_alpha=6))
    tensors = {
        name.replace(".default.", f".{slot}."): value.float()
        for name, value in adapter.state_dict().items()
        if ".lora_" in name
    }
    check(write(tmp_path / "a.safetensors", tensors), known, changes(adapter, known))


@pytest.mark.parametrize("model", NAMES)
def test_two_adapters_in_one_file(model: str, tmp_path: Path) -> None:
    """Which of them is meant cannot be known, unless they are the same."""
    known = tiny(model)
    tensors: dict[str, Tensor] = {}
    for slot, seed in (("first", 1), ("second", 2)):
        adapter = _lora(known, r=6, lora_alpha=6)
        randomize(adapter, _FLOAT, seed)
        for name, value in adapter.state_dict().items():
            if ".lora_" in name:
                tensors[name.replace(".default.", f".{slot}.")] = value.float()
    check_refused(write(tmp_path / "a.safetensors", tensors), "")


# Scales that are stated twice


@pytest.mark.parametrize("model", NAMES)
def test_a_rank_that_the_configuration_contradicts(model: str, tmp_path: Path) -> None:
    path = save(_drawn(_lora(tiny(model))), tmp_path, _FLOAT, "beside")
    config = path.with_name("adapter_config.json")
    fields = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**fields, "r": 8}), encoding="utf-8")
    check_refused(path, "its factors have rank 4, but adapter_config.json says rank 8")


def test_a_scale_that_is_not_stated(tmp_path: Path) -> None:
    path = save(_drawn(_lora(tiny("z_image"))), tmp_path, _FLOAT, "beside")
    config = path.with_name("adapter_config.json")
    fields = json.loads(config.read_text(encoding="utf-8"))
    del fields["lora_alpha"]
    config.write_text(json.dumps(fields), encoding="utf-8")
    check_refused(path, "gives a rank and no lora_alpha")


CASES = 14 * len(NAMES) + 5
