"""What an answer took, stage by stage, for people."""

from __future__ import annotations

from dataclasses import dataclass

from .embed import EmbedReport


@dataclass(frozen=True)
class EngineReport:
    """Times in milliseconds, and tokens of all requests of one call.

    Attributes:
        computed_tokens: of the prompt's tokens, those not taken from kept beginnings.
        new_tokens: tokens written, those that ended an answer included.
        decode_ms: without `decode_warmup_ms`, which compiling took.
        decode_eager_reason: why decoding was not compiled; None if it was.
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
        for number, grid in enumerate(self.images.grids, 1):
            lines.append(f"- image {number}: {grid.width}x{grid.height}, {grid.tokens} tokens")
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
