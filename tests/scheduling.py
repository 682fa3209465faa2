"""Which tests a process runs in a row, when several share the work."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# The server of these has several models in memory, up to 9 GB: there is room for one such.
TOGETHER = "tests/server/commands"
# Files whose tests start servers, browsers and programs, and wait for them.
WAITING = (
    "tests/browser/",
    "tests/devkit/",
    "tests/server/",
    "tests/pack/faults/",
    "tests/pack/migrate/",
    "tests/pack/test_",
)


class Scheduling(LoadFileScheduling):
    """File by file, but one folder as a whole.

    Of three processes and more, the last never starts a server, which takes some GB: it runs the
    tests that compute while the others wait for theirs.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER if file.startswith(f"{TOGETHER}/") else file

    def _reschedule(self, node: WorkerController) -> None:
        if self._computes(node) and not node.shutting_down and self._next(waiting=False) is None:
            node.shutdown()
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        scope = self._next(waiting=not self._computes(node))
        if scope is not None:
            self.workqueue.move_to_end(scope, last=False)
        super()._assign_work_unit(node)

    def _computes(self, node: WorkerController) -> bool:
        return len(self.nodes) > 2 and node is self.nodes[-1]

    def _next(self, waiting: bool) -> str | None:
        found = (scope for scope in self.workqueue if scope.startswith(WAITING) == waiting)
        return next(found, None)
