"""Vision-language models of published dimensions with random weights, and what goes with them.

The classes are those of transformers. Dimensions are those of the `config.json` of
Qwen3-VL-4B-Instruct and Qwen2.5-VL-7B-Instruct; only the number of layers may be cut. The tokenizer
has the size and the special tokens of theirs, with made-up words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from tempfile import TemporaryDirectory
from typing import Any

import torch

WORDS = 151643
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """The published dimensions of a model.

    Attributes:
        classes: how the names of its classes in transformers begin.
        processors: the same for its processor and its video processor.
        marks: name of the setting that picks single layers of the tower, and the layers.
        mean, std: of its image processor, alike for the three colors.
    """

    name: str
    classes: str
    processors: tuple[str, str]
    vision: dict[str, Any]
    marks: tuple[str, tuple[int, ...]]
    text: dict[str, Any]
    rope: dict[str, Any]
    tied: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return int(self.vision["patch_size"])

    @property
    def text_layers(self) -> int:
        """Layers of the language model."""
        return int(self.text["num_hidden_layers"])

    def vision_config(self, share: int) -> dict[str, Any]:
        """The tower's configuration with one in `share` layers, and at least one marked layer."""
        depth = max(1, int(self.vision["depth"]) // share)
        name, published = self.marks
        marked = [layer for layer in published if layer < depth] or [depth - 1]
        return {**self.vision, "depth": depth, name: marked}

    def text_config(self, layers: int | None) -> dict[str, Any]:
        """The language model's configuration with its first layers only."""
        import transformers

        new = int(transformers.__version__.split(".")[0]) >= 5
        theta = self.rope["rope_theta"]
        rope = {key: value for key, value in self.rope.items() if key != "rope_theta"}
        names = {"rope_parameters": self.rope} if new else {"rope_scaling": rope}
        chosen = {**self.text, **names} if new else {**self.text, **names, "rope_theta": theta}
        chosen["tie_word_embeddings"] = self.tied
        return chosen if layers is None else {**chosen, "num_hidden_layers": layers}


_ENDS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

QWEN3_VL_4B = Shape(
    "Qwen3-VL-4B",
    "Qwen3VL",
    ("Qwen3VL", "Qwen3VL"),
    {"depth": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096,
     "out_hidden_size": 2560, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
     "num_position_embeddings": 2304},
    ("deepstack_visual_indexes", (5, 11, 17)),
    {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
     "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
     "max_position_embeddings": 262144, **_ENDS},
    {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True,
     "rope_theta": 5000000.0},
    True,
    (0.5, 0.5, 0.5),
    (0.5, 0.5, 0.5),
)  # fmt: skip
QWEN2_5_VL_7B = Shape(
    "Qwen2.5-VL-7B",
    "Qwen2_5_VL",
    ("Qwen2_5_VL", "Qwen2VL"),
    {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420,
     "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
     "window_size": 112},
    ("fullatt_block_indexes", (7, 15, 23, 31)),
    {"hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
     "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
     "max_position_embeddings": 128000, **_ENDS},
    {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0},
    False,
    _CLIP_MEAN,
    _CLIP_STD,
)  # fmt: skip
SHAPES = (QWEN3_VL_4B, QWEN2_5_VL_7B)


def build_model(
    shape: Shape, device: str, dtype: torch.dtype, share: int, layers: int | None
) -> Any:
    """A model with a head, built on the device; it never ends an answer.

    Args:
        share: one in so many of the tower's layers is there.
        layers: of the language model; None for all.
    """
    import transformers

    ids = {name: WORDS + SPECIAL.index(token) for name, token in _TOKENS.items()}
    config = getattr(transformers, f"{shape.classes}Config")(
        text_config=shape.text_config(layers),
        vision_config=shape.vision_config(share),
        tie_word_embeddings=shape.tied,
        **ids,
    )
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.AutoModelForImageTextToText.from_config(config, dtype=dtype)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = WORDS
    return model.eval()


_TOKENS = {
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
}


def build_tokenizer() -> Any:
    """A tokenizer as large as Qwen's, which reads texts byte by byte and writes made-up words."""
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = islice((word for word in _words() if word not in letters), WORDS - len(letters))
    vocabulary = {word: number for number, word in enumerate([*letters, *words])}
    flags = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": {
            str(WORDS + number): {"content": token, "special": True, **flags}
            for number, token in enumerate(SPECIAL)
        },
        "additional_special_tokens": list(SPECIAL),
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "chat_template": TEMPLATE,
    }
    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return AutoTokenizer.from_pretrained(folder)


def _words() -> Iterator[str]:
    """Letters behind a space, in the byte alphabet's spelling of it."""
    for length in range(1, 5):
        for letters in product(ascii_lowercase, repeat=length):
            yield "Ġ" + "".join(letters)


def build_image_processor(shape: Shape, budget: tuple[int, int]) -> Any:
    """The model's own image processor, the one that works on tensors, with a pixel budget."""
    import transformers

    fast = "Fast" * (int(transformers.__version__.split(".")[0]) < 5)  # version 5 has dropped it
    return getattr(transformers, f"Qwen2VLImageProcessor{fast}")(
        patch_size=shape.patch,
        min_pixels=budget[0],
        max_pixels=budget[1],
        image_mean=list(shape.mean),
        image_std=list(shape.std),
    )


def build_processor(shape: Shape, budget: tuple[int, int], tokenizer: Any) -> Any:
    """The model's own processor of conversations."""
    import transformers

    whole, video = shape.processors
    return getattr(transformers, f"{whole}Processor")(
        image_processor=build_image_processor(shape, budget),
        tokenizer=tokenizer,
        video_processor=getattr(transformers, f"{video}VideoProcessor")(patch_size=shape.patch),
        chat_template=TEMPLATE,
    )
