"""What the label of a file says, and when it decides which model the file is for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.other_model_reports import ONE_BLOCK, VERSION, Look, applied, attention_of, looked_at
from support.other_models import tensors, write_hollow
from vivace.lora.mapping.other_models import model_of_label

FOREIGN = {
    "Flux.1-dev/lora": "FLUX.1",
    "FLUX.1-DEV/LORA": "FLUX.1",
    "Flux": "FLUX.1",
    "flux_kontext": "FLUX.1",
    "networks.lora_flux": "FLUX.1",
    "networks.oft_flux": "FLUX.1",
    "FLUX_1_dev": "FLUX.1",
    "  flux.1 ": "FLUX.1",
    "flux2_klein_4b": "FLUX.2",
    "flux2_klein_9b": "FLUX.2",
    "Flux.2 Klein 9B": "FLUX.2",
    "black-forest-labs/FLUX.1-dev": "FLUX.1",
    "black-forest-labs/FLUX.2-klein-4B": "FLUX.2",
    "krea/FLUX.1-Krea-dev": "FLUX.1",
    "models--black-forest-labs--FLUX.1-dev": "FLUX.1",
    "models--black-forest-labs--FLUX.1-dev/snapshots/0a1b2c": "FLUX.1",
    "/models/qwen-image/flux1-dev.safetensors": "FLUX.1",
    "D:\\wan\\flux1-dev.safetensors": "FLUX.1",
    "/home/ming/FLUX.1-dev/transformer": "FLUX.1",
    "FluxTransformer2DModel": "FLUX.1",
    "Flux2Transformer2DModel": "FLUX.2",
    "ostris/Flex.1-alpha": "FLUX.1",
    "lodestones/Chroma1-HD": "Chroma",
    "ChromaTransformer2DModel": "Chroma",
    "Mage-Flow-Edit/lora": "Mage Flow",
    "MageFlowTransformer2DModel": "Mage Flow",
    "AIDC-AI/Ovis-Image-7B": "Ovis-Image",
    "OvisImageTransformer2DModel": "Ovis-Image",
    "meituan-longcat/LongCat-Image": "LongCat-Image",
    "LongCatImageTransformer2DModel": "LongCat-Image",
    "briaai/FIBO": "Bria",
    "BriaFiboTransformer2DModel": "Bria",
    "tencent/HunyuanVideo": "HunyuanVideo",
    "HunyuanVideoTransformer3DModel": "HunyuanVideo",
    "lllyasviel/FramePackI2V_HY": "FramePack",
    "networks.lora_framepack": "FramePack",
    "Motif-Technologies/Motif-Video-2B": "Motif-Video",
}
OWN = {
    "qwen_image": "Qwen-Image",
    "Qwen-Image-Edit-2511/lora": "Qwen-Image",
    "QWEN_IMAGE_EDIT": "Qwen-Image",
    "qwen_image:2512": "Qwen-Image",
    "Qwen/Qwen-Image-Edit": "Qwen-Image",
    "models--Qwen--Qwen-Image/snapshots/0a1b2c": "Qwen-Image",
    "/home/flux/models/Qwen-Image/transformer": "Qwen-Image",
    "C:\\flux\\qwen_image_bf16.safetensors": "Qwen-Image",
    "networks.lora_qwen_image": "Qwen-Image",
    "QwenImageTransformer2DModel": "Qwen-Image",
    "qwen_image_2": "Qwen-Image-2.1",
    "Qwen-Image-2.1/lora": "Qwen-Image-2.1",
    "networks.lora_qwen_image_21": "Qwen-Image-2.1",
    "QwenImage21Transformer2DModel": "Qwen-Image-2.1",
    "Z-image turbo": "Z-Image",
    "/home/ming/Z-Image-Turbo": "Z-Image",
    "ZImageTransformer2DModel": "Z-Image",
}


@pytest.mark.parametrize("text", {**FOREIGN, **OWN})
def test_what_a_label_means(text: str) -> None:
    assert model_of_label(text) == {**FOREIGN, **OWN}[text]


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_label_decides_where_nothing_else_does(text: str, look: Look) -> None:
    adapter = json.dumps({"transformer.auto_mapping": {"base_model_class": text}})
    repository = json.dumps({"transformer.base_model_name_or_path": text})
    headers = [
        {VERSION: text},
        {"modelspec.architecture": text},
        {"ss_network_module": text},
        {"lora_adapter_metadata": adapter},
        {"lora_adapter_metadata": repository},
    ]
    assert applied((header, look(ONE_BLOCK, header)) for header in headers) == []


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        ({"base_model_name_or_path": "black-forest-labs/FLUX.1-dev"}, "made for FLUX.1"),
        ({"auto_mapping": {"base_model_class": "ChromaTransformer2DModel"}}, "made for Chroma"),
        ({"base_model_name_or_path": "Qwen/Qwen-Image"}, None),
    ],
)
def test_the_configuration_beside_an_adapter_is_a_label(
    config: dict, refusal: str | None, tmp_path: Path
) -> None:
    stated = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, **config}
    (tmp_path / "adapter_config.json").write_text(json.dumps(stated), encoding="utf-8")
    linears = attention_of("FLUX.1 dev", [0])
    path = write_hollow(tmp_path / "adapter_model.safetensors", tensors(linears, "PEFT"))
    report = looked_at(path)
    assert report.architecture == (None if refusal else "qwen_image")
    assert report.notes == ()
    assert (refusal or "") in (report.refusal or "")
