"""Checkpoints described from their headers: published sizes, names, completeness, refusals."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.svdquant_sketches import QWEN, described, sketch
from torch import Tensor
from vivace.devkit.doubles.nunchaku_double import GELU_SHIFT
from vivace.devkit.doubles.svdquant_checkpoints import Built, build, stock_weights
from vivace.lora.files.open_file import LoraFile
from vivace.lora.mapping.architecture import Architecture
from vivace.lora.mapping.supported_models import qwen_image, z_image
from vivace.svdquant.checkpoint import Checkpoint, PlacedLayer, describe
from vivace.svdquant.convert import convert_awq, convert_svdq, planar_modulation
from vivace.svdquant.errors import CheckpointError
from vivace.svdquant.packing import unpack_nibbles


@pytest.mark.parametrize(
    ("architecture", "rank", "tensors", "size"),
    [
        (qwen_image(), 32, 4093, 11_521_481_856),
        (qwen_image(), 128, 4093, 12_653_943_936),
        (z_image(), 32, 1099, 3.36),
        (z_image(), 256, 1099, 4.23),
    ],
)
def test_published_checkpoints(
    architecture: Architecture, rank: int, tensors: int, size: float
) -> None:
    """Numbers of tensors and bytes (or GiB) are those of the published files."""
    header = sketch(architecture, rank).header()
    checkpoint = describe(header, "model.safetensors")
    assert len(header.tensors) == tensors
    total = sum(info.end - info.begin for info in header.tensors.values())
    assert size in (total, round(total / 2**30, 2))
    assert checkpoint.architecture.depths == architecture.depths
    assert checkpoint.quantization.rank == rank
    assert checkpoint.dtype == "BF16"
    qwen = architecture.name == "qwen_image"
    kinds = Counter(placed.layer.kind for placed in checkpoint.layers)
    assert (kinds["svdq"], kinds["awq"]) == ((480, 120) if qwen else (136, 0))
    listed = [name for placed in checkpoint.layers for name in placed.layer.tensors.values()]
    assert sorted(listed) == sorted(header.tensors)


def placements(checkpoint: Checkpoint) -> dict[str, list[tuple]]:
    return {
        placed.layer.name: [tuple(place) for place in placed.placements]
        for placed in checkpoint.layers
    }


def test_qwen_image_layers_become_comfyuis() -> None:
    checkpoint = described(sketch(QWEN))
    places = placements(checkpoint)
    block = "transformer_blocks.1"
    assert places[f"{block}.attn.to_qkv"] == [
        (f"{block}.attn.to_q", 0, 256, 0),
        (f"{block}.attn.to_k", 256, 512, 0),
        (f"{block}.attn.to_v", 512, 768, 0),
    ]
    assert places[f"{block}.attn.add_qkv_proj"][2] == (f"{block}.attn.add_v_proj", 512, 768, 0)
    assert places[f"{block}.img_mod.1"] == [(f"{block}.img_mod.1", 0, 1536, 0)]
    assert places["txt_norm"] == [("txt_norm", 0, 48, 0)]
    unsigned = {placed.layer.name for placed in checkpoint.layers if placed.act_unsigned}
    stems = [f"transformer_blocks.{i}.{s}_mlp.net.2" for i in range(2) for s in ("img", "txt")]
    assert unsigned == set(stems)
    assert checkpoint.config["num_layers"] == 2
    assert checkpoint.architecture.name == "qwen_image"


def test_z_image_layers_become_comfyuis() -> None:
    checkpoint = described(sketch())
    places = placements(checkpoint)
    for block in ("layers.1", "noise_refiner.0", "context_refiner.0"):
        attention, swiglu = f"{block}.attention", f"{block}.feed_forward"
        assert places[f"{attention}.to_qkv"] == [(f"{attention}.qkv", 0, 768, 0)]
        assert places[f"{attention}.to_out.0"] == [(f"{attention}.out", 0, 256, 0)]
        assert places[f"{swiglu}.net.0.proj"] == [
            (f"{swiglu}.w3", 0, 384, 0),
            (f"{swiglu}.w1", 384, 768, 0),
        ]
        assert places[f"{swiglu}.net.2"] == [(f"{swiglu}.w2", 0, 256, 0)]
        assert places[f"{attention}.norm_q"] == [(f"{attention}.q_norm", 0, 128, 0)]
        assert places[f"{attention}.norm_k"] == [(f"{attention}.k_norm", 0, 128, 0)]
    assert places["all_x_embedder.2-1"] == [("x_embedder", 0, 256, 0)]
    last = "all_final_layer.2-1"
    assert places[f"{last}.linear"] == [("final_layer.linear", 0, 64, 0)]
    assert places[f"{last}.adaLN_modulation.1"] == [("final_layer.adaLN_modulation.1", 0, 256, 0)]
    assert places["x_pad_token"] == [("x_pad_token", 0, 1, 0)]
    assert places["layers.0.adaLN_modulation.0"] == [("layers.0.adaLN_modulation.0", 0, 1024, 0)]
    assert not any(placed.act_unsigned for placed in checkpoint.layers)


def test_refiners_that_are_not_quantized() -> None:
    checkpoint = described(sketch(skip_refiners=True))
    assert checkpoint.quantization.skip_refiners
    names = {placed.layer.name for placed in checkpoint.layers if placed.layer.kind == "svdq"}
    assert {name.split(".")[0] for name in names} == {"layers"}
    places = placements(checkpoint)
    attention, swiglu = "noise_refiner.0.attention", "noise_refiner.0.feed_forward"
    assert [places[f"{attention}.to_{part}"] for part in "qkv"] == [
        [(f"{attention}.qkv", 0, 256, 0)],
        [(f"{attention}.qkv", 0, 256, 256)],
        [(f"{attention}.qkv", 0, 256, 512)],
    ]
    assert [place[0] for place in places[f"{swiglu}.net.0.proj"]] == [
        f"{swiglu}.w3",
        f"{swiglu}.w1",
    ]


@pytest.mark.parametrize(
    ("architecture", "skip_refiners"),
    [
        (qwen_image(depth=1, hidden=256, text=48), False),
        (z_image(depth=1, refiners=1, hidden=256, ffn=384, text=48), False),
        (z_image(depth=1, refiners=1, hidden=256, ffn=384, text=48), True),
    ],
)
def test_a_described_file_holds_the_whole_model(
    tmp_path: Path, architecture: Architecture, skip_refiners: bool
) -> None:
    """Follow the description: every weight of ComfyUI's model comes out, with its values."""
    built = build(architecture, stock_weights(architecture), skip_refiners=skip_refiners)
    path = tmp_path / "model.safetensors"
    save_file(built.tensors, path, built.metadata)
    result: dict[str, Tensor] = {}
    with LoraFile(path) as file:
        checkpoint = describe(file.header, path)
    for placed in checkpoint.layers:
        for role, value in dense_values(built, placed).items():
            assert len(value) == placed.layer.shape[0]
            for module, start, stop, first in placed.placements:
                name = f"{module}.{role}" if role else module
                whole = result.setdefault(name, torch.full_like(built.dense[name], torch.nan))
                whole[first : first + stop - start] = value[start:stop]
    assert result.keys() == built.dense.keys()
    for name, tensor in result.items():
        assert torch.allclose(tensor, built.dense[name], atol=1e-5), name


