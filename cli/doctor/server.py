"""The server: whether it answers, what it is, and which of our nodes it offers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UnreachableError
from ..server.http import RequestRefusedError, Server
from .finding import BROKEN, WARNING, Finding
from .installation import OLDEST_COMFYUI, Installation
from .version_numbers import at_least

_TOPIC = "server"
_NODES = Path(__file__).parents[2] / "locales" / "en" / "nodeDefs.json"
_UNAVAILABLE = "is unavailable: importing"  # in the description of a node that has no module


def our_nodes() -> list[str]:
    """The ids of this pack's nodes. (Their table needs ComfyUI to be read.)"""
    return sorted(json.loads(_NODES.read_text(encoding="utf-8")))


def look_at_server(
    server: Server, expected: bool, installation: Installation, findings: list[Finding]
) -> dict[str, Any]:
    """Address, version, devices and nodes of a server; ``reachable`` says whether there is one.

    Args:
        server: which.
        expected: somebody has named it, so that it has to be there.
        installation: what lies on this machine.
        findings: gets what is wrong.
    """
    found: dict[str, Any] = {"url": server.url, "reachable": False}
    try:
        stats = server.get("/system_stats")
        system = stats["system"]
        found["comfyui"] = str(system["comfyui_version"])
        found["python"] = str(system["python_version"]).split()[0]
        found["torch"] = str(system["pytorch_version"])
        found["devices"] = [_device(one) for one in stats["devices"]]
        nodes = {name: server.get(f"/object_info/{name}") for name in our_nodes()}
    except (UnreachableError, RequestRefusedError) as error:
        level = BROKEN if expected or isinstance(error, RequestRefusedError) else WARNING
        findings.append(Finding(level, _TOPIC, error.problem, error.remedy))
        return found
    except (KeyError, TypeError, AttributeError, IndexError):
        problem = f"What answers at {server.url} is not ComfyUI"
        findings.append(Finding(BROKEN, _TOPIC, problem, "Name its address with --server"))
        return found
    found["reachable"] = True
    found["nodes"] = {name: bool(answer) for name, answer in nodes.items()}
    _judge_version(found["comfyui"], installation, findings)
    _judge_nodes(nodes, findings)
    return found


def _device(one: dict[str, Any]) -> dict[str, Any]:
    keys = ("name", "type", "vram_total", "vram_free")
    return {key: one.get(key) for key in keys}


def _judge_version(version: str, installation: Installation, findings: list[Finding]) -> None:
    if not at_least(version, OLDEST_COMFYUI):
        problem = f"The server's ComfyUI {version} is too old: the pack needs {OLDEST_COMFYUI}"
        findings.append(Finding(BROKEN, _TOPIC, problem, "Update ComfyUI"))
    elif installation.version and installation.version != version:
        problem = (
            f"The server runs ComfyUI {version}, but {installation.folder} holds"
            f" {installation.version}"
        )
        remedy = "Restart the server if it was updated, or name the right --comfyui or --server"
        findings.append(Finding(WARNING, _TOPIC, problem, remedy))


def _judge_nodes(nodes: dict[str, Any], findings: list[Finding]) -> None:
    missing = [name for name, answer in nodes.items() if not answer]
    if missing:
        some = "none of our nodes" if len(missing) == len(nodes) else f"no {', '.join(missing)}"
        remedy = "Install or update ComfyUI-Vivace there, restart ComfyUI, and see its log"
        findings.append(Finding(BROKEN, _TOPIC, f"The server offers {some}", remedy))
    for name, answer in nodes.items():
        description = str(answer[name].get("description", "")) if answer else ""
        if _UNAVAILABLE in description:
            problem, _, remedy = description.partition(". ")
            findings.append(Finding(BROKEN, _TOPIC, problem, remedy.rstrip(".")))
