"""What making music took, as Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from .resample import audio_support


@dataclass(frozen=True)
class MusicReport:
    """Figures of one run.

    Attributes:
        seconds, samples: of the new part of each variation.
        rate, model_rate: samples per second, of the result and of the model.
        steps: codes of all codebooks and variations at once count as one.
        known_seconds: how much of given audio the model went on from.
        clipped: samples of the new part beyond -1 to 1, all variations together.
        write_ms, decode_ms: what writing codes took, and making sound of them.
    """

    model: str
    dtype: str
    device: str
    seconds: float
    samples: int
    rate: int
    model_rate: int
    channels: int
    variations: int
    windows: int
    steps: int
    known_seconds: float
    clipped: int
    write_ms: float
    decode_ms: float

    def markdown(self) -> str:
        """The report as a node shows it."""
        speed = self.steps / self.write_ms * 1000 if self.write_ms else 0.0
        resampled = "" if self.rate == self.model_rate else f", from the model's {self.model_rate}"
        lines = [
            f"- model: {self.model}, {self.dtype} on {self.device}",
            f"- new: {self.seconds:g} s, {self.samples} samples at {self.rate} Hz{resampled},"
            f" {'stereo' if self.channels == 2 else 'mono'}; variations: {self.variations}",
            f"- windows: {self.windows}; steps: {self.steps}, {speed:.1f} a second",
        ]
        if self.known_seconds:
            lines.append(f"- went on from the last {self.known_seconds:.2f} s of the given audio")
        lines.append(f"- clipped: {self.clipped} samples")
        lines.append(f"- audio support: {audio_support().line()}")
        return (
            "| stage | ms |\n|---|---:|\n"
            f"| writing codes | {self.write_ms:.1f} |\n| making sound | {self.decode_ms:.1f} |\n\n"
            + "\n".join(lines)
            + "\n"
        )
