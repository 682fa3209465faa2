"""Small vision-language models and processors of the real transformers classes, random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from ...vlm.local_model import LocalModel
from ...vlm.vision.compiled_encoder import CompiledGraphs
from ...vlm.vision.image_embeddings import ModelIdentity
from ...vlm.vision.pixels import PixelFormat
from ...vlm.vision.vision_tower import VisionTower, find_vision_tower

if TYPE_CHECKING:
    import pytest

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
OTHER_FAMILIES = ("qwen2_vl", "qwen3_vl_moe", "qwen3_5")
TEMPLATE = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n"
    "{%- if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{%- if p.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif p.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{%- else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n"
    "{%- if think %}<think>\n{% endif %}{% endif %}"
).replace("\n{%-", "\n{%")
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>", "<think>", "</think>", "<tool_call>"),
)
MEAN, STD = (0.48, 0.45, 0.4), (0.27, 0.26, 0.28)

_WORDS = 600
_SPEECH = (
    "To be, or not to be, that is the question:\n\nWhether 'tis nobler in the mind to suffer\n"
    "The slings and arrows of outrageous fortune,\nOr to take arms against a sea of troubles\n"
    "And by opposing end them. To die?! to sleep,\n\n\nNo more; and by a sleep to say we end\n"
)
TEXT = {
    "vocab_size": 640,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_VISION = {"depth": 4, "num_heads": 4, "hidden_size": 64, "intermediate_size": 96}
_VISION |= {"out_hidden_size": 64, "spatial_merge_size": 2, "temporal_patch_size": 2}
_POSITIONS = {"patch_size": 16, "num_position_embeddings": 64}
_DEEPSTACK = {**_POSITIONS, "deepstack_visual_indexes": [0, 1, 2]}
_OWN_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"patch_size": 14, "embed_dim": 64, "hidden_size": 64},
    "qwen2_5_vl": {"patch_size": 14, "window_size": 112, "fullatt_block_indexes": [1, 3]},
    "qwen3_vl": _DEEPSTACK,
    "qwen3_vl_moe": _DEEPSTACK,
    "qwen3_5": _POSITIONS,
}
_OWN_TEXT: dict[str, dict[str, Any]] = {
    "qwen3_vl_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "qwen3_5": {
        "layer_types": [*["linear_attention"] * 3, "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    },
}
_CLASSES = {
    "qwen2_vl": "Qwen2VL",
    "qwen2_5_vl": "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5",
}


@cache
def tokenizer() -> Any:
    """A small tokenizer of Qwen's kind, and a template that takes images and videos."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import AutoTokenizer

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_WORDS, initial_alphabet=sorted(alphabet), show_progress=False
    )
    trained.train_from_iterator([_SPEECH], trainer)
    added = {
        str(trained.get_vocab_size() + number): {
            "content": token,
            "special": token.startswith("<|"),
            **dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False),
        }
        for number, token in enumerate(SPECIAL)
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": added,
        "additional_special_tokens": [token for token in SPECIAL if token.startswith("<|")],
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "bos_token": None,
        "chat_template": TEMPLATE,
    }
    with TemporaryDirectory() as folder:
        trained.model.save(folder)
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return AutoTokenizer.from_pretrained(folder)


def token_id(token: str) -> int:
    return tokenizer().get_added_vocab()[token]


