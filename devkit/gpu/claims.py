"""What a claim is, and what can come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .card import Card


class Outcome(Enum):
    """What came of a claim; the value says it to people."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_APPLICABLE = "not applicable here"
    NOT_REACHED = "not reached"
    DRY_RUN = "dry run"


class NotApplicableError(Exception):
    """The claim is about something that this machine has not; the message says what."""


@dataclass(frozen=True)
class Measured:
    """What a measurement has shown.

    Attributes:
        text: the figures, in words.
        holds: whether they are as the claim says.
        values: the figures for machines.
    """

    text: str
    holds: bool
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """Something that is said of a card.

    Attributes:
        id: its name, for `--only` and for machines.
        about: the row of the audit, or the figure, that it stands for.
        sentence: the claim itself.
        measure: measures it; whatever it raises is a failure, but for `NotApplicableError`.
        seconds: what it takes on a card at most; with less time left it is not begun.
        anywhere: whether it has to hold on the CPU and with tiny models, too.
    """

    id: str
    about: str
    sentence: str
    measure: Callable[[Card], Measured]
    seconds: float
    anywhere: bool


@dataclass(frozen=True)
class Row:
    """A claim, and what came of it.

    Attributes:
        claim: the claim.
        outcome: what came of it.
        text: what was measured, or why nothing was.
        held: whether the figures are as the claim says; None if there are none.
        values: the figures.
        seconds: how long it took.
    """

    claim: Claim
    outcome: Outcome
    text: str
    held: bool | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
