"""LoRAs for other models are told apart from those for ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.lora_samples import write
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraError, LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.loader import load_lora


def shapes_file(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    tensors = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    return write(path, tensors, {k.replace("__", "."): v for k, v in metadata.items()} or None)


def pair(stem: str, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    return {f"{stem}.lora_A.weight": (2, inp), f"{stem}.lora_B.weight": (out, 2)}


FOREIGN = {
    "Lumina 2": (
        pair("layers.0.attention.qkv", 4608, 2304) | pair("layers.0.feed_forward.w1", 6144, 2304),
        {},
        "Lumina-Image 2",
    ),
    "Lumina 2 LoKr": (
        {"layers.0.attention.out.lokr_w1": (48, 48), "layers.0.attention.out.lokr_w2": (48, 48)},
        {},
        "Lumina-Image 2",
    ),
    "Ideogram by width": (pair("layers.0.feed_forward.w1", 12288, 4608), {}, "Ideogram 4"),
    "Ideogram by name": (
        pair("layers.0.attention.qkv", 9, 9) | pair("layers.0.attention.o", 9, 9),
        {},
        "Ideogram 4",
    ),
    "Qwen-Image with a name of 2.1": (
        pair("transformer_blocks.0.txt_mlp.net.2", 3072, 12288)
        | pair("transformer_blocks.0.img_mlp.gate_layer", 9216, 3072),
        {},
        "contradict",
    ),
    "Mage Flow by metadata": (
        pair("transformer_blocks.0.attn.to_q", 3072, 3072),
        {"ss_base_model_version": "mageflow"},
        "Mage Flow",
    ),
    "Mage Flow by rows": (
        pair("transformer_blocks.0.attn.to_q", 3072, 3072) | pair("proj_out", 128, 3072),
        {},
        "Mage Flow",
    ),
    "Mage Flow by inputs": (pair("txt_in", 3072, 2560), {}, "Mage Flow"),
    "FLUX": (
        pair("transformer.transformer_blocks.0.attn.to_q", 3072, 3072)
        | pair("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072),
        {},
        "FLUX",
    ),
    "SD3": (pair("transformer_blocks.0.attn.to_q", 1536, 1536), {}, "Stable Diffusion 3"),
    "SDXL": (
        pair("lora_unet_down_blocks_1_attentions_0_proj_in", 640, 640),
        {},
        "no supported model",
    ),
    "text encoder": (pair("text_encoder.layers.0.mlp", 8, 8), {}, "text encoder"),
    "no tensors": ({}, {}, "no module"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_lora_for_another_model(case: str, tmp_path: Path) -> None:
    shapes, metadata, reason = FOREIGN[case]
    path = shapes_file(tmp_path / "a.safetensors", shapes, **metadata)
    report = inspect(path)
    assert report.architecture is None
    assert report.refusal is not None
    assert reason in report.refusal
    assert {entry.status for entry in report.keys} <= {"unmatched", "ignored"}
    assert all(entry.reason for entry in report.keys)
    with pytest.raises(LoraModelError, match=reason):
        load_lora(path, cache=ByteLru(2**20))


@pytest.mark.parametrize(
    ("shapes", "metadata", "architecture"),
    [
        (pair("transformer_blocks.0.attn.to_q", 3072, 3072), {}, "qwen_image"),
        (
            pair("transformer_blocks.0.img_mod.1", 18432, 3072),
            {"modelspec__architecture": "Qwen-Image-Edit-2511/lora"},
            "qwen_image",
        ),
        (
            pair("layers.0.attention.to_q", 3840, 3840) | pair("layers.0.attention.z", 8, 8),
            {"ss_base_model_version": "zimage"},
            "z_image",
        ),
        (pair("layers.0.adaLN_modulation.0", 15360, 256), {}, "z_image"),
        (pair("time_text_embed.addition_t_embedding", 2, 3072), {}, "qwen_image"),
    ],
)
def test_supported_models_are_not_refused(
    shapes: dict, metadata: dict, architecture: str, tmp_path: Path
) -> None:
    path = shapes_file(tmp_path / "a.safetensors", shapes, **metadata)
    report = inspect(path)
    assert (report.architecture, report.refusal) == (architecture, None)
    assert load_lora(path, cache=ByteLru(2**24)).architecture.name == architecture


def test_refused_file_message_is_one_sentence_with_the_name(tmp_path: Path) -> None:
    path = shapes_file(tmp_path / "a.safetensors", FOREIGN["SD3"][0])
    with pytest.raises(LoraError) as caught:
        load_lora(path)
    assert str(caught.value).startswith(str(path))
    json.dumps(str(caught.value))


def test_fitting_width_outweighs_a_lumina_label(tmp_path: Path) -> None:
    shapes = pair("layers.0.attention.out", 3840, 3840)
    labelled = shapes_file(
        tmp_path / "a.safetensors", shapes, modelspec__architecture="lumina2/lora"
    )
    assert inspect(labelled).architecture == "z_image"
