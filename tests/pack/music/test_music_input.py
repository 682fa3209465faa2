"""What cannot be used says why: audio, settings, rates, and torchaudio that is not there."""

from __future__ import annotations

import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from support.small_music import RATE, music_model, tone
from vivace.music.audio_input import Audio, read_audio
from vivace.music.code_sampler import CodeSampler, CodeSampling
from vivace.music.errors import MusicError
from vivace.music.music_windows import MusicRequest, compose
from vivace.music.resample import audio_support, resample


def audio(waveform: Any, rate: Any = RATE) -> dict[str, Any]:
    return {"waveform": waveform, "sample_rate": rate}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "no audio"),
        ("a string", "no audio"),
        ({"waveform": torch.zeros(1, 1, 4)}, "no audio"),
        (audio([0.0]), "no tensor"),
        (audio(torch.zeros(1, 4)), r"shape \[1, 4\]"),
        (audio(torch.zeros(1, 1, 0)), "no samples"),
        (audio(torch.zeros(0, 1, 4)), "no samples"),
        (audio(torch.zeros(1, 3, 4)), "3 channels"),
        (audio(torch.full((1, 2, 4), torch.nan)), "NaN"),
        (audio(torch.full((1, 2, 4), torch.inf)), "NaN or infinite"),
        (audio(torch.zeros(1, 1, 4, dtype=torch.int16)), "int16"),
        (audio(torch.zeros(1, 1, 4), 0), "sample rate is 0"),
        (audio(torch.zeros(1, 1, 4), 44100.5), "sample rate is 44100.5"),
    ],
)
def test_what_is_no_audio_is_refused(value: Any, message: str) -> None:
    with pytest.raises(MusicError, match=message) as caught:
        read_audio(value, "melody")
    assert str(caught.value).startswith("melody")


def test_audio_is_read_as_it_is() -> None:
    waveform = torch.rand(2, 2, 50, dtype=torch.float64)
    found = read_audio(audio(waveform, 44100), "melody")
    assert found.waveform.dtype == torch.float32
    assert torch.equal(found.waveform, waveform.float())
    assert (found.rate, found.samples, found.seconds) == (44100, 50, 50 / 44100)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"seconds": 0.0}, "duration is 0.0 s"),
        ({"seconds": -1.0}, "duration is -1.0"),
        ({"seconds": float("nan")}, "duration is nan"),
        ({"seconds": 300.5}, "duration is 300.5 s; give 0.1 to 300 s"),
        ({"prompt": " \n"}, "prompt is empty"),
        ({"rate": 100}, "sample_rate is 100"),
        ({"rate": 400000}, "sample_rate is 400000"),
        ({"variations": 0}, "variations is 0"),
        ({"variations": 17}, "variations is 17"),
        ({"overlap": 0.0}, "overlap is 0.0"),
        ({"overlap": float("inf")}, "overlap is inf"),
    ],
)
def test_numbers_out_of_range_are_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(MusicError, match=message):
        MusicRequest(**{"prompt": "piano", "seconds": 1.0, **inputs})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"guidance": 0.5}, "guidance_scale is 0.5"),
        ({"guidance": float("nan")}, "guidance_scale is nan"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"top_k": -1}, "top_k is -1"),
    ],
)
def test_sampling_out_of_range_is_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(MusicError, match=message):
        CodeSampling(**inputs)


def test_one_code_of_all_is_the_most_probable() -> None:
    logits = torch.randn(2, 4, 32)
    one = CodeSampler(CodeSampling(guidance=1.0, top_k=1), 2).choose(logits)
    assert torch.equal(one, logits.argmax(-1))


def test_codes_are_drawn_as_often_as_they_are_probable() -> None:
    shares = torch.tensor([0.5, 0.3, 0.15, 0.05])
    sampler = CodeSampler(CodeSampling(guidance=1.0, top_k=3), 1)
    drawn = sampler.choose(shares.log().expand(1, 20000, 4)).flatten().bincount(minlength=4) / 20000
    kept = shares[:3] / shares[:3].sum()
    assert torch.allclose(drawn[:3], kept, atol=0.02)
    assert drawn[3] == 0


