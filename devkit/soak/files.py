"""Small models and LoRAs that a soak runs with, random but the same each time."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..doubles.demo_models import ensure_models, import_comfy
from ..rig.layout import MODELS

if TYPE_CHECKING:
    from torch import Tensor

QUANTIZED_FILE = "vivace-test-svdq-int4_r32-qwen-image.safetensors"
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
BROKEN = "soak-broken.safetensors"
QWEN_MODULES = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0", "attn.add_q_proj")
Z_MODULES = ("attention.qkv", "attention.out")
WIDTH = 256  # of the small models in devkit/doubles/tiny_models.py
RANK, ALPHA, GAIN = 4, 2.0, 0.5

Factors = dict[str, "Tensor"]


def ensure_files(folder: Path, comfyui: Path, large: bool) -> None:
    """Make what is missing: LoRAs, language models, SVDQuant checkpoints.

    Args:
        folder: gets `loras`, `LLM` and `svdquant`; the demo's models lie where they always do.
        large: whether the one-block SVDQuant checkpoint at full width is wanted, too.
    """
    ensure_models(MODELS, comfyui)
    import_comfy(comfyui)
    _make_loras(folder / "loras")
    _make_checkpoints(folder / "svdquant")
    from ..doubles.small_vlm import save_model

    # Anew each time: what one transformers writes, an older one may not read.
    shutil.rmtree(folder / "LLM", ignore_errors=True)
    for family in FAMILIES:
        save_model(family, folder / "LLM" / f"soak-{family}")
    if large:
        from ..doubles.svdquant_files import ensure_svdquant_models

        ensure_svdquant_models(MODELS)


def lora_names(family: str) -> list[str]:
    """The LoRA files for the small models of a family, one of each format."""
    return [f"soak-{family}-{kind}.safetensors" for kind in FORMATS]


def _make_loras(folder: Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    for family, modules in (("qwen", QWEN_MODULES), ("z", Z_MODULES)):
        group = "transformer_blocks" if family == "qwen" else "layers"
        for number, (name, make) in enumerate(
            zip(lora_names(family), FORMATS.values(), strict=True)
        ):
            tensors: Factors = {}
            for block in range(2):
                for module in modules:
                    out = 3 * WIDTH if module.endswith("qkv") else WIDTH
                    tensors |= make(f"{group}.{block}.{module}", out, 10 * number + block)
            save_file(tensors, folder / name)
    whole = (folder / lora_names("qwen")[0]).read_bytes()
    (folder / BROKEN).write_bytes(whole[:-100])


def _random(seed: int, *shape: int) -> Tensor:
    import torch

    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return GAIN * values / shape[-1] ** 0.5


def _peft(path: str, out: int, seed: int) -> Factors:
    stem = f"diffusion_model.{path}"
    down, up = _random(seed, RANK, WIDTH), _random(seed + 1, out, RANK)
    return {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}


def _kohya(path: str, out: int, seed: int) -> Factors:
    import torch

    stem = "lora_unet_" + path.replace(".", "_")
    factors = {f"{stem}.lora_down.weight": _random(seed, RANK, WIDTH)}
    factors[f"{stem}.lora_up.weight"] = _random(seed + 1, out, RANK)
    return factors | {f"{stem}.alpha": torch.tensor(ALPHA)}


def _loha(path: str, out: int, seed: int) -> Factors:
    import torch

    stem = "lycoris_" + path.replace(".", "_")
    shapes = {
        "w1_a": (out, RANK),
        "w1_b": (RANK, WIDTH),
        "w2_a": (out, RANK),
        "w2_b": (RANK, WIDTH),
    }
    factors = {
        f"{stem}.hada_{part}": _random(seed + number, *shape)
        for number, (part, shape) in enumerate(shapes.items())
    }
    return factors | {f"{stem}.alpha": torch.tensor(ALPHA)}


def _lokr(path: str, out: int, seed: int) -> Factors:
    stem = "lycoris_" + path.replace(".", "_")
    whole, part = _random(seed, 8, 8), _random(seed + 1, out // 8, WIDTH // 8)
    return {f"{stem}.lokr_w1": whole, f"{stem}.lokr_w2": part}


def _dora(path: str, out: int, seed: int) -> Factors:
    import torch

    norms = torch.full((out, 1), 0.5) + _random(seed + 2, out, 1).abs()
    return {**_kohya(path, out, seed), "lora_unet_" + path.replace(".", "_") + ".dora_scale": norms}


FORMATS: dict[str, Callable[[str, int, int], Factors]] = {
    "peft": _peft,
    "kohya": _kohya,
    "loha": _loha,
    "lokr": _lokr,
    "dora": _dora,
}


def _make_checkpoints(folder: Path) -> None:
    """SVDQuant checkpoints of the small models, which the soak's own loader node reads."""
    folder.mkdir(parents=True, exist_ok=True)
    from safetensors.torch import save_file

    from ..doubles.svdquant_models import checkpoint

    for family in ("qwen_image", "z_image"):
        path = folder / f"soak-{family}.safetensors"
        if not path.exists():
            built = checkpoint(family)
            tensors = {name: tensor.contiguous() for name, tensor in built.tensors.items()}
            save_file(tensors, path, built.metadata)
