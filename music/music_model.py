"""A MusicGen loaded from a folder: text encoder, decoder of codes, codec, and their figures."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..hub.model_check import CheckedModel
from ..hub.musicgen_folders import MELODY, check_music_model
from ..hub.refused_load import REFUSALS, refusal
from .errors import MusicError

DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
AUTO = "auto"
# MusicGen was trained on pieces of half a minute; positions beyond make it fall apart.
TRAINED_SECONDS = 30.0
# What transformers fills up with random numbers, and only warns of, where files lack it.
_NEEDED = ("decoder.model.", "decoder.lm_heads", "text_encoder.encoder.block", "enc_to_dec_proj")


class MusicModelKey(NamedTuple):
    """What makes two loaded models the same; callers with the same key share one copy."""

    identity: str
    dtype: str
    device: str


class MusicModel:
    """A MusicGen in memory.

    Only the decoder, nearly all of the weights, is in the chosen dtype. The codec stays in float32:
    half precision is heard as noise.

    Attributes:
        model: transformers' MusicgenForConditionalGeneration or the Melody one.
        takes_melody: whether a melody can be followed.
        rate: samples per second.
        hop: samples per frame of codes.
        codebooks: codes per frame, those of all channels.
        channels: 1 or 2.
        start: the token that stands where no code does.
        movable: `to` works.
    """

    movable = True

    def __init__(self, model: Any, tokenizer: Any, path: Path) -> None:
        decoder, codec = model.config.decoder, model.config.audio_encoder
        self.model = model
        self.tokenizer = tokenizer
        self.path = path
        self.takes_melody = model.config.model_type == MELODY
        self.rate = int(codec.sampling_rate)
        self.hop = int(codec.hop_length)
        self.codebooks = int(decoder.num_codebooks)
        self.channels = int(decoder.audio_channels)
        self.start = int(decoder.pad_token_id)
        self.positions = int(decoder.max_position_embeddings)
        self._features: Any = None

    @property
    def device(self) -> torch.device:
        return next(self.model.decoder.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the decoder."""
        return next(self.model.decoder.parameters()).dtype

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers; shared ones count once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())

    @property
    def frame_rate(self) -> float:
        """Frames of codes per second."""
        return self.rate / self.hop

    def window_frames(self, before: int = 0) -> int:
        """How many frames the decoder can write and remember at a time.

        Args:
            before: positions that something else takes.
        """
        room = self.positions - before - self.codebooks // self.channels
        return min(room, int(TRAINED_SECONDS * self.frame_rate))

    def features(self) -> Any:
        """transformers' extractor of melodies, which needs torchaudio.

        Raises:
            MusicError: it cannot be made from the folder's files.
        """
        if self._features is None:
            from transformers import MusicgenMelodyFeatureExtractor

            try:
                self._features = MusicgenMelodyFeatureExtractor.from_pretrained(
                    self.path, local_files_only=True
                )
            except (OSError, ValueError, TypeError, KeyError) as error:
                raise MusicError(f"{self.path}: melodies cannot be read ({error})") from error
        return self._features

    def to(self, device: torch.device) -> None:
        """Move the model."""
        self.model.to(device)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of a choice; auto is float16 on CUDA, and float32 elsewhere.

    Raises:
        MusicError: an unknown choice.
    """
    if name == AUTO:
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise MusicError(f"dtype {name!r} is none of {', '.join([AUTO, *DTYPES])}")
    return DTYPES[name]


def music_model_key(
    checked: CheckedModel, dtype: torch.dtype, device: torch.device
) -> MusicModelKey:
    """The key that a model will have when it is loaded."""
    return MusicModelKey(checked.identity, str(dtype), str(device))


def load_music_model(path: Path, dtype: torch.dtype, device: torch.device) -> MusicModel:
    """Check a folder and load the model in it, from its files alone.

    Raises:
        ModelFolderError: the folder cannot be used, as `check_music_model` says.
        MusicError: transformers refuses the model, or it is not whole.
    """
    checked = check_music_model(path)
    import transformers

    kind = "MusicgenMelody" if checked.folder.model_type == MELODY else "Musicgen"
    auto = getattr(transformers, f"{kind}ForConditionalGeneration")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        # transformers draws weights, only to replace them.
        with torch.random.fork_rng(devices=[]):
            model, info = auto.from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except REFUSALS as error:
        raise MusicError(refusal(path, error)) from error
    _check_whole(path, info["missing_keys"])
    model.eval().requires_grad_(False)
    model.decoder.to(dtype)
    loaded = MusicModel(model, tokenizer, path)
    _check_codec(loaded)
    loaded.to(device)
    return loaded


def _check_whole(path: Path, missing: Collection[str]) -> None:
    absent = sorted(key for key in missing if key.startswith(_NEEDED) and ".embed_pos" not in key)
    if absent:
        raise MusicError(
            f"{path}: the weights lack {len(absent)} tensors that the config asks for, such as"
            f" {absent[0]}. Download the model again"
        )


def _check_codec(loaded: MusicModel) -> None:
    """Refuse a codec that cannot read and write what the decoder does."""
    codec, decoder = loaded.model.config.audio_encoder, loaded.model.config.decoder
    per_channel = loaded.codebooks // loaded.channels
    if codec.codebook_size != decoder.vocab_size or codec.num_quantizers < per_channel:
        raise MusicError(
            f"{loaded.path}: decoder and codec do not fit: {decoder.vocab_size} codes in"
            f" {per_channel} codebooks against {codec.codebook_size} in {codec.num_quantizers}"
        )
