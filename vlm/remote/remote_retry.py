"""How patient to be with a server, and how long to wait between tries."""

from __future__ import annotations

import random
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time

from ...defaults import VLM


@dataclass(frozen=True)
class RemoteSettings:
    """How patient to be. All times in seconds.

    Attributes:
        connect_timeout: for the connection to stand.
        read_timeout: between two pieces of an answer, and before the first: loading a model or
            reading a long prompt falls into it.
        tries: requests in all, the first included. Repeated are refused or lost connections, HTTP
            408, 429 and 5xx, and never once text has come.
        first_delay, max_delay: the pause doubles from the one up to the other.
        max_retry_after: a server that asks for a longer pause is not waited for.
    """

    connect_timeout: float = 10.0
    read_timeout: float = VLM["engine.timeout"]
    tries: int = 4
    first_delay: float = 0.5
    max_delay: float = 20.0
    max_retry_after: float = 60.0


def retry_delay(settings: RemoteSettings, attempt: int, retry_after: float | None) -> float:
    """Seconds to wait after failed attempt number `attempt` (from 1).

    Random, so that clients that failed together do not come back together; never less than
    `retry_after`.
    """
    pause = min(settings.first_delay * 2 ** (attempt - 1), settings.max_delay)
    return (retry_after or 0.0) + pause * random.uniform(0.5, 1.0)  # noqa: S311


def parse_retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which has seconds or a date; None for anything else."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, seconds) if seconds < 1e9 else None
