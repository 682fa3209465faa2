"""Music of exact lengths and rates, that goes on from what is given, in windows without a gap."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from support.small_music import HOP, KINDS, RATE, music_model, tone
from vivace.music import music_windows as composing
from vivace.music.audio_input import Audio
from vivace.music.code_sampler import CodeSampling
from vivace.music.codec import decode
from vivace.music.music_windows import Music, MusicRequest, compose

LONG = 2.0  # seconds; two windows and more, as there are positions for 1.1 s


def make(kind: str = "mono", seconds: float = 0.2, **inputs: Any) -> Music:
    return compose(music_model(kind), MusicRequest("warm piano", seconds, **inputs))


def wave(*arguments: Any, **inputs: Any) -> torch.Tensor:
    return make(*arguments, **inputs).audio.waveform


def sound(seconds: float, rate: int = RATE, channels: int = 1, pitch: float = 220.0) -> Audio:
    return Audio(tone(seconds, pitch, rate, channels), rate)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_audio_at_the_models_rate(kind: str) -> None:
    audio = make(kind, variations=2).audio
    assert audio.rate == RATE
    assert audio.waveform.shape == (2, music_model(kind).channels, round(0.2 * RATE))
    assert audio.waveform.dtype == torch.float32
    assert audio.waveform.device.type == "cpu"
    assert audio.waveform.is_contiguous()
    assert audio.waveform.isfinite().all()
    assert float(audio.waveform.abs().max()) <= 1
    assert float(audio.waveform.std()) > 0


@settings(max_examples=25)
@given(
    some.floats(0.1, 0.5),
    some.sampled_from([0, 8000, 11025, 16000, 22050, 44100, 48000, 192000]),
    some.sampled_from([None, 0.05, 0.1333]),
)
def test_lengths_are_exact_at_every_rate(seconds: float, rate: int, before: float | None) -> None:
    given_audio = None if before is None else sound(before, 11025)
    audio = make(seconds=seconds, rate=rate, before=given_audio, include_before=False).audio
    assert audio.rate == (rate or RATE)
    assert audio.samples == round(seconds * audio.rate)


def test_a_seed_repeats_and_another_differs() -> None:
    first = wave(sampling=CodeSampling(seed=7))
    assert torch.equal(first, wave(sampling=CodeSampling(seed=7)))
    assert not torch.equal(first, wave(sampling=CodeSampling(seed=8)))
    assert wave(sampling=CodeSampling(seed=2**64 - 1)).shape == first.shape


def test_each_variation_is_what_its_own_seed_makes() -> None:
    several = wave(variations=3, sampling=CodeSampling(seed=5))
    for number, one in enumerate(several):
        alone = wave(sampling=CodeSampling(seed=5 + number))
        assert torch.allclose(one, alone[0], atol=1e-5)
    assert not torch.equal(several[0], several[1])


def test_no_random_numbers_of_others_are_touched() -> None:
    music_model("mono")  # making it draws random weights
    before = torch.get_rng_state(), random.getstate()
    make(sampling=CodeSampling(seed=3))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()


@pytest.mark.parametrize(
    "change",
    [
        {"guidance": 1.0},
        {"guidance": 8.0},
        {"temperature": 0.0},
        {"temperature": 3.0},
        {"top_k": 2},
    ],
)
def test_sampling_matters(change: dict[str, float]) -> None:
    settled: Any = {"seed": 1, **change}
    assert not torch.equal(
        wave(sampling=CodeSampling(seed=1)), wave(sampling=CodeSampling(**settled))
    )


def test_the_most_probable_codes_need_no_seed() -> None:
    first, second = (CodeSampling(temperature=0, seed=seed) for seed in (1, 2))
    assert torch.equal(wave(sampling=first), wave(sampling=second))


def test_the_prompt_matters() -> None:
    other = compose(music_model("mono"), MusicRequest("fast drums", 0.2)).audio.waveform
    assert not torch.equal(other, wave())


@pytest.mark.parametrize("kind", KINDS)
def test_given_audio_stays_as_it_is(kind: str) -> None:
    channels = music_model(kind).channels
    before = sound(0.333, 11025, channels)
    audio = make(kind, before=before).audio
    assert audio.rate == 11025
    assert audio.samples == before.samples + round(0.2 * 11025)
    assert torch.equal(audio.waveform[..., : before.samples], before.waveform)
    alone = make(kind, before=before, include_before=False, rate=11025).audio
    assert torch.equal(audio.waveform[..., before.samples :], alone.waveform)


def test_given_audio_matters_and_joins_without_a_step() -> None:
    first, second = sound(0.5), sound(0.5, pitch=900.0)
    rests = [wave(before=before, include_before=False) for before in (first, second)]
    assert not torch.equal(*rests)
    joined = wave(before=first)
    join = first.samples
    assert float((joined[..., join] - joined[..., join - 1]).abs().max()) < 1e-6


def test_given_audio_is_mixed_and_resampled_where_asked() -> None:
    before = sound(0.3, 16000, channels=2)
    audio = make(before=before, rate=8000).audio
    assert audio.waveform.shape == (1, 1, round(0.3 * 8000) + round(0.2 * 8000))
    stereo = make("stereo", before=sound(0.3)).audio.waveform
    assert torch.equal(stereo[:, 0, : round(0.3 * RATE)], stereo[:, 1, : round(0.3 * RATE)])


def test_variations_go_on_from_their_own_audio() -> None:
    first = make(variations=2)
    chained = make(variations=2, before=first.audio)
    assert torch.equal(chained.audio.waveform[..., : first.audio.samples], first.audio.waveform)
    greedy = CodeSampling(temperature=0)
    rest = wave(variations=2, before=first.audio, include_before=False, sampling=greedy)
    assert not torch.equal(rest[0], rest[1])


def test_a_long_piece_is_written_in_windows_of_one_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[torch.Tensor] = []

    def seen(model: Any, codes: torch.Tensor) -> torch.Tensor:
        decoded.append(codes)
        return decode(model, codes)

    monkeypatch.setattr(composing, "decode", seen)
    music = make(seconds=LONG, overlap=0.4)
    assert music.report.windows > 2
    (codes,) = decoded  # in one go, so there is no join in the sound
    assert codes.shape[-1] == LONG * RATE / HOP
    assert music.audio.samples == LONG * RATE
    assert torch.equal(music.audio.waveform, decode(music_model("mono"), codes).clamp(-1, 1))
    # The first window is what a short piece is, up to where that sees its own end.
    first = make(seconds=1.0, overlap=0.4)
    assert first.report.windows == 1
    assert torch.equal(decoded[1][..., :47], codes[..., :47])


def test_a_window_goes_on_from_the_one_before() -> None:
    greedy = CodeSampling(temperature=0)
    music = make(seconds=LONG, overlap=0.4, sampling=greedy)
    other = make(seconds=LONG, overlap=0.1, sampling=greedy)
    window = round(music_model("mono").window_frames() * HOP * 0.9)
    assert torch.allclose(
        music.audio.waveform[..., :window], other.audio.waveform[..., :window], atol=1e-5
    )
    assert not torch.equal(music.audio.waveform, other.audio.waveform)


@settings(max_examples=40)
@given(some.integers(1, 400), some.integers(0, 200), some.floats(0.01, 50.0))
def test_windows_cover_everything_once(frames: int, known: int, overlap: float) -> None:
    model = music_model("mono")
    job: Any = composing.Job(model, MusicRequest("x", 0.1, overlap=overlap), lambda *_: None)
    job.frames = frames
    known = min(known, job.window - 1)
    here = known
    for context, new in job.windows(known):
        assert new > 0
        assert context + new <= job.window
        assert min(here, job.overlap) <= context <= here
        here += new
    assert here == known + frames


def test_a_melody_is_followed() -> None:
    clear = CodeSampling(guidance=10.0, temperature=0)

    def followed(melody: Audio | None) -> torch.Tensor:
        return wave("melody", melody=melody, sampling=clear)

    low, high = (followed(sound(0.7, pitch=pitch)) for pitch in (200.0, 1270.0))
    assert not torch.equal(followed(None), low)
    assert not torch.equal(low, high)
    assert torch.equal(low, followed(sound(0.7, channels=2, pitch=200.0)))


def test_a_melody_goes_on_in_further_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    from vivace.music.condition import Melody

    times: list[float] = []
    chroma = Melody.chroma

    def seen(self: Melody, seconds: float) -> torch.Tensor:
        times.append(seconds)
        return chroma(self, seconds)

    monkeypatch.setattr(Melody, "chroma", seen)
    up = torch.cat([tone(0.5, pitch) for pitch in (200.0, 300.0, 450.0, 675.0)], -1)
    make("melody", 2 * LONG, melody=Audio(up, RATE), overlap=1.0)
    assert len(times) > 2
    assert times == sorted(set(times))
    assert times[0] == 0
    tune = Melody(music_model("melody"), Audio(up, RATE))
    assert torch.equal(tune.chroma(0.0), tune.chroma(2.0))  # from its beginning again
    assert not torch.equal(tune.chroma(0.0), tune.chroma(1.0))


def test_steps_are_counted_before_they_are_made() -> None:
    seen: list[tuple[int, int]] = []
    request = MusicRequest("piano", LONG, overlap=0.4)
    music = compose(music_model("mono"), request, lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(music.report.steps))
    assert {total for _, total in seen} == {music.report.steps}
    # One more for each codebook behind the first, in each window.
    assert music.report.steps == LONG * RATE / HOP + 3 * music.report.windows


class StoppedError(Exception):
    pass


def test_it_stops_within_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = music_model("mono").model.decoder
    runs: list[int] = []
    forward = decoder.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        runs.append(1)
        return forward(*arguments, **named)

    monkeypatch.setattr(decoder, "forward", counted)

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise StoppedError

    with pytest.raises(StoppedError):
        compose(music_model("mono"), MusicRequest("piano", 1.0), interrupt)
    assert len(runs) == 7


def test_too_loud_samples_are_clipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = make()
    assert quiet.report.clipped == 0
    loud = 1.5 / float(quiet.audio.waveform.abs().max())
    monkeypatch.setattr(composing, "decode", lambda model, codes: decode(model, codes) * loud)
    music = make()
    scaled = quiet.audio.waveform * loud
    assert music.report.clipped == int((scaled.abs() > 1).sum()) > 0
    assert torch.allclose(music.audio.waveform, scaled.clamp(-1, 1), atol=1e-6)
    assert f"clipped: {music.report.clipped} samples" in music.report.markdown()


@pytest.mark.parametrize("part", ["decoder", "codec"])
def test_no_numbers_are_an_error(part: str) -> None:
    from support.small_music import stock_model

    model = music_model("mono")
    broken = type(model)(stock_model("mono", seed=9), model.tokenizer, model.path)
    weights = broken.model.decoder.lm_heads[0] if part == "decoder" else broken.model.audio_encoder
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter.fill_(torch.nan)
    with pytest.raises(RuntimeError, match="no usable numbers"):
        compose(broken, MusicRequest("piano", 0.2))


def test_the_report_says_what_was_done() -> None:
    text = make("stereo", 0.2, rate=16000, before=sound(0.5), variations=2).report.markdown()
    assert "0.2 s, 3200 samples at 16000 Hz, from the model's 8000, stereo; variations: 2" in text
    assert "went on from the last 0.50 s" in text
    assert "windows: 1;" in text
    assert "audio support: torchaudio" in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_and_the_codec_stays_whole(dtype: torch.dtype, tmp_path: Any) -> None:
    from support.small_music import save_model
    from vivace.music.music_model import load_music_model

    model = load_music_model(save_model("mono", tmp_path), dtype, torch.device("cpu"))
    assert model.dtype == dtype
    assert {p.dtype for p in model.model.audio_encoder.parameters()} == {torch.float32}
    music = compose(model, MusicRequest("piano", 0.2))
    assert music.audio.samples == 0.2 * RATE
    assert music.report.dtype == str(dtype).removeprefix("torch.")
    assert replace(music.report, dtype="") != music.report
