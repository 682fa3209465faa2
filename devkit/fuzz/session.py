"""Runs a target on one input after the other, within bounds of time and memory."""

from __future__ import annotations

import hashlib
import random
import re
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from .refusals import REFUSALS, place_of

SECONDS = 10.0
"""Processor time that one input may take. A machine that is busy otherwise does not use it up."""
SPARE_BYTES = 96 * 2**20
BYTES_PER_BYTE = 1000
MAX_BYTES = 2**14
"""An input may raise the process's memory by `SPARE_BYTES` and this times its size."""


class Target(Protocol):
    """A module of `targets/`."""

    def target(self, data: bytes) -> None:
        """Give the input to the functions under test; raise what is a fault."""
        ...

    def seeds(self) -> Sequence[bytes]:
        """Valid inputs."""
        ...

    def mutate(self, data: bytes, chance: random.Random) -> bytes:
        """Another input, made of this one."""
        ...


class TooSlow(BaseException):
    """An input took more than `SECONDS`. Code that catches every `Exception` does not catch it."""


class TooLarge(Exception):  # noqa: N818  (a verdict, which only a session sees)
    """An input took more memory than is in proportion."""


@dataclass(frozen=True)
class Finding:
    """An input that a target failed on.

    Attributes:
        place: what was raised, and where; findings of one place are the same fault.
        trace: the traceback.
    """

    target: str
    place: str
    data: bytes
    trace: str

    @property
    def name(self) -> str:
        """A file name for the input."""
        return hashlib.sha256(self.data).hexdigest()[:16]


@dataclass
class Session:
    """Runs one target, and keeps what came of it.

    Attributes:
        inputs: how many were run.
        refusals: how often each documented error was met, by class and line.
        findings: the first input of each fault, by its place.
    """

    name: str
    target: Callable[[bytes], None]
    seconds: float = SECONDS
    inputs: int = 0
    refusals: Counter[str] = field(default_factory=Counter)
    findings: dict[str, Finding] = field(default_factory=dict)

    def warm_up(self, seeds: Sequence[bytes]) -> None:
        """Run valid inputs, after which modules are imported and tables are made.

        Raises:
            Exception: whatever the target raises; a target must take its own seeds.
        """
        for data in seeds:
            self.target(data)
        REFUSALS.clear()

    def run(self, data: bytes) -> Finding | None:
        """Run one input; return what is wrong, be it known already."""
        self.inputs += 1
        try:
            with _limited_memory(len(data)), _limited_time(self.seconds):
                self.target(data)
        except (Exception, TooSlow) as error:  # noqa: BLE001  (what a target raises is a finding)
            finding = Finding(self.name, place_of(error), data, traceback.format_exc())
            self.findings.setdefault(finding.place, finding)
            return finding
        finally:
            self.refusals += REFUSALS
            REFUSALS.clear()
        return None

    def replay(self, data: bytes) -> Finding | None:
        """Run one input that counts for nothing."""
        return Session(self.name, self.target, self.seconds).run(data)

    def shrink(self, finding: Finding, tries: int = 500) -> Finding:
        """Leave out parts of an input for as long as the fault stays, in at most so many tries."""
        best, size = finding, max(1, len(finding.data) // 2)
        while size and tries > 0:
            start = 0
            while start < len(best.data) and tries > 0:
                tries -= 1
                less = self.replay(best.data[:start] + best.data[start + size :])
                if less is not None and less.place == finding.place:
                    best = less
                else:
                    start += size
            size //= 2
        return best


def inputs(target: Target, seed: int) -> Iterator[bytes]:
    """Changed seeds without end; the same for the same `seed`."""
    chance = random.Random(seed)  # noqa: S311
    pool = list(target.seeds())
    while True:
        data = chance.choice(pool)
        for _ in range(chance.choice((1, 1, 2, 4))):
            data = target.mutate(data, chance)
        yield data[:MAX_BYTES]


@contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in the block when it has used that much processor time.

    Windows has no such clock; there nothing is limited.
    """
    if sys.platform == "win32":
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def _limited_memory(size: int) -> Iterator[None]:
    """Raise `TooLarge` after a block that raised the peak of this process's memory too far.

    Linux can forget the peak before; elsewhere only what exceeds all before is seen, on Windows
    nothing.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _peak_bytes()
    yield
    grown = _peak_bytes() - before
    allowed = SPARE_BYTES + BYTES_PER_BYTE * size
    if grown > allowed:
        raise TooLarge(f"{grown >> 20} MiB for an input of {size} bytes")


def _peak_bytes() -> int:
    """The most memory that this process has had; 0 where the system does not tell."""
    if sys.platform == "win32":
        return 0
    with suppress(OSError):
        # What getrusage says on Linux begins with the peak of the process that started this one.
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
