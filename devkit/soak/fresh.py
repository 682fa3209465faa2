"""Runs prompts of a soak once more on servers that were just started, and compares."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ..rig.client import ComfyClient
from ..rig.server import ComfyServer
from .digest import Digest, digest
from .jobs import Job
from .servers import forget

FOR_EACH_SERVER = 8
Checkpoint = tuple[Job, int, Digest]


class Start(Protocol):
    """Starts a server."""

    def __call__(self) -> AbstractContextManager[tuple[ComfyServer, ComfyClient]]: ...


def choose(digests: Mapping[Job, tuple[int, Digest]], count: int, seed: int) -> list[Checkpoint]:
    """So many jobs at random, by turns of each kind."""
    order = random.Random(seed)  # noqa: S311 - nothing secret
    piles: dict[str, list[Checkpoint]] = {}
    for job, (number, found) in digests.items():
        piles.setdefault(job.kind, []).append((job, number, found))
    for pile in piles.values():
        order.shuffle(pile)
    chosen: list[Checkpoint] = []
    while len(chosen) < count and any(piles.values()):
        chosen += [pile.pop() for pile in piles.values() if pile]
    return chosen[:count]


def unequal(checkpoints: Sequence[Checkpoint], start: Start) -> list[str]:
    """What came out otherwise on a fresh server, in words; some share one, which forgets between.

    Raises:
        PromptFailedError: one failed there.
    """
    found: list[str] = []
    for first in range(0, len(checkpoints), FOR_EACH_SERVER):
        with start() as (_, client):
            for job, number, wanted in checkpoints[first : first + FOR_EACH_SERVER]:
                got = digest(client, client.run(job.prompt(number)))
                found += differences(job, number, wanted, got)
                forget(client)
    return found


def differences(job: Job, number: int, wanted: Digest, got: Digest) -> list[str]:
    """A line for each output that is not the same."""
    return [
        f"{job}: {name} of prompt {number} is not that of a fresh server"
        for name in wanted.keys() | got.keys()
        if wanted.get(name) != got.get(name)
    ]
