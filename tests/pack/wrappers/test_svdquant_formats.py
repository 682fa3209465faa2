"""Adapters other than plain LoRA on SVDQuant models (check 12), and the limits of the factors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import adding, apply, lora_file, random, relative_error, special_file
from torch import nn
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny
from vivace.lora.mapping.architecture import Architecture, RowBlock

pytestmark = pytest.mark.usefixtures("comfyui")

Layout = Callable[[Architecture, str], tuple[RowBlock, ...]]

D = tiny.QWEN_DIM
TO_Q = "transformer_blocks.0.attn.to_q"


def with_hook(module: str, delta: torch.Tensor) -> torch.Tensor:
    model = small.kitchen("qwen_image")
    layer = model.model.diffusion_model.get_submodule(module)
    layer.register_forward_hook(adding(delta, slice(None)))
    return small.sample(model)


@pytest.mark.parametrize("maker", [small.kitchen, small.nunchaku])
@pytest.mark.parametrize("kind", ["lokr", "loha"])
def test_12_products_are_exact(kind: str, maker: Any, tmp_path: Path) -> None:
    path, parameter, wanted = special_file(tmp_path, kind, small.dense("qwen_image"))
    delta = wanted - tiny.weight_of(small.dense("qwen_image"), parameter).double()
    got = small.sample(apply(maker("qwen_image"), (path, 0.7), strict=True))
    assert relative_error(got, with_hook(TO_Q, delta)) < 1e-5


@pytest.mark.parametrize("maker", [small.kitchen, small.nunchaku])
def test_12_dora_is_the_change_that_it_defines(maker: Any, tmp_path: Path) -> None:
    dense = small.dense("qwen_image")
    path, parameter, wanted = special_file(tmp_path, "dora", dense)
    weight = tiny.weight_of(dense, parameter).double()
    tensors = load_file(path)
    down, up = (tensors[f"diffusion_model.{TO_Q}.lora_{x}.weight"].double() for x in "AB")
    delta = up @ down
    gain = tensors[f"diffusion_model.{TO_Q}.dora_scale"].double() / (weight + delta).norm(
        dim=1, keepdim=True
    )
    assert relative_error(weight + 0.7 * (gain * (weight + delta) - weight), wanted) < 1e-9

    lora, more = lora_file(tmp_path / "lora.safetensors", {TO_Q: (D, D)}, seed=4)

    # The layer rounds its input, and so does what DoRA scales of its output.
    def scaled(with_lora: float) -> Any:
        def hook(module: Any, inputs: Any, y: torch.Tensor) -> torch.Tensor:
            x, product = inputs[0].double(), y.double() - module.bias.double()
            change = 0.7 * ((gain.T - 1) * product + gain.T * (x @ delta.T))
            return y + (change + with_lora * x @ more[TO_Q].T).float()

        return hook

    for strength, stack in ((0.0, []), (0.4, [(lora, 0.4)])):
        model = small.kitchen("qwen_image")
        layer = model.model.diffusion_model.get_submodule(TO_Q)
        layer.register_forward_hook(scaled(strength))
        got = small.sample(apply(maker("qwen_image"), (path, 0.7), *stack, strict=True))
        assert relative_error(got, small.sample(model)) < 1e-5


def test_12_rotations_are_reported(tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    path, _ = lora_file(tmp_path / "one.safetensors", {TO_Q: (D, D)})
    tensors = load_file(path)
    tensors["diffusion_model.transformer_blocks.0.attn.to_k.oft_blocks"] = torch.zeros(4, 64, 64)
    save_file(tensors, path)
    _, report = apply_loras(small.nunchaku("qwen_image"), [(path, 1.0)])
    assert "OFT" in report


def test_14_float16_factors_do_not_overflow() -> None:
    from vivace.devkit.doubles.nunchaku_quantize import quantize_linear
    from vivace.lora.factors.branch import Branch
    from vivace.wrappers.targets.appended_ranks import AppendedRanks, Wanted
    from vivace.wrappers.targets.nunchaku_svdq import NunchakuSvdq
    from vivace.wrappers.targets.rank_target import RankTarget

    layer = quantize_linear(random(128, 128, seed=1) / 11, rank=16, dtype=torch.float16)
    network = nn.ModuleDict({"layer": layer})
    target = RankTarget("layer", (layer,), ((0, 128),), NunchakuSvdq())
    ranks = AppendedRanks(network, {"layer": target})
    a, b = random(16, 128, seed=2).half() / 4096, random(128, 16, seed=3).half() * 6000
    branch = Branch("layer", (128, 128), a, b, torch.full((16,), 30.0))
    x = random(1, 4, 128, seed=4).half() / 64
    base = layer(x)
    ranks.check(Wanted({"layer": branch}))
    ranks.reconcile(Wanted({"layer": branch}))
    assert bool(layer.proj_up.isfinite().all())
    wanted = 30 * (x.double() @ a.double().T) @ b.double().T
    assert relative_error(layer(x) - base, wanted) < 5e-3
    huge = Branch("layer", (128, 128), a * 2**22, b, torch.full((16,), 30.0))
    with pytest.raises(ValueError, match="too large for the model's float16"):
        ranks.check(Wanted({"layer": huge}))


def tiled(layer: Any) -> Any:
    """The same weight as comfy-kitchen packs it in tiles."""
    from comfy_kitchen.tensor import QuantizedTensor

    params = layer._params
    n, k = params.orig_shape
    data = layer._qdata.view(n // 128, 32, 4, k // 64, 32).permute(0, 3, 1, 2, 4)
    return QuantizedTensor(
        data.reshape(n // 128, k // 64, 32, 128).contiguous(),
        layer._layout_cls,
        type(params)(
            scale=params.scale.view(k // 64, n // 128, 128).transpose(0, 1).contiguous(),
            orig_dtype=params.orig_dtype,
            orig_shape=params.orig_shape,
            proj_down=params.proj_down,
            proj_up=params.proj_up.view(n // 128, 128, -1).transpose(1, 2).contiguous(),
            smooth_factor=params.smooth_factor,
            act_unsigned=params.act_unsigned,
        ),
    )


def test_17_tile_packed_weights_take_columns_too(tmp_path: Path) -> None:
    path, deltas = lora_file(tmp_path / "one.safetensors", {TO_Q: (D, D)}, rank=5)
    model = small.kitchen("qwen_image")
    attention = model.model.diffusion_model.transformer_blocks[0].attn
    base = small.sample(model)
    for name in ("to_q", "to_k", "to_v"):
        layer = getattr(attention, name)
        layer.weight = nn.Parameter(tiled(layer.weight), requires_grad=False)
    assert relative_error(small.sample(model), base) < 1e-6
    got = small.sample(apply(model, (path, 1.0)))
    assert relative_error(got, with_hook(TO_Q, deltas[TO_Q])) < 1e-5
    up = attention.to_q.weight._params.proj_up
    assert up.shape == (2, 48, 128)
    assert up.is_contiguous()
    assert relative_error(small.sample(model), base) < 1e-6


def test_17_q_k_and_v_still_share_their_input(tmp_path: Path) -> None:
    from comfy_kitchen.tensor.svdquant_w4a4 import (
        svdquant_w4a4_can_share_quant,
        svdquant_w4a4_grouped_linear,
    )

    modules = {f"transformer_blocks.0.attn.to_{name}": (D, D) for name in "qk"}
    path, _ = lora_file(tmp_path / "one.safetensors", modules)
    model = small.kitchen("qwen_image")
    attention = model.model.diffusion_model.transformer_blocks[0].attn
    small.sample(apply(model, (path, 1.0)))
    layers = [attention.to_q, attention.to_k, attention.to_v]
    weights = [layer.weight for layer in layers]
    assert all(weight._params.proj_down.is_contiguous() for weight in weights)
    assert len({id(weight._params.proj_down) for weight in weights}) == 1
    assert svdquant_w4a4_can_share_quant(weights, validate=True)
    x = random(1, 3, D, seed=9)
    together = svdquant_w4a4_grouped_linear(
        x, weights, [layer.bias for layer in layers], validate_shared_quant=True
    )
    for one, layer in zip(together, layers, strict=True):
        assert relative_error(one, layer(x)) < 1e-6


def _naive_append(base: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
    return torch.cat([base, extra], 1)


def _with_swapped_halves(layout: Layout) -> Layout:
    def swapped(architecture: Architecture, name: str) -> tuple[RowBlock, ...]:
        blocks = layout(architecture, name)
        if not name.endswith(".w13"):
            return blocks
        first, second = blocks
        return first._replace(module=second.module), second._replace(module=first.module)

    return swapped


@pytest.mark.parametrize("mistake", ["concatenated", "planar rows", "w1 before w3"])
def test_the_checks_see_the_usual_mistakes(
    mistake: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.wrappers.targets import nunchaku_awq, nunchaku_svdq

    family, module = "qwen_image", TO_Q
    shape = (D, D)
    if mistake == "concatenated":
        monkeypatch.setattr(nunchaku_svdq, "append_lowrank", _naive_append)
    elif mistake == "planar rows":
        monkeypatch.setattr(nunchaku_awq, "interleave_rows", lambda rows: rows)
        module, shape = "transformer_blocks.0.img_mod.1", (6 * D, D)
    else:
        monkeypatch.setattr(Architecture, "layout", _with_swapped_halves(Architecture.layout))
        family, module, shape = "z_image", "layers.0.feed_forward.w1", (512, D)
    path, deltas = lora_file(tmp_path / "one.safetensors", {module: shape})
    model = small.nunchaku(family)
    reference = small.kitchen(family)
    layer = reference.model.diffusion_model.get_submodule(module)
    layer.register_forward_hook(adding(deltas[module], slice(None)))
    got = small.sample(apply(model, (path, 1.0)))
    assert relative_error(got, small.sample(reference)) > 1e-4


@pytest.mark.parametrize("maker", [small.kitchen, small.nunchaku])
def test_ia3_multiplies_the_bias_that_a_modulation_was_trained_with(
    maker: Any, tmp_path: Path
) -> None:
    """Nunchaku has added 1 to the bias of the scales, which is no part of the layer's output."""
    module = "transformer_blocks.0.img_mod.1"
    factor = 1 + random(6 * D, 1, seed=3) / 2
    path = tmp_path / "ia3.safetensors"
    save_file({f"base_model.model.{module}.ia3_l": factor}, path)
    model = small.kitchen("qwen_image")
    layer = model.model.diffusion_model.get_submodule(module)
    layer.register_forward_hook(lambda _, x, y: y * factor.flatten())
    got = small.sample(apply(maker("qwen_image"), (path, 1.0), strict=True))
    assert relative_error(got, small.sample(model)) < 1e-4
