"""Resample Audio: lengths to the sample, what is heard stays, and the batch and channels too."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.graphs import node
from vivace.devkit.rig.client import ComfyClient, PromptFailedError, PromptRejectedError
from vivace.toolkit.waveform import AudioError

pytestmark = pytest.mark.usefixtures("comfyui")


def resampled(waveform: torch.Tensor, rate: int, wanted: int) -> dict[str, Any]:
    from vivace.nodes.resample_audio import ResampleAudio

    audio = {"waveform": waveform, "sample_rate": rate}
    return ResampleAudio.execute(audio, wanted).args[0]


def sine(hertz: float, rate: int, seconds: float = 0.5) -> torch.Tensor:
    time = torch.arange(round(rate * seconds)) / rate
    return (0.5 * (2 * torch.pi * hertz * time).sin()).reshape(1, 1, -1)


@given(
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(0, 3000),
    st.sampled_from([8000, 11025, 16000, 32000, 44100, 48000]),
    st.sampled_from([8000, 11025, 16000, 32000, 44100, 48000]),
)
def test_batch_channels_and_length(
    batch: int, channels: int, samples: int, rate: int, wanted: int
) -> None:
    given_ = torch.rand(batch, channels, samples) - 0.5
    found = resampled(given_, rate, wanted)
    length = math.ceil(samples * wanted / rate)
    assert found["waveform"].shape == (batch, channels, length)
    assert found["waveform"].dtype == torch.float32
    assert found["sample_rate"] == wanted
    if rate == wanted:
        assert found["waveform"] is given_


@pytest.mark.parametrize(("rate", "wanted"), [(48000, 16000), (16000, 48000), (44100, 48000)])
def test_a_tone_stays_that_tone(rate: int, wanted: int) -> None:
    found = resampled(sine(440, rate), rate, wanted)["waveform"][0, 0]
    inner = slice(200, -200)
    assert torch.allclose(found[inner], sine(440, wanted)[0, 0][inner], atol=5e-3)


def test_what_the_new_rate_cannot_hold_is_filtered_out() -> None:
    found = resampled(sine(7000, 48000), 48000, 8000)["waveform"]
    assert float(found[..., 100:-100].abs().max()) < 0.01


def test_each_sound_of_a_batch_is_resampled_alone() -> None:
    both = torch.cat([sine(200, 16000), sine(900, 16000)])
    found = resampled(both, 16000, 44100)["waveform"]
    for index in range(2):
        alone = resampled(both[index : index + 1], 16000, 44100)["waveform"]
        assert torch.allclose(found[index : index + 1], alone, atol=1e-6)


def test_what_is_no_audio_is_said() -> None:
    with pytest.raises(AudioError, match="no waveform"):
        resampled(torch.zeros(4), 8000, 16000)


def test_rates_that_would_need_a_huge_filter_are_refused() -> None:
    with pytest.raises(ValueError, match="Resample Audio: 383999 Hz cannot be brought to 44101 Hz"):
        resampled(torch.zeros(1, 1, 8), 383999, 44101)


def test_without_torchaudio_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchaudio", None)
    with pytest.raises(
        ValueError, match=r"Resample Audio \(8000 Hz to 16000 Hz\) needs torchaudio"
    ):
        resampled(torch.zeros(1, 1, 8), 8000, 16000)


def test_in_the_server(client: ComfyClient) -> None:
    prompt = {
        "audio": node("VivaceTestAudio", seconds=0.5, channels=2, sample_rate=8000),
        "more": node("VivaceResampleAudio", audio=["audio", 0], sample_rate=44100),
        "show": node("VivacePreviewOutputs", **{"values.value0": ["more", 0]}),
    }
    (value,) = client.run(prompt)["show"]["values"]
    assert value["title"] == "Audio: 0.50 s at 44100 Hz, stereo"
    assert dict(value["figures"])["stored as"] == "float32 on cpu"
    prompt["more"]["inputs"]["sample_rate"] = 7
    with pytest.raises(PromptRejectedError, match="sample_rate"):
        client.run(prompt)
    prompt["more"]["inputs"]["sample_rate"] = 383999
    with pytest.raises(PromptFailedError, match="Use a common rate"):
        client.run(prompt)
