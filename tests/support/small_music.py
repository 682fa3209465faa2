"""Small MusicGen models of the real transformers classes, random weights, made here."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from vivace.music.music_model import MusicModel, load_music_model

KINDS = ("mono", "stereo", "melody")
RATE = 8000
HOP = 160
CODES = 32
POSITIONS = 60
CHROMA_FRAMES = 8

_WORDS = "a the warm slow fast piano drums strings violin bass song of and with in rain night"
_TEXT = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 128}
_CODEC: dict[str, Any] = {
    "sampling_rate": RATE,
    "upsampling_ratios": [8, 5, 4],
    "num_filters": 4,
    "hidden_size": 16,
    "codebook_size": CODES,
    "codebook_dim": 16,
    "target_bandwidths": [1.0],  # 4 codebooks of 5 bits, 50 times a second
    "num_lstm_layers": 1,
    "kernel_size": 5,
    "last_kernel_size": 5,
    "use_causal_conv": False,
}
_DECODER: dict[str, Any] = {
    "vocab_size": CODES,
    "pad_token_id": CODES,
    "bos_token_id": CODES,
    "max_position_embeddings": POSITIONS,
    "num_hidden_layers": 2,
    "ffn_dim": 32,
    "num_attention_heads": 4,
    "hidden_size": 32,
}


@cache
def tokenizer() -> Any:
    """A tokenizer of T5's kind: words, and a token that ends the text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import AutoTokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *(f"\u2581{word}" for word in _WORDS.split())]
    pieces += [chr(code) for code in range(97, 123)]
    built = Tokenizer(models.Unigram([(piece, -float(n)) for n, piece in enumerate(pieces)], 2))
    built.normalizer = normalizers.Lowercase()
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    config = {
        "tokenizer_class": "T5Tokenizer",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "extra_ids": 0,
        "model_max_length": 512,
    }
    with TemporaryDirectory() as folder:
        built.save(str(Path(folder) / "tokenizer.json"))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return AutoTokenizer.from_pretrained(folder)


@cache
def stock_model(kind: str, seed: int = 0) -> Any:
    """A model in float32 whose prompts and positions matter to what it writes."""
    import transformers

    stereo = kind == "stereo"
    name = "MusicgenMelody" if kind == "melody" else "Musicgen"
    decoder = {**_DECODER, "num_codebooks": 8 if stereo else 4, "audio_channels": 1 + stereo}
    decoder |= {"max_position_embeddings": POSITIONS + 30} if kind == "melody" else {}
    own = {"chroma_length": CHROMA_FRAMES} if kind == "melody" else {}
    config = getattr(transformers, f"{name}Config")(
        text_encoder={**_TEXT, "model_type": "t5"},
        audio_encoder={**_CODEC, "model_type": "encodec"},
        decoder=decoder,
        **own,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        _train_codebooks(model.audio_encoder)
    model.generation_config.pad_token_id = CODES
    model.generation_config.bos_token_id = CODES
    model.generation_config.decoder_start_token_id = CODES
    return model


def _train_codebooks(codec: Any) -> None:
    """Give codebooks vectors of sound, so that different sounds have different codes."""
    noise = torch.randn(1, 1, CODES * HOP) * torch.linspace(0, 1, CODES * HOP)
    vectors = codec.encoder(noise)[0].T
    for layer in codec.quantizer.layers:
        layer.codebook.embed.copy_(vectors)
        vectors = torch.randn_like(vectors) * vectors.std() * 0.3


def feature_extractor(kind: str) -> Any:
    import transformers

    if kind != "melody":
        return transformers.EncodecFeatureExtractor(sampling_rate=RATE)
    return transformers.MusicgenMelodyFeatureExtractor(
        sampling_rate=RATE, hop_length=1024, n_fft=2048, chunk_length=1
    )


def save_model(kind: str, folder: Path) -> Path:
    """Save model, tokenizer and feature extractor as a folder from the hub has them."""
    stock_model(kind).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    feature_extractor(kind).save_pretrained(folder)
    return folder


@cache
def music_model(kind: str) -> MusicModel:
    """The same model, loaded by our engine. It is shared between tests: leave it unchanged."""
    with TemporaryDirectory() as folder:
        path = save_model(kind, Path(folder) / kind)
        model = load_music_model(path, torch.float32, torch.device("cpu"))
        if kind == "melody":
            model.features()  # read from the folder
    return model


def tone(seconds: float, pitch: float = 220.0, rate: int = RATE, channels: int = 1) -> torch.Tensor:
    """A sine, `[1, channels, samples]`."""
    time = torch.arange(round(seconds * rate)) / rate
    return (0.4 * (2 * torch.pi * pitch * time).sin()).expand(1, channels, -1).clone()
