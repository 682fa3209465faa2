"""The whole examination, as JSON data and findings."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..server.http import Server
from ..version import version as own_version
from .finding import BROKEN, NOTE, Finding
from .installation import find_installation
from .models import look_at_models
from .packs import look_at_packs
from .python_process import NoAnswerError, ask
from .server import look_at_server
from .versions import judge, wanted

_CLIENT = {
    "rich": "tables and progress bars on terminals",
    "aiohttp": "the progress of each node of a running workflow",
}


def examine(
    *,
    comfyui: Path | None,
    python: str | None,
    models: Path | None,
    server: Server,
    server_expected: bool,
    ask_torch: bool,
) -> tuple[dict[str, Any], list[Finding]]:
    """Look at everything.

    Args:
        comfyui: ComfyUI's folder, if somebody says where it is.
        python: the Python that runs it, likewise.
        models: its models folder, likewise.
        server: the server to ask.
        server_expected: it is broken if that server does not answer.
        ask_torch: start torch, to see the GPU and whether torchvision can be imported.
    """
    findings: list[Finding] = []
    installation = find_installation(comfyui, python, findings)
    packages: dict[str, Any] = {}
    answer: dict[str, Any] = {}
    try:
        answer = ask(installation.python, "ask_packages", *wanted(installation))
        packages = answer["packages"]
        findings += judge(answer["python"], packages, installation)
    except NoAnswerError as error:
        findings.append(Finding(BROKEN, "versions", error.problem, error.remedy))
    findings += _client_extras()
    transformers = packages.get("transformers", {}).get("version", "")
    kinds = look_at_models(installation.folder, models, transformers, findings)
    packs = look_at_packs(installation.folder, findings) if installation.folder else []
    found = look_at_server(server, server_expected, installation, findings)
    gpu = found.get("devices") if found["reachable"] else None
    if ask_torch and "torch" in packages:
        gpu = _ask_torch(installation.python, findings)
    data = {
        "vivace": own_version(),
        "comfyui": installation.version or None,
        "folder": str(installation.folder) if installation.folder else None,
        "python": {"program": installation.python, "version": answer.get("python")},
        "packages": {name: one["version"] for name, one in packages.items()},
        "gpu": gpu,
        "models": kinds,
        "packs": packs,
        "server": found,
    }
    return data, findings


def _client_extras() -> list[Finding]:
    findings: list[Finding] = []
    for name, use in _CLIENT.items():
        try:
            version(name)
        except PackageNotFoundError:
            problem = f"{name} is not installed beside this command, which shows {use} with it"
            remedy = f"If you want that: pip install {name}"
            findings.append(Finding(NOTE, "versions", problem, remedy))
    return findings


def _ask_torch(python: str, findings: list[Finding]) -> list[dict[str, Any]] | None:
    try:
        answer = ask(python, "ask_torch")
    except NoAnswerError as error:
        findings.append(Finding(BROKEN, "gpu", error.problem, error.remedy))
        return None
    if answer["torchvision"]:
        problem = f"torchvision cannot be imported ({answer['torchvision']})"
        remedy = "Reinstall torch and torchvision together, from one index"
        findings.append(Finding(BROKEN, "gpu", problem, remedy))
    if not answer["devices"]:
        problem = f"torch {answer['torch']} sees no GPU, so everything runs on the CPU"
        remedy = "If there is one, check its driver, and install the torch that is built for it"
        findings.append(Finding(NOTE, "gpu", problem, remedy))
    return answer["devices"]
