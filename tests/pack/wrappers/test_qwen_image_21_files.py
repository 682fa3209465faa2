"""Formats beside LoRA on a running Qwen-Image-2.1, and files of other models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.applying import D, apply, lora_file, random, relative_error, untouched
from torch import Tensor
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

MLP = "transformer_blocks.1.img_mlp"
PARTS = ("gate_layer", "proj")
FFN = 3 * D


def rows(name: str) -> slice:
    """The rows of a module of a file in the fused weight."""
    return {"gate_up": slice(0, 2 * FFN), "gate_layer": slice(0, FFN), "proj": slice(FFN, None)}[
        name
    ]


def weight_of(network: Any) -> Tensor:
    """The weight of the first layer of the MLP, gate before value, float64 `[2 FFN, D]`."""
    mlp = network.get_submodule(MLP)
    layers = (mlp.gate_up,) if hasattr(mlp, "gate_up") else (mlp.gate_layer, mlp.proj)
    return torch.cat([layer.weight.data for layer in layers]).double()


def rewritten(fused: bool, weight: Tensor) -> Any:
    """A fresh model that has this weight there."""
    model = tiny.qwen_image_21(fused=fused)
    mlp = model.model.diffusion_model.get_submodule(MLP)
    if fused:
        mlp.gate_up.weight.data.copy_(weight)
    else:
        for layer, part in zip((mlp.gate_layer, mlp.proj), weight.chunk(2), strict=True):
            layer.weight.data.copy_(part)
    return model


Made = tuple[dict[str, Tensor], Tensor]


def dora(weight: Tensor) -> Made:
    out = len(weight)
    down, up = random(4, D, seed=1) / 16, random(out, 4, seed=2) / 2
    magnitude = random(out, 1, seed=3).abs() + 0.5
    changed = weight + up.double() @ down.double()
    changed = magnitude.double() * changed / changed.norm(dim=1, keepdim=True)
    return {"lora_A.weight": down, "lora_B.weight": up, "dora_scale": magnitude}, changed


def lokr(weight: Tensor) -> Made:
    w1, w2 = random(8, 8, seed=1), random(len(weight) // 8, D // 8, seed=2) / 4
    return {"lokr_w1": w1, "lokr_w2": w2}, weight + torch.kron(w1.double(), w2.double())


def loha(weight: Tensor) -> Made:
    out = len(weight)
    shapes = {"w1_a": (out, 3), "w1_b": (3, D), "w2_a": (out, 3), "w2_b": (3, D)}
    parts = {n: random(*shape, seed=i) / 2 for i, (n, shape) in enumerate(shapes.items())}
    one, two = (parts[f"w{i}_a"].double() @ parts[f"w{i}_b"].double() for i in (1, 2))
    tensors = {f"hada_{name}": tensor for name, tensor in parts.items()}
    return {**tensors, "alpha": torch.tensor(2.0)}, weight + 2.0 / 3 * one * two


def diff(weight: Tensor) -> Made:
    change = random(*weight.shape, seed=1) / 8
    return {"diff": change}, weight + change.double()


@pytest.mark.parametrize("mode", ["branch", "merge"])
@pytest.mark.parametrize("name", ["gate_up", *PARTS])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("make", [dora, lokr, loha, diff])
def test_the_first_layer_of_an_mlp(
    make: Callable[[Tensor], Made], fused: bool, name: str, mode: str, tmp_path: Path
) -> None:
    model = tiny.qwen_image_21(fused=fused)
    weight = weight_of(model.model.diffusion_model)
    tensors, changed = make(weight[rows(name)])
    path = tmp_path / "a.safetensors"
    save_file({f"diffusion_model.{MLP}.{name}.{k}": v for k, v in tensors.items()}, path)
    wanted = weight.clone()
    wanted[rows(name)] += 0.7 * (changed - weight[rows(name)])
    expected = tiny.sample(rewritten(fused, wanted))
    effect = relative_error(tiny.sample(model), expected)
    assert effect > 1e-3
    got = tiny.sample(apply(model, (path, 0.7), mode=mode, strict=True))
    assert relative_error(got, expected) < min(2e-5, effect / 50)
    assert untouched(model)


def test_full_values_of_norms_beside_factors(tmp_path: Path) -> None:
    """The norms of queries and keys, which a fused kernel reads, and that of the text."""
    norms = {
        "transformer_blocks.0.attn.norm_q": random(D // 2, seed=1),
        "transformer_blocks.1.attn.norm_k": random(D // 2, seed=2),
        "txt_in.text_norm": random(tiny.TEXT, seed=3),
    }
    down, up = random(2, D, seed=4) / 8, random(D, 2, seed=5)
    path = tmp_path / "a.safetensors"
    save_file(
        {
            **{f"{name}.weight": value for name, value in norms.items()},
            "transformer_blocks.0.attn.to_v.lora_down": down,
            "transformer_blocks.0.attn.to_v.lora_up": up,
        },
        path,
    )
    model = tiny.qwen_image_21()
    changed = tiny.qwen_image_21()
    network = changed.model.diffusion_model
    for name, value in norms.items():
        weight = network.get_submodule(name).weight.data
        weight.copy_(weight.double() + 0.6 * (value.double() - weight.double()))
    layer = network.get_submodule("transformer_blocks.0.attn.to_v")
    layer.weight.data += (0.6 * up.double() @ down.double()).float()
    wanted = tiny.sample(changed)
    assert relative_error(tiny.sample(model), wanted) > 1e-3
    for mode in ("branch", "merge"):
        got = tiny.sample(apply(model, (path, 0.6), mode=mode, strict=True))
        assert relative_error(got, wanted) < 2e-5


# Files of other models


def published(model: str) -> Any:
    """A patcher over one block of the published sizes, without values."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models
    from vivace.devkit.doubles.qwen_image_21.small import Config21, Model21

    meta = torch.device("meta")
    if model == "Qwen-Image":
        unet = {"image_model": "qwen_image", "num_layers": 1}
        config: Any = comfy.supported_models.QwenImage(unet)
        made: Any = comfy.model_base.QwenImage
    else:
        config = Config21({"image_model": "qwen_image21", "num_layers": 1})
        made = Model21
    config.set_inference_dtype(torch.bfloat16, None)
    return comfy.model_patcher.ModelPatcher(made(config, device=meta), meta, meta)


