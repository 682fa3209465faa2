"""LoRAs on SVDQuant models: what they add, on every kind of layer and in whole models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import apply, lora_file, reference, relative_error
from vivace.devkit.doubles import svdquant_models as small
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

D = tiny.QWEN_DIM
MODULES = {
    "qwen_image": {
        "transformer_blocks.0.attn.to_q": (D, D),
        "transformer_blocks.0.attn.to_v": (D, D),
        "transformer_blocks.1.attn.add_k_proj": (D, D),
        "transformer_blocks.1.attn.to_out.0": (D, D),
        "transformer_blocks.0.img_mlp.net.0.proj": (4 * D, D),
        "transformer_blocks.0.img_mlp.net.2": (D, 4 * D),
        "transformer_blocks.1.txt_mod.1": (6 * D, D),
        "img_in": (D, 64),
    },
    "z_image": {
        "layers.0.attention.to_k": (D, D),
        "layers.1.attention.to_out.0": (D, D),
        "layers.1.feed_forward.w1": (512, D),
        "layers.0.feed_forward.w2": (D, 512),
        "noise_refiner.0.feed_forward.w3": (512, D),
        "context_refiner.0.attention.to_q": (D, D),
        "layers.1.adaLN_modulation.0": (4 * D, 256),
    },
}
MAKERS: dict[str, Callable[[str], Any]] = {
    "kitchen": small.kitchen,
    "nunchaku": small.nunchaku,
    "nunchaku, offloaded": lambda family: small.nunchaku(family, offload=True),
}
CASES = [
    (f, k) for f in small.FAMILIES for k in MAKERS if (f, k) != ("z_image", "nunchaku, offloaded")
]


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_a_stack_adds_exactly_its_deltas(family: str, kind: str, tmp_path: Path) -> None:
    first, one = lora_file(tmp_path / "one.safetensors", MODULES[family], rank=4, seed=1)
    half = dict(list(MODULES[family].items())[::2])
    second, two = lora_file(tmp_path / "two.safetensors", half, rank=20, alpha=None, seed=2)
    wanted = reference(lambda _: small.kitchen(family), "", [(one, 0.8), (two, -0.5)], steps=1)
    model = MAKERS[kind](family)
    base = small.sample(model)
    got = small.sample(apply(model, (first, 0.8), (second, -0.5)))
    assert relative_error(base, wanted) > 1e-3
    assert relative_error(got, wanted) < 1e-5
    assert torch.equal(small.sample(model), base)
