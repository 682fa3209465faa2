"""What the decoder hears of text and melody, with and without guidance."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import one_hot

from .audio_input import Audio
from .errors import MusicError
from .music_model import MusicModel
from .resample import require_torchaudio, resample

MAX_TEXT_TOKENS = 512


@torch.no_grad()
def text_states(model: MusicModel, prompt: str) -> torch.Tensor:
    """Return what the text says, `[1, tokens, dim]`; zeros for no text.

    Raises:
        MusicError: the text is too long.
    """
    network = model.model
    ids = model.tokenizer(prompt.strip(), return_tensors="pt").input_ids
    if ids.shape[1] > MAX_TEXT_TOKENS:
        raise MusicError(
            f"prompt has {ids.shape[1]} tokens; MusicGen reads at most {MAX_TEXT_TOKENS}."
            " Shorten it"
        )
    states = network.text_encoder(input_ids=ids.to(model.device)).last_hidden_state
    if hasattr(network, "enc_to_dec_proj"):
        states = network.enc_to_dec_proj(states)
    return states if prompt.strip() else torch.zeros_like(states)


class Melody:
    """The tune of some audio, for any part of what is made.

    Args:
        audio: `[batch, channels, samples]`; it begins again where it ends.

    Raises:
        MusicError: the model takes no melody, or torchaudio is not there.
    """

    def __init__(self, model: MusicModel, audio: Audio) -> None:
        if not model.takes_melody:
            raise MusicError(
                f"{model.path.name} takes no melody. Disconnect melody, or choose a melody model"
                " such as facebook/musicgen-melody"
            )
        require_torchaudio("A melody")
        self._features: Any = model.features()
        mono = audio.waveform.mean(1)
        self._mono = resample(mono, audio.rate, self._features.sampling_rate, "melody")
        self._bins = int(model.model.config.num_chroma)

    def chroma(self, seconds: float) -> torch.Tensor:
        """Return the pitch classes from a time on, `[batch, frames, bins]` float32."""
        rate = self._features.sampling_rate
        length = self._mono.shape[-1]
        wanted = torch.arange(self._features.n_samples) + round(seconds * rate)
        part = self._mono[:, wanted % length]
        return self._features(part, sampling_rate=rate, return_tensors="pt").input_features


@torch.no_grad()
def melody_states(model: MusicModel, chroma: torch.Tensor | None) -> torch.Tensor:
    """Return what the melody says, `[batch, chroma_length, dim]`; one row for no melody.

    Args:
        chroma: `[batch, frames, bins]`, repeated or cut to the length that the model takes.
    """
    config = model.model.config
    if chroma is None:
        first = torch.zeros(1, 1, dtype=torch.long)
        chroma = one_hot(first, config.num_chroma)
    length = int(config.chroma_length)
    chroma = chroma[:, torch.arange(length) % chroma.shape[1]].to(model.device, torch.float32)
    if hasattr(model.model, "audio_enc_to_dec_proj"):
        return model.model.audio_enc_to_dec_proj(chroma)
    return chroma


def condition(
    model: MusicModel, text: torch.Tensor, chroma: torch.Tensor | None, batch: int, guided: bool
) -> torch.Tensor:
    """Return what the decoder is given, `[rows, tokens, dim]` in its dtype.

    Args:
        text: `[1, tokens, dim]`.
        chroma: `[batch, frames, bins]`; None for no melody.
        guided: put rows that know nothing behind the `batch` rows that know text and melody.
    """
    parts = [text.expand(batch, -1, -1)]
    plain = [torch.zeros_like(parts[0])]
    if model.takes_melody:
        nothing = melody_states(model, None).expand(batch, -1, -1)
        melody = nothing if chroma is None else melody_states(model, chroma)
        parts, plain = [melody, *parts], [nothing, *plain]
    states = torch.cat(parts, 1)
    if guided:
        states = torch.cat((states, torch.cat(plain, 1)))
    return states.to(model.dtype)
