"""peft as an oracle: adapters with random values, and what merging them changes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from support.oracle.libraries import library
from support.oracle.storage import rounded
from support.oracle.tiny import Tiny
from torch import Tensor, nn


def adapted(model: Tiny, config: Any, dtype: torch.dtype = torch.float64) -> Any:
    """Return a copy of a model with an adapter of peft.

    The adapter is made in the given type, which some of them need to be float32, and what is
    returned is float64.
    """
    adapter = library("peft").get_peft_model(model.fresh().to(dtype), config)
    # Nobody reads the page that peft writes beside an adapter, and it takes longer than the rest.
    adapter.create_or_update_model_card = lambda folder: None
    return adapter.double()


def randomize(adapter: Any, dtype: torch.dtype, seed: int = 0) -> None:
    """Fill the trained tensors with random values that `dtype` holds."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapter.named_parameters():
        # peft calls AdaLoRA's divisor trainable, and does not save it.
        if not parameter.requires_grad or "ranknum" in name:
            continue
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
        if "magnitude" in name or "ia3_l" in name:
            value = value.abs() + 0.5
        parameter.data.copy_(rounded(value, dtype))


def changes(adapter: Any, model: Tiny) -> dict[tuple[str, str], Tensor]:
    """Return what merging changes, by diffusers' path: merged minus base."""
    found = {}
    for path, layer in layers(adapter):
        for which, change in merged(layer, model.module.get_submodule(path)).items():
            if change.any():
                found[path, which] = change
    return found


def merged(layer: Any, base: Any) -> dict[str, Tensor]:
    """Return merged minus base of one layer, which is then as before."""
    layer.merge(adapter_names=["default"])
    inner = layer.get_base_layer()
    found = {"weight": inner.weight.data - base.weight}
    inner.weight.data = base.weight.data.clone()
    if base.bias is not None:
        found["bias"] = inner.bias.data - base.bias
        inner.bias.data = base.bias.data.clone()
    layer.merged_adapters.clear()
    return found


def layers(adapter: Any) -> Iterable[tuple[str, Any]]:
    """Yield the layers that peft has replaced, by their path in the model."""
    tuned = library("peft.tuners.tuners_utils").BaseTunerLayer
    root: nn.Module = adapter.get_base_model()
    for path, module in root.named_modules():
        if isinstance(module, tuned):
            yield path, module


def save(adapter: Any, folder: Path, dtype: torch.dtype, form: str) -> Path:
    """Save an adapter in one of `FORMS`, its tensors in the type of the file.

    `save_pretrained` sorts the patterns of a configuration, so that what it saves may be another
    adapter than was trained; here they keep their order.
    """
    tensors = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in adapter.state_dict().items()
    }
    adapter.save_pretrained(folder, state_dict=tensors)
    path = folder / "adapter_model.safetensors"
    config = folder / "adapter_config.json"
    fields = json.loads(config.read_text(encoding="utf-8"))
    for name in ("rank_pattern", "alpha_pattern"):
        if fields.get(name):
            fields[name] = dict(getattr(adapter.peft_config["default"], name))
    config.write_text(json.dumps(fields), encoding="utf-8")
    if form == "beside":
        return path
    found = load_file(path)
    if form == "pickle":
        path.unlink()
        torch.save(found, folder / "adapter_model.bin")
        return folder / "adapter_model.bin"
    found = {name.removeprefix("base_model.model."): value for name, value in found.items()}
    if form == "bare":
        path.unlink()
        save_file(found, folder / "my style.safetensors")
        return folder / "my style.safetensors"
    config.unlink()
    header = {f"transformer.{name}": value for name, value in fields.items()}
    tensors = {f"transformer.{name}": value for name, value in found.items()}
    save_file(tensors, path, {"lora_adapter_metadata": json.dumps(header)})
    return path


# As peft saves it; a file of any name, the only one in its folder; as pipelines of diffusers save
# it; and as peft did before there was safetensors.
FORMS = ("beside", "bare", "header", "pickle")
