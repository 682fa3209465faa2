"""From timings of image embedding to ratios, targets, and the reasons of those missed."""

from __future__ import annotations

from .harness import Result, Target, spread
from .vlm_images import Run

_BELOW_ULTRA = ("high", "balanced", "fast")
_PRESET_TARGETS = {1: {"balanced": 2.1, "fast": 3.5}, 4: {"balanced": 2.0}}
_COMPILED_TARGET, _CACHED_TARGET = Target("at least", 2.7), Target("at least", 350)
_COPY_TARGET = Target("at most", 1)


class Ratios:
    """The results of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._case = run.case

    def all(self) -> list[Result]:
        """Presets among each other, then ours beside plain transformers."""
        return [*self._presets(), *self._cached(), *self._encoders(), *self._copies()]

    def _presets(self) -> list[Result]:
        targets = _PRESET_TARGETS[self._run.load.count]
        found = []
        for name in _BELOW_ULTRA:
            target = Target("at least", targets[name]) if name in targets else None
            reason = self._preset_reason(name)
            found += self._pair(f"ultra / {name}", "ultra, eager, cold", f"{name}, eager, cold",
                                target, reason)  # fmt: skip
            seeds = name == "balanced" and self._run.load.count == 1
            target = _COMPILED_TARGET if seeds else None
            reason = self._compiled_reason(name)
            found += self._pair(f"ultra / {name} compiled", "ultra, eager, cold",
                                f"{name}, compiled, cold", target, reason)  # fmt: skip
        return found

    def _cached(self) -> list[Result]:
        run = self._run
        target = _CACHED_TARGET if run.load.count == 1 and run.bed.whole else None
        found = self._pair("seen before: ultra / balanced cached", "ultra, eager, cold",
                           "balanced, eager, cached", target, self._cached_reason())  # fmt: skip
        for name in run.load.presets:
            new = f"{name}, eager, cold"
            found += self._pair(f"seen before: new / cached, {name}", new, f"{name}, eager, cached")
            found += self._pair(f"seen before: new / from disk, {name}", new, f"{name}, disk")
        return found

    def _encoders(self) -> list[Result]:
        found = []
        for name in self._run.load.presets:
            eager, compiled = f"{name}, eager, cold", f"{name}, compiled, cold"
            found += self._pair(f"eager / compiled, {name}", eager, compiled)
            found += self._pair(f"plain / ours, {name}", f"{name}, plain", eager)
            found += self._pair(f"plain / ours compiled, {name}", f"{name}, plain",
                                compiled)  # fmt: skip
        return found

    def _copies(self) -> list[Result]:
        if self._run.bed.device == "cpu":
            return []
        return [
            _result(
                self._case,
                f"copy to the device / encoder, {case}",
                self._run.shares(case, "copy", "encode"),
                _COPY_TARGET,
                "the encoder is faster than the bus for so few patches",
            )
            for case in self._run.stages
        ]

    def _pair(
        self,
        label: str,
        numerator: str,
        denominator: str,
        target: Target | None = None,
        reason: str = "",
    ) -> list[Result]:
        ratios = self._run.timings.ratios(numerator, denominator)
        return [_result(self._case, label, ratios, target, reason)] if ratios else []

    def _preset_reason(self, name: str) -> str:
        run, case = self._run, f"{name}, eager"
        if case not in run.stages or "ultra" not in run.tokens:
            return ""
        fewer = run.tokens["ultra"] / run.tokens[name]
        before = run.stage(case, "hash", "preprocess")
        whole = before + run.stage(case, "copy", "encode")
        return (
            f"tokens become {fewer:.2f} times fewer; hashing and preprocessing depend on the size"
            f" of the image given, and take {before:.3g} of {whole:.3g} ms"
        )

    def _compiled_reason(self, name: str) -> str:
        run = self._run
        if f"{name}, compiled" not in run.stages:
            return ""
        eager, compiled = (run.stage(f"{name}, {way}", "encode") for way in ("eager", "compiled"))
        return (
            f"compiling takes the encoder from {eager:.4g} to {compiled:.4g} ms: what remains is"
            f" products of matrices, which the same library computes; {self._preset_reason(name)}"
        )

    def _cached_reason(self) -> str:
        run = self._run
        digest, ultra = run.stage("balanced, eager", "hash"), run.stage("ultra, eager", "encode")
        return (
            f"finding the image takes its hash, {digest:.3g} ms; the encoder at ultra takes"
            f" {ultra:.4g} ms here, so no cache that looks at the pixels is much faster"
        )


def _result(
    case: str, label: str, ratios: list[float], target: Target | None, reason: str
) -> Result:
    ratio = spread(ratios)
    missed = target is not None and not target.hit(ratio["median"])
    return Result(case, label, ratio, target, reason if missed else None)
