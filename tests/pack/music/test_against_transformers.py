"""The decode loop beside transformers' own generate: the same codes make the same sound."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from support.small_music import (
    CODES,
    HOP,
    KINDS,
    RATE,
    feature_extractor,
    music_model,
    stock_model,
    tokenizer,
    tone,
)
from vivace.music.audio_input import Audio
from vivace.music.code_sampler import CodeSampler, CodeSampling
from vivace.music.code_writer import write_codes
from vivace.music.codec import decode, encode
from vivace.music.condition import Melody, condition, text_states
from vivace.music.delay_pattern import delayed, steps_for, undelayed

FRAMES = 20
PROMPT = "slow piano with rain"


def stock(
    kind: str, steps: int, guidance: float, prompt: str = PROMPT, **inputs: Any
) -> torch.Tensor:
    text = tokenizer()(prompt, return_tensors="pt")
    settings = {"do_sample": False, "max_length": steps, "guidance_scale": guidance}
    given = {"input_ids": text.input_ids, "attention_mask": text.attention_mask, **inputs}
    return stock_model(kind).generate(**given, **settings)


@functools.cache
def hears_text(kind: str) -> bool:
    """Whether transformers' generate passes the text on: with melody models, 4.57 does not.

    It takes the empty cache that it makes for the sign that the text has been read.
    """
    one, other = (stock(kind, steps(kind), 1.0, prompt) for prompt in (PROMPT, "drums"))
    return not torch.equal(one, other)


def require_text(kind: str) -> None:
    if not hears_text(kind):
        pytest.skip(f"this transformers does not read the text of {kind} models")


def ours(kind: str, known: torch.Tensor, guidance: float, melody: Any = None) -> torch.Tensor:
    model = music_model(kind)
    chroma = Melody(model, melody).chroma(0.0) if melody else None
    sampling = CodeSampling(guidance=guidance, temperature=0)
    states = condition(model, text_states(model, PROMPT), chroma, len(known), sampling.guided)
    frames = FRAMES - known.shape[-1]
    new = write_codes(model, states, known, frames, CodeSampler(sampling, len(known)))
    return torch.cat((known, new), -1)


def nothing(kind: str) -> torch.Tensor:
    return torch.zeros(1, music_model(kind).codebooks, 0, dtype=torch.long)


def steps(kind: str) -> int:
    model = music_model(kind)
    return steps_for(FRAMES, model.codebooks, model.channels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_text_makes_the_same_sound(kind: str, guidance: float) -> None:
    require_text(kind)
    codes = ours(kind, nothing(kind), guidance)
    assert codes.shape == (1, music_model(kind).codebooks, FRAMES)
    assert int(codes.min()) >= 0
    assert int(codes.max()) < CODES
    assert codes.unique().numel() > 4
    wanted = stock(kind, steps(kind), guidance)
    assert torch.allclose(decode(music_model(kind), codes), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_going_on_from_codes_is_the_same(kind: str) -> None:
    require_text(kind)
    known = encode(music_model(kind), tone(0.1, channels=music_model(kind).channels))
    assert known.shape[-1] == 5
    assert known.unique().numel() > 4
    codes = ours(kind, known, 3.0)
    assert torch.equal(codes[..., :5], known)
    wanted = stock(kind, steps(kind), 3.0, decoder_input_ids=known.flatten(0, 1))
    assert torch.allclose(decode(music_model(kind), codes), wanted, atol=1e-5)


def test_a_melody_is_heard_the_same() -> None:
    require_text("melody")
    sound = tone(1.5, 330.0)
    features = feature_extractor("melody")(sound[:, 0], sampling_rate=RATE, return_tensors="pt")
    wanted = stock("melody", steps("melody"), 3.0, input_features=features.input_features)
    codes = ours("melody", nothing("melody"), 3.0, Audio(sound, RATE))
    assert torch.allclose(decode(music_model("melody"), codes), wanted, atol=1e-5)
    assert not torch.equal(codes, ours("melody", nothing("melody"), 3.0))


@pytest.mark.parametrize(("codebooks", "channels"), [(4, 1), (8, 2)])
def test_the_pattern_is_that_of_transformers(codebooks: int, channels: int) -> None:
    kind = "stereo" if channels == 2 else "mono"
    codes = torch.randint(0, CODES, (2, codebooks, 5))
    total = steps_for(12, codebooks, channels)
    start = torch.full((2 * codebooks, 1), CODES)
    flat = torch.cat((start, codes.flatten(0, 1)), 1)
    _, wanted = stock_model(kind).decoder.build_delay_pattern_mask(flat, CODES, total)
    laid = delayed(codes, total, channels, CODES)
    assert torch.equal(laid.flatten(0, 1), wanted)
    assert torch.equal(undelayed(laid, channels)[..., :5], codes)
    assert int(undelayed(laid, channels)[..., 5:].max()) == -1


@pytest.mark.parametrize("kind", ["mono", "stereo"])
def test_sound_is_encoded_as_transformers_does(kind: str) -> None:
    model = music_model(kind)
    sound = torch.cat([tone(0.2, 200.0 + 150 * c) for c in range(model.channels)], 1)
    filled = stock_model(kind)._prepare_audio_encoder_kwargs_for_generation(sound, {})
    codes = encode(model, sound)
    assert torch.equal(codes.flatten(0, 1), filled["decoder_input_ids"])
    assert decode(model, codes).shape == (1, model.channels, codes.shape[-1] * HOP)
