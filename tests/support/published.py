"""A real ComfyUI with a copy of the pack as it is published."""

from __future__ import annotations

import sys
from pathlib import Path

from vivace.devkit.rig.server import ComfyServer


def server_with(pack: Path, work: Path, comfyui: Path) -> ComfyServer:
    """A server that has this copy of the pack, and the nodes of the tests."""
    return ComfyServer(
        Path(sys.executable),
        comfyui,
        work,
        arguments=[
            "--disable-all-custom-nodes",
            "--whitelist-custom-nodes",
            pack.name,
            "vivace_test_nodes",
        ],
        test_nodes=True,
        model_dirs={"custom_nodes": [pack.parent]},
        log=work / "server.log",
    )
