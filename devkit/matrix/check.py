"""Checks one cell, inside of its environment: ``python -m vivace.devkit.matrix.check``.

Writes versions, and what each check found, as JSON. A check that fails stops nothing but those that
need the same server.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from ..doubles.demo_models import ensure_models
from ..rig.client import ComfyClient
from ..rig.layout import MODELS, DevError
from ..rig.server import ComfyServer
from . import processes, prompts

_PACKAGES = ("torch", "transformers", "comfyui-frontend-package", "comfy-kitchen", "numpy")


class Checks:
    """What was found so far."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def run(self, name: str, check: Callable[[], str]) -> None:
        """Record what a check returns, or why it failed."""
        try:
            self.found.append({"check": name, "held": True, "detail": check()})
        except Exception as error:  # noqa: BLE001 - whatever happens is the result
            detail = f"{type(error).__name__}: {error}"
            self.found.append({"check": name, "held": False, "detail": detail})


def main() -> int:
    """Check this environment with the ComfyUI that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("comfyui", "work", "result"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    checks = Checks()
    checks.run("every module can be imported", lambda: processes.modules(options.comfyui))
    checks.run("start-up", lambda: processes.startup(options.comfyui, options.work / "startup"))
    _with_server(checks, options.comfyui, options.work)
    versions = {name: metadata.version(name) for name in _PACKAGES}
    report = {"python": platform.python_version(), **versions}
    options.result.write_text(json.dumps({"versions": report, "checks": checks.found}))
    return 0


def _with_server(checks: Checks, comfyui: Path, work: Path) -> None:
    models = work / "models"
    checks.run("a small Qwen-VL is made", lambda: prompts.make_model(models))
    ensure_models(MODELS, comfyui)
    server = ComfyServer(
        Path(sys.executable),
        comfyui,
        work / "server",
        # With dynamic VRAM, patched weights exist only while a layer runs; the check reads them.
        arguments=["--disable-dynamic-vram", "--database-url", f"sqlite:///{work / 'comfyui.db'}"],
        test_nodes=True,
        model_dirs={"LLM": [models]},
        log=work / "server.log",
    )
    with server:
        try:
            server.wait_until_ready()
        except DevError as error:
            problem = str(error)
            checks.found.append({"check": "the server starts", "held": False, "detail": problem})
            return
        client = ComfyClient(server.url)
        checks.run("every node is offered", lambda: prompts.nodes(client))
        checks.run("LoRA Stack", lambda: prompts.lora_stack(client))
        checks.run("small nodes", lambda: prompts.small_nodes(client))
        checks.run("QwenVL", lambda: prompts.qwenvl(client))
        checks.run("vivace doctor", lambda: processes.doctor(comfyui, server.url))
        checks.run("the server's log", lambda: prompts.log(work / "server.log"))
    checks.run("optional packages", lambda: processes.extras(models, work))


if __name__ == "__main__":
    sys.exit(main())
