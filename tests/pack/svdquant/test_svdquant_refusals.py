"""What a checkpoint must hold, each want of it said in the refusal, and what it may leave out."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.svdquant_sketches import QWEN, described, sketch
from vivace.devkit.doubles.svdquant_checkpoints import Built
from vivace.svdquant.errors import CheckpointError
from vivace.svdquant.reader import CheckpointFile


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
    with pytest.raises(CheckpointError, match="no such file") as caught:
        CheckpointFile(path)
    assert "Choose a checkpoint in a diffusion_models folder" in str(caught.value)
    path.write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="this is a web page"):
        CheckpointFile(path)
    save_file({"lora_A.weight": torch.zeros(4, 4)}, path)
    with pytest.raises(CheckpointError, match="not a Nunchaku checkpoint"):
        CheckpointFile(path)


def test_the_error_survives_pickling() -> None:
    error = CheckpointError("model.safetensors", "is odd")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(again), again.path, again.problem) == (str(error), error.path, error.problem)
