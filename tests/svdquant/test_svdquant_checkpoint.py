"""Checkpoints described from their headers: published sizes, names, completeness, refusals."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from vivace.lora.architecture import Architecture, qwen_image, z_image
from vivace.svdquant.checkpoint import Checkpoint, PlacedLayer, describe, read_checkpoint
from vivace.svdquant.convert import convert_awq, convert_svdq, planar_modulation
from vivace.svdquant.errors import CheckpointError
from vivace.svdquant.packing import unpack_nibbles
from vivace.tests.svdquant.checkpoints import Built, build, stock_weights
from vivace.tests.svdquant.nunchaku_double import GELU_SHIFT

QWEN = qwen_image(depth=2, hidden=256, head=128, text=48, latent=64)
Z_IMAGE = z_image(depth=2, refiners=1, hidden=256, ffn=384, head=128, text=48, latent=64)


def sketch(
    architecture: Architecture = Z_IMAGE, rank: int = 32, dtype: torch.dtype = torch.bfloat16,
    *, skip_refiners: bool = False,
) -> Built:  # fmt: skip
    """A checkpoint without values."""
    weights = stock_weights(architecture, dtype, "meta")
    return build(architecture, weights, rank, skip_refiners=skip_refiners)


def described(built: Built) -> Checkpoint:
    return describe(built.header(), "model.safetensors")


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
    assert len(checkpoint.of_kind("svdq")) == (480 if qwen else 136)
    assert len(checkpoint.of_kind("awq")) == (120 if qwen else 0)
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
    names = {placed.layer.name for placed in checkpoint.of_kind("svdq")}
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
    for placed in read_checkpoint(path).layers:
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


def quantization(**change: object) -> Callable[[Built], None]:
    def edit(built: Built) -> None:
        value = {**json.loads(built.metadata["quantization_config"]), **change}
        built.metadata["quantization_config"] = json.dumps(value)

    return edit


def metadata(name: str, value: str | None) -> Callable[[Built], None]:
    def edit(built: Built) -> None:
        built.metadata.pop(name, None)
        if value is not None:
            built.metadata[name] = value

    return edit


def without(*names: str) -> Callable[[Built], None]:
    def edit(built: Built) -> None:
        for name in names:
            del built.tensors[name]

    return edit


def with_tensor(
    name: str, *shape: int, dtype: torch.dtype = torch.bfloat16
) -> Callable[[Built], None]:
    def edit(built: Built) -> None:
        built.tensors[name] = torch.empty(shape, dtype=dtype, device="meta")

    return edit


def renamed(old: str, new: str) -> Callable[[Built], None]:
    def edit(built: Built) -> None:
        built.tensors = {name.replace(old, new): t for name, t in built.tensors.items()}

    return edit


Q0 = "layers.0.attention.to_qkv"
INT4 = {"dtype": "int4", "group_size": 64}
REFUSALS = [
    (quantization(weight={"dtype": "fp4_e2m1_all", "group_size": 16}), "its weights are nvfp4"),
    (quantization(weight={"dtype": "int8"}), "quantized to 'int8', not to int4"),
    (quantization(weight=None), "quantized to None, not to int4"),
    (quantization(weight={**INT4, "group_size": 128}), "groups of 128 inputs, not 64"),
    (quantization(method="awq"), "by the method 'awq', not by svdquant"),
    (quantization(rank=40), "rank 40 is not one of 32, 128, 256, or any multiple of 16 to 1024"),
    (quantization(rank=2048), "rank 2048 is not one of"),
    (quantization(rank="32"), "rank '32' is not one of"),
    (quantization(rank=128), f"layer {Q0} has rank 32, and the metadata says 128"),
    (quantization(skip_refiners=1), "skip_refiners is 1, neither true nor false"),
    (
        quantization(skip_refiners=True),
        "layer noise_refiner.0.attention.to_qkv is an SVDQuant layer, but must be a plain layer",
    ),
    (metadata("quantization_config", None), "its metadata has no quantization_config"),
    (metadata("quantization_config", "[]"), "'quantization_config' is not a JSON object"),
    (metadata("config", "{"), "'config' is not a JSON object"),
    (metadata("config", "[" * 100_000), "'config' is not a JSON object"),
    (
        metadata("config", '{"_class_name": "QwenImageTransformer2DModel"}'),
        "layers are those of Z-Image, but it says it is a QwenImageTransformer2DModel",
    ),
    (metadata("config", '{"n_layers": 30}'), "2 blocks in layers, and its config says 30"),
    (
        renamed("layers.0.attention.to_qkv", "layers.0.attention.other"),
        "a ZImageTransformer2DModel, not a Qwen-Image or Z-Image",
    ),
    (with_tensor(f"{Q0}.wcscales", 768), f"layer {Q0} has a wcscales, so it is nvfp4"),
    (with_tensor(f"{Q0}.wtscale"), f"layer {Q0} has a wtscale, so it is nvfp4"),
    (without(f"{Q0}.proj_up", f"{Q0}.wscales"), f"layer {Q0} has no proj_up, wscales"),
    (with_tensor(f"{Q0}.weight", 768, 256), f"{Q0} has a weight that it should not have"),
    (with_tensor(f"{Q0}.bias", 768), f"layer {Q0} has a bias too many"),
    (without("all_x_embedder.2-1.bias"), "layer all_x_embedder.2-1 has no bias"),
    (with_tensor(f"{Q0}.proj_up", 768, 48), r"has a proj_up \[768, 48\], not \[768, 32\]"),
    (with_tensor(f"{Q0}.proj_down", 256, 24), "has rank 24, not a multiple of 16"),
    (with_tensor(f"{Q0}.proj_down"), "has rank 0, not a multiple of 16"),
    (with_tensor(f"{Q0}.wscales", 16, 768), r"has a wscales \[16, 768\], not \[4, 768\]"),
    (
        with_tensor(f"{Q0}.smooth_factor", 256, dtype=torch.float16),
        "has a smooth_factor in F16, but wscales in BF16",
    ),
    (
        with_tensor(f"{Q0}.wscales", 4, 768, dtype=torch.int8),
        "has scales in I8; int4 layers have them in BF16 or F16",
    ),
    (
        with_tensor(f"{Q0}.qweight", 768, 128, dtype=torch.int32),
        r"has a qweight I32 \[768, 128\], not I8",
    ),
    (
        with_tensor(f"{Q0}.qweight", 700, 128, dtype=torch.int8),
        "has 700 outputs and 256 inputs, not multiples of 128",
    ),
    (
        with_tensor("x_pad_token", 1, 256, dtype=torch.int8),
        "layer x_pad_token is in I8; supported are BF16, F16 and F32",
    ),
    (
        with_tensor("cap_embedder.1.bias", 7),
        r"layer cap_embedder.1 has a weight \[256, 48\] and a bias \[7\]",
    ),
    (with_tensor("cap_embedder.0.weight", 5), r"layer cap_embedder.0 is \[5\], not \[48\]"),
    (with_tensor("mystery", 5), "layer mystery is in no Z-Image"),
    (with_tensor("layers.0.attention.mystery.weight", 5), "attention.mystery is in no Z-Image"),
    (without("x_pad_token"), "incomplete: nothing, or too little, for x_pad_token"),
    (
        without("cap_embedder.1.weight", "cap_embedder.1.bias"),
        "there is no linear layer cap_embedder.1",
    ),
    (without("layers.0.attention.norm_q.weight"), "there is no norm layers.0.attention.norm_q"),
    (
        renamed("layers.1.", "layers.2."),
        "incomplete: the blocks in layers are not numbered from 0 without gaps",
    ),
    (
        renamed("context_refiner.0.", "layers.2."),
        "1 blocks in noise_refiner and 0 in context_refiner",
    ),
    (
        with_tensor("layers.0.attention.q_norm.weight", 128),
        "layers.0.attention.q_norm is there twice",
    ),
]


@pytest.mark.parametrize(("edit", "message"), REFUSALS)
def test_refusals_say_what_is_wrong(edit: Callable[[Built], None], message: str) -> None:
    built = sketch()
    edit(built)
    with pytest.raises(CheckpointError, match=message) as caught:
        described(built)
    text = str(caught.value)
    assert text.startswith("model.safetensors: ")
    assert "Supported are int4 SVDQuant checkpoints of Qwen-Image and Z-Image" in text


def test_qwen_image_refusals() -> None:
    block = "transformer_blocks.0"
    weight, bias = (f"{block}.img_mod.1.{name}" for name in ("weight", "bias"))
    plain = sketch(QWEN)
    for name in ("qweight", "wscales", "wzeros"):
        del plain.tensors[f"{block}.img_mod.1.{name}"]
    plain.tensors[weight] = torch.empty(1536, 256, dtype=torch.bfloat16, device="meta")
    assert bias in plain.tensors
    message = "transformer_blocks.0.img_mod.1 is a plain layer, but must be an AWQ layer"
    with pytest.raises(CheckpointError, match=message):
        described(plain)
    twice = sketch(QWEN)
    for name, tensor in list(twice.tensors.items()):
        if name.startswith(f"{block}.attn.to_out.0."):
            twice.tensors[name.replace("to_out.0", "to_q")] = tensor
    with pytest.raises(CheckpointError, match=r"attn\.to_q is there twice, once as"):
        described(twice)
    mixed = sketch(QWEN)
    for name, tensor in list(mixed.tensors.items()):
        if name.startswith(f"{block}.txt_mod.1.") and tensor.dtype == torch.bfloat16:
            mixed.tensors[name] = tensor.half()
    with pytest.raises(CheckpointError, match=r"different dtypes, \['BF16', 'F16'\]"):
        described(mixed)
    odd = sketch(QWEN)
    odd.tensors[f"{block}.txt_mod.1.qweight"] = torch.empty(
        384, 144, dtype=torch.int32, device="meta"
    )
    with pytest.raises(CheckpointError, match=r"txt_mod\.1 has 288 inputs, not a multiple of 64"):
        described(odd)


def test_a_separate_key_next_to_a_fused_layer() -> None:
    built = sketch(skip_refiners=True)
    name = "noise_refiner.0.attention.to_{}.weight"
    built.tensors[name.format("qkv")] = torch.empty(768, 256, dtype=torch.bfloat16, device="meta")
    del built.tensors[name.format("q")]
    with pytest.raises(CheckpointError, match=r"same module: noise_refiner.0.attention.qkv"):
        described(built)


def test_what_the_metadata_may_leave_out() -> None:
    built = sketch()
    quantization(rank=32)(built)
    value = json.loads(built.metadata["quantization_config"])
    del value["rank"]
    built.metadata = {"quantization_config": json.dumps(value)}
    checkpoint = described(built)
    assert checkpoint.quantization.rank == 32
    assert checkpoint.config == {}


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match=r"cannot be read \(No such file") as caught:
        read_checkpoint(path)
    assert str(caught.value).endswith("Check the name and the permissions")
    path.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="not a valid safetensors file: only 6 bytes"):
        read_checkpoint(path)
    save_file({"lora_A.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match="not a Nunchaku checkpoint"):
        read_checkpoint(path)


def test_the_error_survives_pickling() -> None:
    error = CheckpointError("model.safetensors", "is odd")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.path, again.problem) == (str(error), error.path, error.problem)


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys, vivace.svdquant as s; s.read_checkpoint; s.CheckpointError;"
        " sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
