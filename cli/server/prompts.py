"""Queues a prompt, follows it to its end, and cancels it when the command is interrupted."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import CliError, UnreachableError
from .events import Events
from .http import Json, RequestRefusedError, Server
from .progress import PromptProgress

if TYPE_CHECKING:
    from ..output import Output

Prompt = dict[str, dict[str, Any]]
_POLL = 1.0
_ENDED = ("execution_success", "execution_error", "execution_interrupted")


class PromptError(CliError):
    """A prompt was refused or failed; `nodes` has the messages by node id."""

    def __init__(self, problem: str, remedy: str, nodes: Mapping[str, list[str]]) -> None:
        super().__init__(problem, remedy)
        self.nodes = nodes


class Runner:
    """Runs prompts on one server, one after the other."""

    def __init__(self, server: Server, out: Output) -> None:
        self.server = server
        self.out = out
        self._events = Events(server.url)
        self._open = False

    def run(self, prompt: Prompt, what: str, extra: Json | None = None) -> tuple[str, Json]:
        """Queue a prompt and wait for it.

        Args:
            prompt: in the API format.
            what: a word for it, for the display.
            extra: what the server writes into pictures beside the prompt, such as the workflow.

        Returns:
            Its id, and the outputs by node id.

        Raises:
            PromptError: the server refused it, or a node failed; the message lists the nodes.
            CliError: somebody interrupted or removed it, or the server was started again.
            UnreachableError: the server is gone, or stayed silent for `timeout` seconds.
        """
        if not self._open:
            self._open = True
            self._events.open()
            if self._events.missing:
                self.out.note(f"Install {self._events.missing} to see the progress of each node.")
        id_ = str(uuid.uuid4())
        try:
            self._queue(id_, prompt, extra)
            with PromptProgress(self.out, what, titles(prompt)) as progress:
                return id_, self._outputs(self._wait(id_, progress), prompt)
        except (KeyboardInterrupt, SystemExit):
            self._cancel(id_)
            raise

    def _queue(self, id_: str, prompt: Prompt, extra: Json | None) -> None:
        body: Json = {"prompt": prompt, "client_id": self._events.client_id, "prompt_id": id_}
        if extra:
            body["extra_data"] = {"extra_pnginfo": extra}
        try:
            answer = self.server.post("/prompt", body)
        except RequestRefusedError as error:
            if error.status != 400:
                raise
            raise _rejected(error.body, prompt) from None
        # Outputs that are invalid are left out if others are valid; what was asked for is all.
        if isinstance(answer, dict) and answer.get("node_errors"):
            self._cancel(id_)
            raise _rejected(answer, prompt)

    def _wait(self, id_: str, progress: PromptProgress) -> Json:
        """The prompt's entry in the history."""
        asked = 0.0
        silent_since: float | None = None
        while True:
            event = self._events.next(0.2)
            if event is not None and event[1].get("prompt_id") == id_:
                progress.show(event)
            ended = event is not None and event[0] in _ENDED and event[1].get("prompt_id") == id_
            if not ended and time.monotonic() - asked < _POLL:
                continue
            try:
                entry = self._entry(id_, progress)
            except UnreachableError:
                silent_since = silent_since or time.monotonic()
                if time.monotonic() - silent_since > self.server.timeout:
                    raise
                continue
            silent_since, asked = None, time.monotonic()
            if entry is not None:
                return entry

    def _entry(self, id_: str, progress: PromptProgress) -> Json | None:
        """What became of the prompt, or None as long as it is queued."""
        # In this order: a prompt that leaves the queue is in the history by then.
        queued = self.server.get("/queue")
        found = self.server.get(f"/history/{id_}")
        if id_ in found:
            return found[id_]
        pending = sorted(queued["queue_pending"], key=lambda item: item[0])
        ids = [item[1] for item in pending]
        if id_ in ids:
            progress.waiting(ids.index(id_) + len(queued["queue_running"]))
        elif id_ not in [item[1] for item in queued["queue_running"]]:
            found = self.server.get(f"/history/{id_}")
            if id_ in found:
                return found[id_]
            problem = f"The server {self.server.url} no longer knows the prompt {id_}"
            raise CliError(problem, "It was started again, or the queue was cleared: run it again")
        return None

    def _outputs(self, entry: Json, prompt: Prompt) -> Json:
        for kind, data in entry.get("status", {}).get("messages", []):
            if kind == "execution_interrupted":
                raise CliError("The prompt was interrupted on the server", "Run it again")
            if kind == "execution_error":
                raise _failed(data, prompt)
        return entry.get("outputs", {})

    def _cancel(self, id_: str) -> None:
        """Take a prompt out of the queue, or end it; others stay. Best effort, some seconds."""
        deadline = time.monotonic() + 8
        self.server.timeout = min(self.server.timeout, 5)
        try:
            while time.monotonic() < deadline:
                queued = self.server.get("/queue")
                if any(item[1] == id_ for item in queued["queue_pending"]):
                    self.server.post("/queue", {"delete": [id_]})
                elif any(item[1] == id_ for item in queued["queue_running"]):
                    self.server.post("/interrupt", {"prompt_id": id_})
                else:
                    return
                time.sleep(0.3)
            self.out.note(f"The prompt {id_} ends when its node looks for the interruption.")
        except CliError as error:
            self.out.note(f"The prompt {id_} could not be cancelled: {error}")


def titles(prompt: Prompt) -> dict[str, str]:
    """What people call each node, by id."""
    return {
        id_: f"{node.get('_meta', {}).get('title') or node.get('class_type')} ({id_})"
        for id_, node in prompt.items()
    }


def _rejected(body: Json, prompt: Prompt) -> PromptError:
    names = titles(prompt)
    nodes: dict[str, list[str]] = {}
    lines = []
    for id_, found in (body.get("node_errors") or {}).items():
        texts = [_join(error) for error in found.get("errors", [])]
        nodes[id_] = texts
        lines += [f"  {names.get(id_, id_)}: {text}" for text in texts]
    error = body.get("error")
    whole = _join(error) if isinstance(error, dict) else str(error or "")
    problem = f"The server refused the workflow{f' ({whole})' if whole and not lines else ''}"
    if lines:
        problem += ":\n" + "\n".join(lines) + "\n"
    return PromptError(problem.rstrip(), "" if lines else "Correct it", nodes)


def _failed(data: Json, prompt: Prompt) -> PromptError:
    id_ = str(data.get("node_id"))
    name = titles(prompt).get(id_, f"{data.get('node_type')} ({id_})")
    text = " ".join(str(data.get("exception_message") or "").split())
    text = text or str(data.get("exception_type"))  # such as an assertion without a message
    return PromptError(f"{name} failed: {text}".rstrip("."), "", {id_: [text]})


def _join(error: Json) -> str:
    parts = [str(error.get("message") or ""), str(error.get("details") or "")]
    return ": ".join(part for part in parts if part)
