"""Has a server run the steps of a plan, and notes what does not go as it should."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass, field

from ..rig.client import ComfyClient, PromptFailedError, PromptRejectedError
from ..rig.server import ComfyServer
from .digest import Digest, digest
from .jobs import Cache, Job
from .plan import Step
from .servers import free

INTERRUPTED = "interrupted"
WAIT_SECONDS = 300.0


@dataclass
class Record:
    """What happened so far.

    Attributes:
        kinds: prompts that came to an end, by kind.
        fates: how prompts ended: finished, interrupted, deleted, refused as expected.
        digests: of each job that finished, with the number of its first prompt.
        repeated: jobs that finished again, and were compared with the first time.
        unexpected: errors that nobody asked for, and results that were others the second time.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    fates: Counter[str] = field(default_factory=Counter)
    digests: dict[Job, tuple[int, Digest]] = field(default_factory=dict)
    repeated: int = 0
    unexpected: list[str] = field(default_factory=list)

    @property
    def prompts(self) -> int:
        """How many prompts came to an end."""
        return sum(self.kinds.values())


class Runner:
    """Runs steps on one server."""

    def __init__(self, server: ComfyServer, client: ComfyClient) -> None:
        self.client = client
        self.record = Record()
        self._output = server.output
        self._queued = 0

    def run(self, step: Step) -> None:
        """Run a step to its end; what is wrong goes into the record.

        Raises:
            OSError: the server does not answer any more.
        """
        if step.how == "free":
            free(self.client)
            self.record.fates["models and results dropped"] += 1
        elif step.how == "wrong":
            self._refused(step)
        else:
            self._together(step)
        for path in self._output.rglob("*"):
            if path.is_file():
                path.unlink()

    def job(self, job: Job) -> None:
        """Run one job that is not counted among the prompts of the plan, and compare it."""
        self._compare(job, self._end(self._queue(job), job))

    def _together(self, step: Step) -> None:
        ids = [self._queue(job) for job in step.jobs]
        gone = None
        if step.how == "delete" and len(ids) > 2:
            gone = ids[1]
            self.client.post("/queue", {"delete": [gone]})
        if step.how == "interrupt":
            time.sleep(step.delay)
            self.client.post("/interrupt", {})
        for prompt_id, job in zip(ids, step.jobs, strict=True):
            if prompt_id != gone:
                ended = self._end(prompt_id, job, step.how == "interrupt")
                self._note(job, "finished" if isinstance(ended, dict) else ended)
                self._compare(job, ended)
        if gone is not None:
            self._gone(gone, step.jobs[1])

    def _gone(self, prompt_id: str, job: Job) -> None:
        ran = self.client.get_json(f"/history/{prompt_id}")
        if ran:
            self.record.unexpected.append(f"{job}: it ran though it was deleted from the queue")
        self._note(job, "finished" if ran else "deleted")

    def _queue(self, job: Job) -> str:
        self._queued += 1
        return self.client.queue(job.prompt(self._queued))

    def _end(self, prompt_id: str, job: Job, may_stop: bool = False) -> Digest | str:
        """The digest, or how else it ended."""
        try:
            return digest(self.client, self.client.wait(prompt_id, WAIT_SECONDS))
        except PromptFailedError as error:
            if "exception_type" not in error.details and may_stop:
                return INTERRUPTED
            self.record.unexpected.append(f"{job}: {error}")
        except TimeoutError as error:
            self.record.unexpected.append(f"{job}: {error}")
        finally:
            self.client.post("/history", {"delete": [prompt_id]})
        return "failed"

    def _refused(self, step: Step) -> None:
        (job,) = step.jobs
        try:
            self.client.wait(self._queue(job), WAIT_SECONDS)
        except (PromptFailedError, PromptRejectedError) as error:
            said = str(error)
        else:
            said = "no error at all"
        if not re.search(step.message, said):
            self.record.unexpected.append(f"{job}: expected {step.message!r}, got: {said}")
        self._note(job, "refused as expected")

    def _note(self, job: Job, fate: str) -> None:
        self.record.kinds[job.kind] += 1
        self.record.fates[fate] += 1

    def _compare(self, job: Job, ended: Digest | str) -> None:
        if isinstance(ended, str) or isinstance(job, Cache):
            return
        first, known = self.record.digests.setdefault(job, (self._queued, ended))
        if known is ended:
            return
        self.record.repeated += 1
        if known != ended:
            differ = [name for name in known if known[name] != ended.get(name)]
            self.record.unexpected.append(
                f"{job}: {', '.join(differ)} of prompt {self._queued} differ from prompt {first}"
            )
