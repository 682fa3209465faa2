"""What an answer took, stage by stage, for people."""

from __future__ import annotations

from dataclasses import dataclass

from .vision.image_embeddings import EmbedReport

_SHOWN = 8


@dataclass(frozen=True)
class EngineReport:
    """Times in milliseconds, and tokens of all requests of one call.

    Attributes:
        computed_tokens: of the prompt's tokens, those not taken from kept beginnings.
        new_tokens: tokens written, those that ended an answer included.
        decode_ms: without `decode_warmup_ms`, which compiling took.
        decode_eager_reason: why decoding, the last, was not compiled; None if it was.
    """

    images: EmbedReport
    prompt_tokens: int
    computed_tokens: int
    new_tokens: int
    prefill_ms: float
    decode_ms: float
    decode_warmup_ms: float
    decode_eager_reason: str | None

    @property
    def tokens_per_second(self) -> float:
        """Of decoding alone."""
        return self.new_tokens / self.decode_ms * 1000 if self.decode_ms else 0.0

    def __add__(self, other: EngineReport) -> EngineReport:
        return EngineReport(
            self.images + other.images,
            self.prompt_tokens + other.prompt_tokens,
            self.computed_tokens + other.computed_tokens,
            self.new_tokens + other.new_tokens,
            self.prefill_ms + other.prefill_ms,
            self.decode_ms + other.decode_ms,
            self.decode_warmup_ms + other.decode_warmup_ms,
            other.decode_eager_reason,
        )

    def markdown(self) -> str:
        """A table of the stages, and what the caches spared."""
        times = self.images.times
        stages = {
            "detail": times.detail,
            "hash": times.hash,
            "preprocess": times.preprocess,
            "copy": times.copy,
            "encode": times.encode,
            "compile": times.compile,
            "prefill": self.prefill_ms,
            "compile decoding": self.decode_warmup_ms,
            "decode": self.decode_ms,
        }
        always = ("prefill", "decode")
        rows = [f"| {name} | {ms:.1f} |" for name, ms in stages.items() if ms or name in always]
        lines = ["| stage | ms |", "|---|---:|", *rows, ""]
        for number, grid in enumerate(self.images.grids[:_SHOWN], 1):
            line = f"- image {number}: {grid.width}x{grid.height}, {grid.tokens} tokens"
            lines.append(line + self._choice(number - 1))
        if (more := len(self.images.grids) - _SHOWN) > 0:
            lines.append(f"- and {more} more images")
        if self.images.grids:
            lines.append(
                f"- images: {self.images.hits} from the cache, {self.images.misses} encoded, "
                f"{self.images.duplicates} repeated"
            )
        reused = self.prompt_tokens - self.computed_tokens
        lines.append(f"- prompt: {self.prompt_tokens} tokens, {reused} of them kept from before")
        lines.append(f"- answer: {self.new_tokens} tokens, {self.tokens_per_second:.1f} per second")
        lines.append(f"- decode: {self._decode_kind()}")
        return "\n".join(lines) + "\n"

    def _decode_kind(self) -> str:
        if self.decode_eager_reason is not None:
            return f"eager ({self.decode_eager_reason})"
        if self.decode_warmup_ms:
            return f"compiled, warm-up {self.decode_warmup_ms:.0f} ms"
        return "compiled"

    def _choice(self, place: int) -> str:
        """What `auto` chose for an image: that, and the share of `ultra`'s detail it keeps."""
        if place >= len(self.images.choices):
            return ""
        choice = self.images.choices[place]
        return f"; auto chose {choice.quality}, which keeps {choice.kept[choice.quality]:.0%}"