def test_guidance_counts_what_the_prompt_changes() -> None:
    prompted = torch.tensor([[[0.0, 1.0, 0.9]]])
    plain = torch.tensor([[[0.0, 1.0, 0.0]]])
    logits = torch.cat((prompted, plain))
    sampler = CodeSampler(CodeSampling(guidance=3.0, temperature=0), 1)
    assert sampler.choose(logits).tolist() == [[2]]


def test_a_melody_needs_a_melody_model() -> None:
    request = MusicRequest("piano", 0.2, melody=Audio(tone(0.3), RATE))
    with pytest.raises(MusicError, match="mono takes no melody"):
        compose(music_model("mono"), request)


@pytest.mark.parametrize("name", ["melody", "before"])
def test_batches_that_do_not_fit_are_refused(name: str) -> None:
    two: dict[str, Any] = {name: Audio(tone(0.3).repeat(2, 1, 1), RATE)}
    request = MusicRequest("piano", 0.2, 3, **two)
    with pytest.raises(MusicError, match="a batch of 2, but there are 3 variations"):
        compose(music_model("melody"), request)


def test_audio_too_short_to_go_on_from_is_refused() -> None:
    request = MusicRequest("piano", 0.2, before=Audio(tone(0.01), RATE))
    with pytest.raises(MusicError, match=r"lasts 0\.010 s; give at least 0\.020 s"):
        compose(music_model("mono"), request)


def test_a_prompt_that_is_too_long_is_refused() -> None:
    with pytest.raises(MusicError, match=r"prompt has 60\d tokens; MusicGen reads at most 512"):
        compose(music_model("mono"), MusicRequest("piano " * 600, 0.2))


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(MusicError, match="no room"):
        compose(music_model("melody"), MusicRequest("piano " * 100, 0.2))


def test_audio_or_a_melody_is_enough_to_go_by() -> None:
    for name in ("before", "melody"):
        inputs: dict[str, Any] = {name: Audio(tone(0.3), RATE)}
        music = compose(music_model("melody"), MusicRequest("", 0.2, **inputs))
        assert music.audio.samples >= 0.2 * RATE


@given(some.integers(8000, 192000), some.sampled_from([16000, 32000, 44100]))
def test_any_rate_is_reached_or_refused(rate: int, model_rate: int) -> None:
    waveform = torch.zeros(1, 1, 64)
    common = math.gcd(rate, model_rate)
    if rate * model_rate // common**2 > 2**24:
        with pytest.raises(MusicError, match=f"{model_rate} Hz cannot be brought to {rate} Hz"):
            resample(waveform, model_rate, rate, "sample_rate")
        return
    found = resample(waveform, model_rate, rate, "sample_rate")
    assert found.shape == (1, 1, -(-64 * rate // model_rate))


@pytest.fixture
def no_torchaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)


@pytest.mark.usefixtures("no_torchaudio")
def test_without_torchaudio_the_models_own_rate_works() -> None:
    assert audio_support().version is None
    before = Audio(tone(0.3), RATE)
    music = compose(music_model("mono"), MusicRequest("piano", 0.2, before=before))
    assert music.audio.samples == 0.5 * RATE
    assert "no other sample rates and no melodies" in music.report.markdown()


@pytest.mark.usefixtures("no_torchaudio")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"rate": 44100}, r"sample_rate \(8000 Hz to 44100 Hz\) needs torchaudio"),
        ({"before": Audio(tone(0.3, rate=16000), 16000)}, "Audio to go on from.*needs torchaudio"),
        ({"melody": Audio(tone(0.3), RATE)}, "A melody needs torchaudio"),
    ],
)
def test_without_torchaudio_the_rest_says_so(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(MusicError, match=message):
        compose(music_model("melody"), MusicRequest("piano", 0.2, **inputs))


def test_torchaudio_that_does_not_fit_torch_is_told_from_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text("raise OSError('undefined symbol: x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    support = audio_support()
    assert support.version is None
    assert "undefined symbol: x" in support.line()