def dense_values(built: Built, placed: PlacedLayer) -> dict[str, Tensor]:
    """The dense tensors of a stored layer, worked out from what it converts to."""
    stored = {role: built.tensors[name] for role, name in placed.layer.tensors.items()}
    if placed.layer.kind == "dense":
        return stored
    if placed.layer.kind == "awq":
        awq = planar_modulation(convert_awq(stored))
        values = unpack_nibbles(awq.weight, signed=False).unflatten(1, (-1, 64)) - 8
        weight = (values * awq.scale.t()[..., None] + awq.zeros.t()[..., None]).flatten(1)
        return with_bias(weight, awq.bias)
    linear = convert_svdq(stored, act_unsigned=placed.act_unsigned)
    values = unpack_nibbles(linear.weight, signed=True).unflatten(1, (-1, 64))
    residual = (values * linear.scale.t()[..., None]).flatten(1) / linear.smooth_factor
    bias = linear.bias
    if bias is not None and linear.act_unsigned:
        bias = bias + GELU_SHIFT * residual.sum(1)
    return with_bias(residual + linear.proj_up @ linear.proj_down.t(), bias)


def with_bias(weight: Tensor, bias: Tensor | None) -> dict[str, Tensor]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def test_a_separate_key_next_to_a_fused_layer() -> None:
    built = sketch(skip_refiners=True)
    name = "noise_refiner.0.attention.to_{}.weight"
    built.tensors[name.format("qkv")] = torch.empty(768, 256, dtype=torch.bfloat16, device="meta")
    del built.tensors[name.format("q")]
    with pytest.raises(CheckpointError, match=r"same module: noise_refiner.0.attention.qkv"):
        described(built)


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys; from vivace.svdquant.checkpoint import describe;"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
