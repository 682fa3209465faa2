"""Whether the installed packages fit each other, ComfyUI and this pack."""

from __future__ import annotations

import re
from typing import Any

from .finding import BROKEN, NOTE, WARNING, Finding
from .installation import Installation
from .version_numbers import at_least, build, fulfils, minor, numbers, requirements

OLDEST_PYTHON = "3.10"
QWEN3_VL = "4.57"  # the first transformers that has it
SHOWN = ("torch", "torchvision", "torchaudio", "transformers", "safetensors", "comfy-kitchen")
_OPTIONAL = ("nunchaku", "accelerate", "bitsandbytes", "onnx", "onnxscript", "onnxruntime")
_TOPIC = "versions"
_PINNED = re.compile(r"torch\s*\(?==\s*([0-9.]+)")
_BUILT_FOR = re.compile(r"torch(\d+\.\d+)")

Packages = dict[str, dict[str, Any]]


def wanted(installation: Installation) -> list[str]:
    """Names of the packages to ask for."""
    return [*SHOWN, *_OPTIONAL, *(name for name, _, _ in _required(installation))]


def judge(python: str, packages: Packages, installation: Installation) -> list[Finding]:
    """What does not fit.

    Args:
        python: its version.
        packages: version and requirements by name, of those that are installed.
    """
    pip = f"{installation.python} -m pip install"
    findings: list[Finding] = []
    if not at_least(python, OLDEST_PYTHON):
        problem = f"Python {python} is too old for this pack, which needs {OLDEST_PYTHON}"
        findings.append(Finding(BROKEN, _TOPIC, problem, "Run ComfyUI with a newer Python"))
    findings += _missing(packages, pip)
    if "torch" in packages:
        findings += _beside_torch(packages, pip)
    findings += _nunchaku(packages)
    findings += _unfulfilled(packages, installation, pip)
    findings += _extras(packages, pip)
    return findings


def _missing(packages: Packages, pip: str) -> list[Finding]:
    needs = {
        "torch": (BROKEN, "neither ComfyUI nor this pack runs"),
        "torchvision": (BROKEN, "ComfyUI does not start"),
        "torchaudio": (WARNING, "Generate Music cannot follow a tune or change sampling rates"),
        "transformers": (WARNING, "QwenVL, Generate Text and Generate Music run no local models"),
        "safetensors": (BROKEN, "models cannot be loaded"),
        "comfy-kitchen": (WARNING, "Load SVDQuant Model cannot run"),
    }
    remedy = f"{pip} {{}}, or reinstall ComfyUI's requirements.txt"
    found = [
        Finding(level, _TOPIC, f"{name} is not installed: {effect}", remedy.format(name))
        for name, (level, effect) in needs.items()
        if name not in packages
    ]
    version = _version(packages, "transformers")
    if version and not at_least(version, QWEN3_VL):
        problem = f"transformers {version} has no Qwen3-VL, which came with {QWEN3_VL}"
        remedy = f'{pip} --upgrade "transformers>={QWEN3_VL}"'
        found.append(Finding(WARNING, _TOPIC, problem, remedy))
    return found


def _beside_torch(packages: Packages, pip: str) -> list[Finding]:
    torch = _version(packages, "torch")
    findings: list[Finding] = []
    for name in ("torchvision", "torchaudio"):
        version = _version(packages, name)
        if not version:
            continue
        needed = _torch_of(name, packages[name])
        pinned = name == "torchvision"  # torchaudio's later versions run with several
        level = BROKEN if pinned else WARNING
        remedy = f"{pip} {_partner(name, torch)}, from the index that torch came from"
        if minor(needed) != minor(torch):
            problem = f"{name} {version} is made for torch {minor(needed)}, not {torch}"
            findings.append(Finding(level, _TOPIC, problem, remedy))
        elif build(version) and build(torch) and build(version) != build(torch):
            problem = f"{name} {version} is built for {build(version)}, torch for {build(torch)}"
            findings.append(Finding(level, _TOPIC, problem, remedy))
    return findings


def _torch_of(name: str, package: dict[str, Any]) -> str:
    """The version of torch that a torchvision or torchaudio is made for."""
    for line in package["requires"]:
        if pinned := _PINNED.match(line):
            return pinned[1]
    first, second, *_ = *numbers(package["version"]), 0, 0
    # torchvision 0.15 came with torch 2.0, and they have gone in step since.
    return f"2.{second - 15}" if name == "torchvision" else f"{first}.{second}"


def _partner(name: str, torch: str) -> str:
    first, second, *_ = *numbers(torch), 0, 0
    if name == "torchvision" and first != 2:
        return name
    return f"{name}==0.{second + 15}.*" if name == "torchvision" else f"{name}=={minor(torch)}.*"


def _nunchaku(packages: Packages) -> list[Finding]:
    version = _version(packages, "nunchaku")
    if not version:
        return []
    built = _BUILT_FOR.search(build(version))
    where = "Install the wheel for your torch from the releases of nunchaku-ai/nunchaku"
    if built is None and not any(line.startswith("diffusers") for line in _requires(packages)):
        problem = f"The package nunchaku {version} is another one of that name"
        return [Finding(WARNING, _TOPIC, problem, f"Uninstall it. {where}")]
    torch = _version(packages, "torch")
    if built and torch and built[1] != minor(torch):
        problem = f"nunchaku {version} is built for torch {built[1]}, not {torch}"
        return [Finding(BROKEN, _TOPIC, problem, where)]
    return []


def _requires(packages: Packages) -> list[str]:
    return packages["nunchaku"]["requires"]


def _unfulfilled(packages: Packages, installation: Installation, pip: str) -> list[Finding]:
    wrong = [
        f"{name} {_version(packages, name) or 'is missing'} ({sign}{version})"
        for name, sign, version in _required(installation)
        if not fulfils(_version(packages, name), sign, version)
    ]
    if not wrong or installation.folder is None:
        return []
    problem = f"ComfyUI {installation.version} asks for other versions: {', '.join(wrong)}"
    remedy = f"{pip} -r {installation.folder / 'requirements.txt'}"
    return [Finding(WARNING, _TOPIC, problem, remedy)]


def _required(installation: Installation) -> list[tuple[str, str, str]]:
    if installation.folder is None:
        return []
    try:
        text = (installation.folder / "requirements.txt").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return []
    return requirements(text)


def _extras(packages: Packages, pip: str) -> list[Finding]:
    extras = {
        "quantization of local language models": ("accelerate", "bitsandbytes"),
        "the ONNX export": ("onnx", "onnxscript", "onnxruntime"),
    }
    missing = {
        what: [name for name in names if name not in packages] for what, names in extras.items()
    }
    return [
        Finding(
            NOTE,
            _TOPIC,
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not installed, which only"
            f" {what} needs",
            f"If you want it: {pip} {' '.join(names)}",
        )
        for what, names in missing.items()
        if names
    ]


def _version(packages: Packages, name: str) -> str:
    return packages[name]["version"] if name in packages else ""
