"""Looks at a server's process, and at what is alive inside."""

from __future__ import annotations

import json
from dataclasses import dataclass

import psutil

from ..rig.client import ComfyClient
from .jobs import Job, node
from .runner import Runner

# Zero whenever a model without LoRAs has run.
LEFT_OVER = ("patched_layers", "merged_weights")


@dataclass(frozen=True)
class Sample:
    """Figures after so many prompts."""

    prompts: int
    values: dict[str, int]


class Watch:
    """Takes samples of one server.

    Before each, every model runs once without LoRAs, so that the same is loaded each time. The
    results are compared, too.
    """

    def __init__(self, pid: int, client: ComfyClient, bases: list[Job]) -> None:
        self.samples: list[Sample] = []
        self._process = psutil.Process(pid)
        self._client = client
        self._bases = bases

    def look(self, runner: Runner) -> Sample:
        """Run the bases and take a sample."""
        for job in self._bases:
            runner.job(job)
        counts = self._client.run({"probe": node("VivaceSoakProbe")})["probe"]["counts"][0]
        values = {**self._of_process(), **json.loads(counts)}
        sample = Sample(runner.record.prompts, values)
        self.samples.append(sample)
        left = {name: values[name] for name in LEFT_OVER if values[name]}
        if left:
            runner.record.unexpected.append(f"after {sample.prompts} prompts there are {left}")
        return sample

    def _of_process(self) -> dict[str, int]:
        memory = self._process.memory_info()
        values = {"rss": memory.rss, "threads": self._process.num_threads()}
        if hasattr(memory, "shared"):  # on Linux; files that are mapped come and go
            values["own_memory"] = memory.rss - memory.shared
        if hasattr(self._process, "num_fds"):
            values["open_files"] = self._process.num_fds()
        return values
