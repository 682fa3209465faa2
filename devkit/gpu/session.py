"""Measures claims one after the other, until they are done or the time is up."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from .claims import Claim, NotApplicableError, Outcome, Row

if TYPE_CHECKING:
    from .card import Card

LIMIT = 8 * 60.0
_LONGEST = 400


class GpuSession:
    """One run over claims.

    Args:
        claims: in the order in which they are measured.
        card: where.
        limit: seconds for all of them.
        clock: seconds from some moment on.
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        card: Card,
        limit: float = LIMIT,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._claims = claims
        self._card = card
        self._clock = clock
        self._end = clock() + limit
        self._done: list[Row] = []

    def run(self) -> Iterator[Row]:
        """Measure, and yield each row when it is known. One that fails does not end the rest."""
        for claim in self._claims:
            left = self._end - self._clock()
            if left < claim.seconds:
                text = f"{max(0.0, left):.0f} s were left, it may take {claim.seconds:.0f} s"
                row = Row(claim, Outcome.NOT_REACHED, text)
            else:
                row = self._measure(claim)
            self._done.append(row)
            yield row

    def _measure(self, claim: Claim) -> Row:
        started = self._clock()
        try:
            found = claim.measure(self._card)
        except NotApplicableError as error:
            return Row(claim, Outcome.NOT_APPLICABLE, str(error))
        except Exception as error:  # noqa: BLE001 - of whatever kind: that is the result
            return Row(claim, Outcome.FAILS, _told(error), seconds=self._clock() - started)
        finally:
            gc.collect()
        good = Outcome.HOLDS if found.holds else Outcome.FAILS
        outcome = Outcome.DRY_RUN if self._card.dry else good
        seconds = self._clock() - started
        return Row(claim, outcome, found.text, found.holds, found.values, seconds)

    def rows(self) -> list[Row]:
        """A row for each claim, at any time; from another thread also while one is measured."""
        done = list(self._done)
        rest = self._claims[len(done) :]
        return done + [Row(claim, Outcome.NOT_REACHED, "the time was up") for claim in rest]


def _told(error: Exception) -> str:
    """The error, and where in this project it was, without the machine's paths."""
    text = " ".join(str(error).split())[:_LONGEST]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "devkit/gpu" in frame.filename.replace("\\", "/")]
    place = f" ({ours[-1].name}, line {ours[-1].lineno})" if ours else ""
    return f"{type(error).__name__}: {text}{place}"
