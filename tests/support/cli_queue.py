"""The server's queue as another client sees it, and commands that are interrupted in it."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.cli_process import start
from vivace.devkit.rig.client import ComfyClient

FLOW = Path(__file__).parents[1] / "data" / "ui_workflow.json"


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something, and fail if it does not happen."""
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Queue:
    """The queue of one server."""

    def __init__(self, client: ComfyClient) -> None:
        self.client = client

    def ids(self, kind: str) -> list[str]:
        """The prompts that are `pending` or `running`."""
        return [item[1] for item in self.client.get_json("/queue")[f"queue_{kind}"]]


@contextmanager
def endless_run(queue: Queue, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that does not end by itself, at work."""
    words = ("--set=KSampler.steps=10000", "--set=KSampler.seed=5", "--set=4.width=512")
    process = start(queue.client.url, "run", FLOW, *words, "-o", folder)
    until(lambda: len(queue.ids("running")) == 1, "the prompt did not start")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        until(lambda: not queue.ids("running"), "the prompt did not end")


def interrupt_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> str:
    """Press Ctrl-C once something is so; what the command says to that."""
    until(lambda: condition() or process.poll() is not None, "the time to interrupt did not come")
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    return errors


def check_pending_is_cancelled(queue: Queue, folder: Path, *words: str | Path) -> None:
    """A command whose prompt waits takes it along when it is interrupted."""
    with endless_run(queue, folder):
        process = start(queue.client.url, *words)
        interrupt_when(process, lambda: len(queue.ids("pending")) == 1)
        assert queue.ids("pending") == []
        assert len(queue.ids("running")) == 1
