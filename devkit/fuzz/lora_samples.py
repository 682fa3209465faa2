"""Good LoRA files of every family, small, as descriptions of `valued_files`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ...lora.mapping.supported_models import qwen_image, qwen_image_21, z_image

ARCHITECTURES = (
    qwen_image(depth=2, hidden=32, head=8, text=24, latent=16),
    qwen_image_21(depth=2, hidden=48, ffn=64, head=8, text=24, latent=16),
    z_image(depth=2, refiners=1, hidden=32, ffn=48, head=8, text=24, latent=16),
)
_QWEN, _Z = "transformer_blocks", "layers"
Tensors = dict[str, list[Any]]


def _lora(
    stem: str, out: int = 32, inp: int = 32, rank: int = 2, seed: int = 1, kind: str = "peft",
    dtype: str = "F32",
) -> Tensors:  # fmt: skip
    down, up = _SPELLED[kind]
    return {
        f"{stem}.{down}": [dtype, [rank, inp], seed, 0.5],
        f"{stem}.{up}": [dtype, [out, rank], seed + 1, 0.5],
    }


_SPELLED = {
    "peft": ("lora_A.weight", "lora_B.weight"),
    "kohya": ("lora_down.weight", "lora_up.weight"),
    "bare": ("lora_A", "lora_B"),
    "diffusers": ("lora.down.weight", "lora.up.weight"),
    "old diffusers": ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    "attention processors": ("_lora.down.weight", "_lora.up.weight"),
    "one": ("lora_A.one.weight", "lora_B.one.weight"),
    "two": ("lora_A.two.weight", "lora_B.two.weight"),
}


def _number(value: float, dtype: str = "F32") -> list[Any]:
    return [dtype, [], 0, value]


def _plain() -> Iterator[Tensors]:
    block = f"transformer.{_QWEN}.0"
    yield {
        **_lora(f"{block}.attn.to_q"),
        **_lora(f"{block}.img_mlp.net.2", 32, 128, 4, 3, dtype="BF16"),
        f"{block}.img_mlp.net.2.lora_B.bias": ["F32", [32], 5, 0.5],
        f"{block}.img_mlp.net.2.lora_A.bias": ["F32", [4], 6, 0.5],
    }
    block = f"lora_unet_{_Z}_1"
    names = [(f"{block}_attention_to_q", 32), (f"{block}_feed_forward_w1", 48)]
    yield {
        key: value
        for stem, out in names
        for key, value in {**_lora(stem, out, kind="kohya"), f"{stem}.alpha": _number(1)}.items()
    }
    block = f"diffusion_model.{_Z}.0"
    yield {
        **_lora(f"{block}.attention.to_v", kind="diffusers"),
        **_lora(f"{block}.attention.out", kind="old diffusers", dtype="F16"),
        **_lora(f"{block}.attention.to_out.0", kind="old diffusers", dtype="F16"),
        **_lora(f"{block}.feed_forward.w2", 32, 48, kind="bare", dtype="F64"),
        f"{block}.feed_forward.w2.lora_scaling": _number(0.5),
    }
    block = f"{_QWEN}.1"
    old = _lora(f"{block}.attn.processor.to_k", kind="attention processors")
    yield {
        **{key.replace("._lora", "_lora"): value for key, value in old.items()},
        **_lora(f"{block}.txt_mlp.net.0.proj", 128, kind="kohya"),
        f"{block}.txt_mlp.net.0.proj.lora_mid.weight": ["F32", [2, 2, 1, 1], 7, 0.5],
        f"{block}.txt_mlp.net.0.proj.alpha": _number(3, "I64"),
        "text_encoder.layers.0.self_attn.q_proj.lora_A.weight": ["F32", [2, 4]],
    }
    block = f"base_model.model.{_QWEN}.1"
    yield {
        **_lora(f"{block}.img_mlp.gate_layer", 64, 48),
        **_lora(f"{block}.attn.to_k", 48, 48, kind="kohya", seed=4),
    }


def _products() -> Iterator[Tensors]:
    for stem, alpha in ((f"lycoris_{_Z}_0_feed_forward_w3", True), (f"{_QWEN}.0.attn.to_v", False)):
        out = 48 if alpha else 32
        sides = {"w1_a": [out, 2], "w1_b": [2, 32], "w2_a": [out, 3], "w2_b": [3, 32]}
        loha = {f"{stem}.hada_{n}": ["F32", s, 10 + i] for i, (n, s) in enumerate(sides.items())}
        more = {"alpha": _number(1)} if alpha else {"dora_scale": ["F32", [1, 32], 14, 3.0]}
        yield {**loha, **{f"{stem}.{role}": value for role, value in more.items()}}
    for sides, alpha in (
        ({"w1": [4, 4], "w2_a": [8, 2], "w2_b": [2, 8]}, 4.0),
        ({"w1_a": [4, 2], "w1_b": [2, 8], "w2_a": [8, 1], "w2_b": [1, 4]}, 2.0),
        ({"w1": [2, 8], "w2": [16, 4]}, 1e10),
    ):
        stem = f"lycoris_{_QWEN}_0_attn_add_k_proj"
        lokr = {f"{stem}.lokr_{n}": ["F32", s, 20 + i] for i, (n, s) in enumerate(sides.items())}
        yield {**lokr, f"{stem}.alpha": _number(alpha)}
    stem = f"{_QWEN}.1.attn.to_qkv"
    parts = [f"{end}.{i}.weight" for i in range(3) for end in ("lora_down", "lora_up")]
    shapes = ([2, 32], [32, 2])
    numbered = {f"{stem}.{n}": ["F32", shapes[i % 2], 30 + i] for i, n in enumerate(parts)}
    yield {**numbered, f"{stem}.alpha": _number(1)}


def _relative() -> Iterator[Tensors]:
    block = f"{_QWEN}.0"
    yield {
        **_lora(f"{block}.attn.to_q"),
        f"{block}.attn.to_q.lora_magnitude_vector.weight": ["F32", [32], 0, 4.0],
        **_lora(f"{block}.attn.add_qkv_proj", 96),
        f"{block}.attn.add_qkv_proj.dora_scale": ["F32", [96, 1], 0, 5.0],
        **_lora(f"{block}.img_mlp.net.2", 32, 128, kind="kohya"),
        f"{block}.img_mlp.net.2.dora_scale": ["F32", [1, 128], 41, 5.0],
        f"{block}.img_mlp.net.2.alpha": _number(1),
    }
    block = f"lycoris_{_Z}_1_attention"
    yield {
        **{f"{block}_out.{n}.weight": ["F32", s, 50 + i, 0.3] for i, (n, s) in enumerate(
            {"a1": [32, 2], "a2": [2, 32], "b1": [32, 2], "b2": [2, 32]}.items())},
        f"{block}_out.alpha": _number(1),
        f"{block}_to_q.weight": ["F32", [32], 54, 0.3],
        f"{block}_to_q.on_input": _number(1, "I64"),
        f"{block}_to_k.weight": ["F32", [32], 55, 0.3],
        f"{block}_to_k.on_input": _number(0, "I64"),
        f"{_Z}.0.feed_forward.w1.ia3_l": ["F32", [48, 1], 56],
        f"{_Z}.0.feed_forward.w2.ia3_l": ["F32", [1, 48], 57],
    }  # fmt: skip
    block = f"{_QWEN}.1.attn"
    yield {
        f"{block}.to_q.oft_blocks": ["F32", [8, 4, 4], 60, 0.2],
        f"{block}.to_q.alpha": _number(0.001),
        f"{block}.to_k.oft_blocks": ["BF16", [2, 4, 8, 8], 61, 0.2],
        f"{block}.to_k.rescale": ["F32", [32, 1], 62],
    }


def _full() -> Iterator[Tensors]:
    yield {
        f"{_Z}.0.attention_norm1.w_norm": ["F32", [32], 70],
        f"{_Z}.0.adaLN_modulation.0.diff_b": ["F32", [128], 71],
        f"{_Z}.1.attention.qkv.diff": ["BF16", [96, 32], 72],
        "x_pad_token.diff": ["F32", [1, 32], 73],
        **_lora(f"{_Z}.1.attention.out"),
        f"{_Z}.1.attention.out.diff": ["F32", [32, 32, 1, 1], 74],
    }
    stem = f"diffusion_model.{_QWEN}.0.txt_mod.1"
    yield {
        **_lora(stem, 192, kind="kohya"), f"{stem}.alpha": _number(4),
        f"{stem}.lora_up.bias": ["F32", [192], 75], f"{stem}.diff_b": ["F32", [192], 76],
    }  # fmt: skip


def _scaled() -> Iterator[Tensors]:
    stem = f"{_QWEN}.0.attn.to_q"
    yield {
        f"{stem}.lora_down.weight": ["I8", [4, 32], 80, 40.0],
        f"{stem}.lora_up.weight": ["I8", [32, 4], 81, 40.0],
        f"{stem}.lora_down.scale_weight": ["F32", [4, 1], 82, 0.01],
        f"{stem}.lora_up.scale_weight": _number(0.02), f"{stem}.alpha": _number(2),
    }  # fmt: skip
    stem = f"{_Z}.0.feed_forward.w13"
    yield {
        f"{stem}.lora_A.weight": ["F8_E4M3", [4, 32], 83, 100.0],
        f"{stem}.lora_B.weight": ["F8_E5M2", [96, 4], 84],
        f"{stem}.lora_A.weight.scale": ["F32", [1], 0, 0.004],
        f"{stem}.lora_B.weight_scale": ["BF16", [96], 85],
    }


def _repeated() -> Iterator[Tensors]:
    """One module in several spellings that say the same, in slots, and beside zeros."""
    block = f"{_QWEN}.0.attn"
    split: Tensors = {}
    for i, part in enumerate("qkv"):
        down, up = _lora(f"{block}.to_{part}", seed=90).items()
        split |= {down[0]: down[1], up[0]: [*up[1], 64 * i]}
    yield {**_lora(f"{block}.to_qkv", 96, seed=90), **split}
    one, two = (_lora(f"{block}.to_k", seed=92, kind=kind) for kind in ("one", "two"))
    yield {**one, **two}
    stem = f"{_Z}.0.attention"
    zero = {key: [*value[:3], 0] for key, value in _lora(f"{stem}.qkv", 96, seed=94).items()}
    yield {**zero, **_lora(f"{stem}.to_q", seed=96), **_lora(f"lora_unet_{_Z}_0_attention_to_k")}
    yield {**_lora(f"{stem}.out"), **_lora(f"transformer.{stem}.to_out.0", kind="kohya")}


def _stated() -> Iterator[dict[str, Any]]:
    stem = f"transformer.{_QWEN}.0.attn.to_q"
    both = {**_lora(stem, rank=4), **_lora(stem.replace("to_q", "to_k"))}
    fields = {
        "transformer.r": 4, "transformer.lora_alpha": 2, "transformer.use_rslora": True,
        "transformer.rank_pattern": {"attn.to_k": 2}, "transformer.alpha_pattern": {".*to_k": 5},
    }  # fmt: skip
    yield {"metadata": {"lora_adapter_metadata": json.dumps(fields)}, "tensors": both}
    yield {"metadata": {"lora_alpha": "1", "lora_rank": "2"}, "tensors": _lora(stem)}
    fields = {"peft_type": "LORA", "r": 2, "lora_alpha": 3}
    yield {"metadata": None, "config": json.dumps(fields), "tensors": _lora(stem)}
    fields = {"peft_type": "ADALORA", "init_r": 6, "lora_alpha": 9}
    tensors = {**_lora(stem, kind="bare"), f"{stem}.lora_E": ["F32", [2, 1], 100]}
    yield {"metadata": {"lora_adapter_metadata": json.dumps(fields)}, "tensors": tensors}
    fields = {"peft_type": "LOKR", "r": 8, "alpha": 4}
    tensors = {f"{stem}.lokr_w1": ["F32", [4, 4], 101], f"{stem}.lokr_w2": ["F32", [8, 8], 102]}
    yield {"metadata": None, "config": json.dumps(fields), "tensors": tensors}


def samples() -> list[dict[str, Any]]:
    """A description for each family, spelling and way to state a scale."""
    found: list[dict[str, Any]] = []
    for family in (_plain, _products, _relative, _full, _scaled, _repeated):
        found += [{"metadata": {}, "tensors": tensors} for tensors in family()]
    return [*found, *_stated()]
