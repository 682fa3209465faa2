"""Music of any length: windows of codes that each go on from the last, and sound out of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import torch

from ..defaults import DEFAULTS
from .audio_input import Audio, with_batch, with_channels
from .code_sampler import CodeSampler, CodeSampling
from .code_writer import new_steps, write_codes
from .codec import decode, encode
from .condition import Melody, condition, text_states
from .errors import MusicError
from .music_model import MusicModel
from .music_report import MusicReport
from .resample import resample

MIN_SECONDS, MAX_SECONDS = 0.1, 300.0
MIN_RATE, MAX_RATE = 8000, 192000
MAX_VARIATIONS = 16
_EASE_SECONDS = 0.01

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class MusicRequest:
    """What to make.

    Attributes:
        prompt: what it shall sound like; may be empty beside a melody or audio to go on from.
        seconds: how long the new part lasts.
        variations: how many are made at once.
        melody: a tune to follow.
        before: audio to go on from; one for all variations, or one for each.
        include_before: whether the result begins with it.
        rate: samples per second of the result; 0 for those of `before` if it is included, and for
            the model's own otherwise.
        overlap: seconds that each further window of a long piece is given of the one before.

    Raises:
        MusicError: a number outside its range, or nothing to go by.
    """

    prompt: str
    seconds: float
    variations: int = 1
    melody: Audio | None = None
    before: Audio | None = None
    include_before: bool = True
    rate: int = 0
    overlap: float = DEFAULTS["VivaceGenerateMusic"]["overlap"]
    sampling: CodeSampling = field(default_factory=CodeSampling)

    def __post_init__(self) -> None:
        if not MIN_SECONDS <= self.seconds <= MAX_SECONDS:  # nor NaN
            raise MusicError(
                f"duration is {self.seconds} s; give {MIN_SECONDS} to {MAX_SECONDS:.0f} s. Longer"
                " pieces come from several nodes, each going on from the one before"
            )
        if self.rate and not MIN_RATE <= self.rate <= MAX_RATE:
            raise MusicError(
                f"sample_rate is {self.rate}; give {MIN_RATE} to {MAX_RATE}, or 0 for the model's"
            )
        if not 1 <= self.variations <= MAX_VARIATIONS:
            raise MusicError(f"variations is {self.variations}; give 1 to {MAX_VARIATIONS}")
        if not (math.isfinite(self.overlap) and self.overlap > 0):
            raise MusicError(f"overlap is {self.overlap} s; give more than 0")
        if not self.prompt.strip() and self.melody is None and self.before is None:
            raise MusicError(
                "prompt is empty. Say what the music shall sound like, or connect a melody or audio"
                " to go on from"
            )


@dataclass(frozen=True)
class Music:
    """What was made."""

    audio: Audio
    report: MusicReport


def compose(
    model: MusicModel, request: MusicRequest, progress: Progress = lambda done, total: None
) -> Music:
    """Make music. Neither torch's nor Python's random numbers are touched.

    The new part has exactly ``round(seconds * rate)`` samples, none beyond -1 to 1. Given audio
    that is included stays as it is, but for the rate and the channels.

    Args:
        progress: is told before each step how many are done, of how many; it may raise.

    Raises:
        MusicError: the model cannot do what is asked.
        RuntimeError: the model computes no usable numbers.
    """
    started = perf_counter()
    job = Job(model, request, progress)
    known = job.known()
    codes, windows = job.write(known)
    written = perf_counter()
    audio, clipped = job.sound(known, codes)
    report = MusicReport(
        model=model.path.name,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        seconds=request.seconds,
        samples=job.new_samples,
        rate=audio.rate,
        model_rate=model.rate,
        channels=model.channels,
        variations=request.variations,
        windows=windows,
        steps=job.done,
        known_seconds=known.shape[-1] / model.frame_rate,
        clipped=clipped,
        write_ms=(written - started) * 1000,
        decode_ms=(perf_counter() - written) * 1000,
    )
    return Music(audio, report)


class Job:
    """One request to a model: what it is to write, and how far it has come."""

    def __init__(self, model: MusicModel, request: MusicRequest, progress: Progress) -> None:
        self.model, self.request, self.progress = model, request, progress
        self.done = self.total = 0
        before = request.before if request.include_before else None
        self.rate = request.rate or (before.rate if before else model.rate)
        self.new_samples = round(request.seconds * self.rate)
        # Where rates differ, the join is rounded to a sample, too.
        samples = self.new_samples + (self.rate != model.rate)
        self.frames = math.ceil(samples * model.rate / (self.rate * model.hop))
        self.text = text_states(model, request.prompt)
        self.melody = None if request.melody is None else Melody(model, request.melody)
        taken = 0
        if model.takes_melody:
            taken = int(model.model.config.chroma_length) + self.text.shape[1]
        self.window = model.window_frames(taken)
        if self.window < 2:
            raise MusicError(f"{model.path.name}: the prompt leaves no room for music. Shorten it")
        self.overlap = min(max(1, round(request.overlap * model.frame_rate)), self.window - 1)

    def known(self) -> torch.Tensor:
        """The codes of the end of the given audio, `[batch, codebooks, frames]`."""
        model, request = self.model, self.request
        empty = torch.zeros(
            request.variations, model.codebooks, 0, dtype=torch.long, device=model.device
        )
        if request.before is None:
            return empty
        before = request.before
        seconds = math.ceil(self.window / model.frame_rate) + 1
        tail = before.waveform[..., -seconds * before.rate :]
        tail = with_channels(tail, model.channels)
        tail = resample(tail, before.rate, model.rate, "Audio to go on from")
        # Whole frames that end where the audio does: a frame of silence would be gone on from.
        frames = min(tail.shape[-1] // model.hop, self.window - 1)
        if not frames:
            raise MusicError(
                f"continue_from lasts {before.seconds:.3f} s; give at least"
                f" {model.hop / model.rate:.3f} s"
            )
        codes = encode(model, tail[..., -frames * model.hop :])
        return with_batch(codes, request.variations, "continue_from")

    def write(self, known: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return all codes, those known in front, and the number of windows."""
        plan = self.windows(known.shape[-1])
        self.total = sum(new_steps(self.model, frames) for _, frames in plan)
        sampler = CodeSampler(self.request.sampling, self.request.variations)
        codes = known
        for context, frames in plan:
            start = codes.shape[-1] - context
            new = write_codes(
                self.model,
                self._states((start - known.shape[-1]) / self.model.frame_rate),
                codes[..., start:],
                frames,
                sampler,
                self._before_step,
            )
            codes = torch.cat((codes, new), -1)
        return codes, len(plan)

    def windows(self, known: int) -> list[tuple[int, int]]:
        """For each window, the frames that it goes on from and those that it adds."""
        plan, here, missing = [], known, self.frames
        while missing:
            room = self.window - min(missing, self.window - self.overlap)
            context = min(here, room)
            frames = min(missing, self.window - context)
            plan.append((context, frames))
            here, missing = here + frames, missing - frames
        return plan

    def _states(self, seconds: float) -> torch.Tensor:
        """What the decoder hears in the window that begins at this time of the new part."""
        request = self.request
        chroma = None
        if self.melody is not None:
            chroma = with_batch(self.melody.chroma(seconds), request.variations, "melody")
        return condition(self.model, self.text, chroma, request.variations, request.sampling.guided)

    def _before_step(self) -> None:
        self.progress(self.done, self.total)
        self.done += 1

    def sound(self, known: torch.Tensor, codes: torch.Tensor) -> tuple[Audio, int]:
        """Return the sound at the rate of the result, and how many samples were clipped."""
        model, request = self.model, self.request
        waveform = resample(decode(model, codes), model.rate, self.rate, "sample_rate")
        begin = round(known.shape[-1] * model.hop * self.rate / model.rate)
        new = waveform[..., begin : begin + self.new_samples]
        given = None if request.before is None else self._given(request.before)
        if given is not None:
            new = _eased(given, new, self.rate)
        clipped = int((new.abs() > 1).sum())
        new = new.clamp(-1, 1)
        if given is not None and request.include_before:
            new = torch.cat((given, new), -1)
        return Audio(new.contiguous(), self.rate), clipped

    def _given(self, before: Audio) -> torch.Tensor:
        waveform = with_channels(before.waveform, self.model.channels)
        waveform = with_batch(waveform, self.request.variations, "continue_from")
        return resample(waveform, before.rate, self.rate, "Audio to go on from")


def _eased(given: torch.Tensor, new: torch.Tensor, rate: int) -> torch.Tensor:
    """Take the step out of the join: what the codec misses fades away within some samples."""
    length = min(new.shape[-1], max(1, round(_EASE_SECONDS * rate)))
    fade = torch.linspace(1, 0, length + 1)[:-1]
    eased = new.clone()
    eased[..., :length] += (given[..., -1:] - new[..., :1]) * fade
    return eased
