"""Which tests a process runs in a row, when several share the work."""

from __future__ import annotations

from xdist.scheduler import LoadFileScheduling

# The server of these has several models in memory, up to 9 GB: there is room for one such.
TOGETHER = "tests/cli_server"


class Scheduling(LoadFileScheduling):
    """File by file, but one folder as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return TOGETHER if file.startswith(f"{TOGETHER}/") else file
