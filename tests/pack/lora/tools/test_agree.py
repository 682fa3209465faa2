"""What inspects, checks, lists and applies LoRAs says the same of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import write
from vivace.byte_lru import ByteLru
from vivace.lora.errors import LoraError
from vivace.lora.examine import inspect
from vivace.lora.info import lora_info
from vivace.lora.loader import load_lora
from vivace.lora.mapping.supported_models import standard
from vivace.lora.tools.check import check_folder

A = "transformer_blocks.0.attn.to_q"
SIZES = {
    "Qwen-Image": ({A: (3072, 3072), "transformer_blocks.0.txt_mlp.net.2": (3072, 12288)}, {}),
    "Qwen-Image-2.1": (
        {A: (4096, 4096), "transformer_blocks.0.img_mlp.gate_up": (24576, 4096)},
        {},
    ),
    "Z-Image": ({"layers.0.attention.to_v": (3840, 3840)}, {}),
    "Krea 2": ({A: (6144, 6144)}, {}),
    "FLUX by name": ({A: (3072, 3072), "transformer_blocks.0.norm1.linear": (18432, 3072)}, {}),
    "FLUX by label": ({A: (3072, 3072)}, {"modelspec.architecture": "Flux.1-dev/lora"}),
    "nothing known": ({"blocks.0.attn.q": (64, 64)}, {}),
    "nothing that can be applied": ({f"{A}.vera": (3072, 3072)}, {}),
}


@pytest.mark.parametrize("case", SIZES)
def test_all_say_the_same_of_a_file(case: str, tmp_path: Path) -> None:
    sizes, labels = SIZES[case]
    tensors: dict[str, torch.Tensor] = {}
    for stem, (out, inp) in sizes.items():
        tensors[f"{stem}.lora_A.weight"] = torch.zeros(1, inp, dtype=torch.float16)
        tensors[f"{stem}.lora_B.weight"] = torch.zeros(out, 1, dtype=torch.float16)
    path = write(tmp_path / "a.safetensors", tensors, labels or None)
    report = inspect(path)
    titles = {model.name: model.title for model in standard()}
    wanted = "Qwen-Image" if case == "nothing that can be applied" else case
    assert titles.get(report.architecture or "") == (wanted if wanted in titles.values() else None)
    info = lora_info(path)
    assert info.architecture == titles.get(report.architecture or "")
    assert (info.modules, info.modules_total) == (report.modules_matched, report.modules_total)
    for model in titles:
        (checked,) = check_folder(tmp_path, model).files
        assert checked.architecture == report.architecture
        usable = report.architecture == model and report.modules_matched > 0
        assert (checked.problem is None) == usable
    if not report.modules_matched:
        with pytest.raises(LoraError) as caught:
            load_lora(path, cache=ByteLru(0))
        assert (report.refusal or "none of its") in str(caught.value)
        return
    lora = load_lora(path, cache=ByteLru(0))
    assert (lora.architecture.name, lora.report) == (report.architecture, report)