@cache
def stock_model(family: str, seed: int = 0) -> Any:
    """A model in float32 whose images and positions matter to what it writes."""
    import transformers

    name = _CLASSES[family]
    if not hasattr(transformers, f"{name}Config"):
        import pytest  # here, since `dev.py matrix` makes models where there is none

        pytest.skip(f"this transformers has no {family}")
    rope: dict[str, Any] = {"rope_type": "default", "mrope_section": [4, 2, 2]}
    rope |= {"mrope_interleaved": True} if family.startswith("qwen3") else {}
    rope |= {"partial_rotary_factor": 1.0} if family == "qwen3_5" else {}
    text = {**TEXT, "head_dim": 16, **_OWN_TEXT.get(family, {})}
    if int(transformers.__version__.split(".")[0]) < 5:
        text |= {"rope_scaling": rope, "rope_theta": 10000.0}
    else:
        text |= {"rope_parameters": {**rope, "rope_theta": 10000.0}}
    config = getattr(transformers, f"{name}Config")(
        text_config=text, vision_config={**_VISION, **_OWN_VISION[family]}, **_ids()
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        # Answers of words: special tokens, and those that the tokenizer lacks, would leave no text.
        model.get_output_embeddings().weight[tokenizer().vocab_size :] *= 0.2
    model.generation_config.eos_token_id = token_id("<|im_end|>")
    model.generation_config.pad_token_id = token_id("<|endoftext|>")
    return model.eval()


def _ids() -> dict[str, int]:
    return {
        "vision_start_token_id": token_id("<|vision_start|>"),
        "vision_end_token_id": token_id("<|vision_end|>"),
        "image_token_id": token_id("<|image_pad|>"),
        "video_token_id": token_id("<|video_pad|>"),
    }


def processor(family: str) -> Any:
    """The family's processor as transformers has it; images keep the size of their grid."""
    import transformers

    patch = _OWN_VISION[family]["patch_size"]
    shared = {"patch_size": patch, "do_resize": False, "do_rescale": False}
    shared |= {"image_mean": list(MEAN), "image_std": list(STD)}
    fast = "Fast" * (int(transformers.__version__.split(".")[0]) < 5)
    images = getattr(transformers, f"Qwen2VLImageProcessor{fast}")(**shared)
    videos_name, name = ("Qwen3VL",) * 2 if patch == 16 else ("Qwen2VL", "Qwen2_5_VL")
    videos = getattr(transformers, f"{videos_name}VideoProcessor")(**shared, do_sample_frames=False)
    return getattr(transformers, f"{name}Processor")(
        image_processor=images,
        tokenizer=tokenizer(),
        video_processor=videos,
        chat_template=TEMPLATE,
    )


def save_model(family: str, folder: Path) -> Path:
    """Save model, tokenizer and processor as a folder from the hub has them."""
    stock_model(family).save_pretrained(folder)
    processor(family).save_pretrained(folder)
    return folder


def local_model(family: str) -> LocalModel:
    """The same model, for our engine. Models are shared between tests: leave them unchanged."""
    model = stock_model(family)
    tower = VisionTower(find_vision_tower(model), "off", graphs=CompiledGraphs())
    pixel_format = PixelFormat(_OWN_VISION[family]["patch_size"], 2, 2, MEAN, STD)
    return LocalModel(model, tokenizer(), ModelIdentity(family, "0"), tower, pixel_format)


@cache
def stock_text_model(family: str = "Qwen2") -> Any:
    """A plain language model in float32, of a family such as Qwen3."""
    import transformers

    torch.manual_seed(3)
    own = {} if family == "Qwen2" else {"head_dim": 16}
    config = getattr(transformers, f"{family}Config")(**TEXT, **own)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@cache
def text_model() -> LocalModel:
    """A plain language model, for our engine."""
    return LocalModel(stock_text_model(), tokenizer(), ModelIdentity("text", "0"))


def save_text_model(family: str, folder: Path) -> Path:
    """Save a plain language model and its tokenizer as a folder from the hub has them."""
    stock_text_model(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def picture(seed: int, rows: int = 3, columns: int = 4, family: str = "qwen2_5_vl") -> torch.Tensor:
    """Noise of `rows` x `columns` tokens."""
    side = 2 * _OWN_VISION[family]["patch_size"]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows * side, columns * side, 3, generator=generator)


class EncoderCalls:
    """Counts runs of a model's vision tower, ours and transformers' own."""

    def __init__(self, model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
        assert model.tower is not None
        self.images = 0
        self.stock = 0
        encode = model.tower.encode

        def counted(pixels: torch.Tensor, grid: tuple[int, int, int], images: int) -> torch.Tensor:
            self.images += images
            return encode(pixels, grid, images)

        def forward(*arguments: Any, **named: Any) -> None:
            self.stock += 1
            raise AssertionError("the vision tower's own forward was called")

        monkeypatch.setattr(model.tower, "encode", counted)
        monkeypatch.setattr(model.tower.module, "forward", forward)

    def take(self) -> int:
        """Images encoded since the last time."""
        images, self.images = self.images, 0
        return images
