"""What is checked in processes of their own; each function returns what to report, or raises."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..rig.layout import MODELS, PACK_NAME
from .environment import check_environment
from .prompts import MODEL

# A keyring that has nothing in it, on every machine.
_KEYRING = (
    "import os; os.environ['PYTHON_KEYRING_BACKEND'] = 'keyring.backends.null.Keyring'\n"
    "from vivace.vlm.remote.secret import Secret; Secret.from_keyring('vivace-matrix')"
)
_JSON = (
    "from vivace.toolkit.json_schema import JsonSchema as S; print(S({'type': 'null'}).fault(1))"
)


def modules(comfyui: Path) -> str:
    """Each module of ours can be imported, unless it says that an optional package is missing."""
    found = _json("-m", "vivace.devkit.matrix.modules", str(comfyui))
    _hold(not found["failed"], "; ".join(found["failed"]))
    lacking = f", {'; '.join(found['lacking'])}" if found["lacking"] else ""
    return f"{found['imported']} modules{lacking}"


def startup(comfyui: Path, work: Path) -> str:
    """Start-up imports no more modules than the budget allows; time is judged elsewhere."""
    pack = comfyui / "custom_nodes" / PACK_NAME
    done = _run("-m", "vivace", "startup", "--json", "--comfyui", str(comfyui), "--python",
                sys.executable, str(pack))  # fmt: skip
    _hold(done.stdout.startswith("["), f"{done.stdout[-500:]} {done.stderr[-500:]}")
    (report,) = json.loads(done.stdout)
    broken = [text for text in report["broken_budgets"] if "seconds" not in text]
    _hold(not broken, "; ".join(broken))
    counts = [len(report["import"][key]) for key in ("own", "third_party")]
    heavy = len(report["object_info"]["heavy"])
    return f"{counts[0]} own and {counts[1]} third-party modules; the list of nodes {heavy} heavy"


def doctor(comfyui: Path, url: str) -> str:
    """`vivace doctor` finds nothing broken and nothing to warn of."""
    report = _json("-m", "vivace", "doctor", "--json", "--comfyui", str(comfyui), "--python",
                   sys.executable, "--models", str(MODELS), "--server", url)  # fmt: skip
    wrong = [f"{one['problem']}" for one in report["findings"] if one["level"] != "note"]
    _hold(not wrong and not report["broken"], "; ".join(wrong))
    return f"{len(report['findings'])} notes, no warning"


def extras(models: Path, work: Path) -> str:
    """Each optional package does what it is there for, or the error says how to install it."""
    output = work / "encoder.onnx"
    command = ["-m", "vivace.vlm.onnx_command", str(models / MODEL), str(output)]
    cases = {
        "onnx": ([*command, "--width", "128", "--height", "96"], "written", "Not installed: onnx"),
        "jsonschema": (["-c", _JSON], "1 is not of type 'null'", "pip install 'jsonschema"),
        "keyring": (
            ["-c", _KEYRING],
            "there is no such entry",
            "the keyring package is not installed",
        ),
    }
    said = []
    for package, (words, there, missing) in cases.items():
        installed = find_spec(package) is not None
        done = _run(*words)
        text = done.stdout + done.stderr
        _hold((there if installed else missing) in text, f"{package}: {text[-500:]}")
        said.append(f"{package} {'works' if installed else 'is asked for'}")
    return ", ".join(said)


def _json(*words: str) -> Any:
    done = _run(*words)
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise ValueError(f"{' '.join(words[:3])}: {(done.stdout + done.stderr)[-800:]}") from None


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env=check_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def _hold(held: bool, problem: str) -> None:
    if not held:
        raise ValueError(problem)
