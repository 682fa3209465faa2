"""Files by the names that the pictures show, so that the editor misses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

FILES: Mapping[str, tuple[str, ...]] = {
    "diffusion_models": (
        "qwen_image_fp8_e4m3fn.safetensors",
        "svdq-int4_r32-qwen-image.safetensors",
        "svdq-int4_r32-z-image-turbo.safetensors",
        "z_image_turbo_bf16.safetensors",
    ),
    "text_encoders": ("qwen_2.5_vl_7b_fp8_scaled.safetensors", "qwen_3_4b.safetensors"),
    "vae": ("ae.safetensors", "qwen_image_vae.safetensors"),
    "loras": (
        "people/ada.safetensors",
        "styles/ink.safetensors",
        "styles/watercolour.safetensors",
        "your_lora.safetensors",
    ),
}
CONFIGS: Mapping[tuple[str, str], Mapping[str, object]] = {
    ("LLM", "Qwen3-VL-4B-Instruct"): {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "vision_config": {},
    },
    ("LLM", "Qwen3-4B-Instruct-2507"): {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
    },
    ("musicgen", "musicgen-small"): {
        "architectures": ["MusicgenForConditionalGeneration"],
        "model_type": "musicgen",
    },
}


def make_stand_ins(root: Path) -> dict[str, list[Path]]:
    """Make the files below `root`, whose folder `input` is ComfyUI's; the model folders by kind."""
    image = root / "input" / "example.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.linear_gradient("L").save(image)
    models = root / "models"
    for kind, names in FILES.items():
        for name in names:
            path = models / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for (kind, name), config in CONFIGS.items():
        folder = models / kind / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
    kinds = {*FILES, *(kind for kind, _ in CONFIGS)}
    return {kind: [models / kind] for kind in sorted(kinds)}