OWN = {
    "Qwen-Image": {"transformer_blocks.0.img_mlp.net.2": (3072, 12288)},
    "Qwen-Image-2.1": {"transformer_blocks.0.img_mlp.gate_up": (24576, 4096)},
}
ATTENTION = {
    "Qwen-Image": {"transformer_blocks.0.attn.to_q": (3072, 3072)},
    "Qwen-Image-2.1": {"transformer_blocks.0.attn.to_q": (4096, 4096)},
}


@pytest.mark.parametrize("modules", [OWN, ATTENTION])
@pytest.mark.parametrize(
    ("file", "model"), [("Qwen-Image", "Qwen-Image-2.1"), ("Qwen-Image-2.1", "Qwen-Image")]
)
def test_a_lora_of_the_other_qwen_image_is_refused(
    file: str, model: str, modules: dict[str, dict[str, tuple[int, int]]], tmp_path: Path
) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", modules[file], rank=1)
    patcher = published(model)
    with pytest.raises(ValueError, match="this LoRA is for") as caught:
        apply(patcher, (path, 1.0))
    assert str(caught.value) == (
        f"{path}: this LoRA is for {file} and the model is a {model}. Choose a LoRA for {model}."
    )
    right, _ = lora_file(tmp_path / "b.safetensors", modules[model], rank=1)
    assert apply(patcher, (right, 1.0)) is not patcher


def test_a_lora_of_krea_2_is_refused(tmp_path: Path) -> None:
    names = ("to_q", "to_k", "to_v")
    modules = {f"transformer_blocks.0.attn.{name}": (6144, 6144) for name in names}
    path, _ = lora_file(tmp_path / "a.safetensors", modules, rank=1)
    for model in OWN:
        with pytest.raises(ValueError, match=r"a\.safetensors: made for Krea 2 or FLUX\.2"):
            apply(published(model), (path, 1.0))
