"""Shows how far a prompt is: a bar per running node on a terminal, else a line per node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..output import Output
    from .events import Event


class PromptProgress:
    """The display of one prompt; a context manager.

    Args:
        out: where to.
        what: a word for the prompt.
        titles: of its nodes, by id.
    """

    def __init__(self, out: Output, what: str, titles: Mapping[str, str]) -> None:
        self._out = out
        self._what = what
        self._titles = titles
        self._done: set[str] = set()
        self._told: set[str] = set()
        self._bars = _bars() if out.live else None
        self._tasks: dict[str, TaskID] = {}
        self._whole: TaskID | None = None

    def __enter__(self) -> PromptProgress:
        if self._bars is not None:
            self._bars.start()
            self._whole = self._bars.add_task(self._what, total=len(self._titles))
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def waiting(self, ahead: int) -> None:
        """The prompt waits for others."""
        if self._bars is not None and self._whole is not None:
            text = f"{self._what}: waiting for {ahead} other prompt{'s' * (ahead != 1)}"
            self._bars.update(self._whole, description=text)

    def show(self, event: Event) -> None:
        """Take in what the server says about this prompt."""
        kind, data = event
        if kind == "execution_start" and self._bars is not None and self._whole is not None:
            self._bars.update(self._whole, description=self._what)
        elif kind == "execution_cached":
            for node in data.get("nodes", []):
                self._finish(str(node))
        elif kind == "progress_state":
            for node in data.get("nodes", {}).values():
                self._state(node)
        elif kind == "executing" and data.get("node"):
            self._node(str(data["node"]), 0, 1)
        elif kind == "executed":
            self._finish(str(data.get("node")))

    def _state(self, node: Mapping[str, Any]) -> None:
        id_ = str(node.get("node_id"))
        if node.get("state") == "finished":
            self._finish(id_)
        elif node.get("state") == "running":
            self._node(id_, float(node.get("value", 0)), float(node.get("max", 1)))

    def _node(self, id_: str, value: float, total: float) -> None:
        title = self._titles.get(id_.split(".", 1)[0], f"node {id_}")
        if self._bars is None:
            if id_ not in self._told:
                self._told.add(id_)
                self._out.note(f"{self._what}: {title} [{len(self._told)}/{len(self._titles)}]")
            return
        if id_ not in self._tasks:
            self._tasks[id_] = self._bars.add_task(f"  {title}", total=total)
        self._bars.update(self._tasks[id_], completed=value, total=total)

    def _finish(self, id_: str) -> None:
        if id_ in self._titles:
            self._done.add(id_)
        if self._bars is None:
            return
        if self._whole is not None:
            self._bars.update(self._whole, completed=len(self._done))
        if id_ in self._tasks:
            self._bars.remove_task(self._tasks.pop(id_))


def _bars() -> Progress | None:
    import sys

    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )
    except ImportError:  # it is an optional extra
        return None
    text = TextColumn("{task.description}", markup=False)
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(file=sys.stderr), transient=True)
