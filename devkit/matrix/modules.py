"""Imports every module of the pack: ``python -m vivace.devkit.matrix.modules COMFYUI``.

Prints, as JSON, how many there are, which lack an optional package, and which fail.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from ..doubles.demo_models import import_comfy
from ..rig.layout import ROOT

OPTIONAL = (
    *("accelerate", "aiohttp", "bitsandbytes", "jsonschema", "keyring", "nunchaku"),
    *("onnx", "onnxruntime", "onnxscript", "rich"),
)
_NOT_OURS = frozenset(("dev", "devkit", "docs", "tests"))
# Programs: they print, or start ComfyUI, when they are imported.
_SCRIPTS = frozenset(("__main__", "ask_packages", "ask_torch"))


def names() -> Iterator[str]:
    """Modules of the pack, as `vivace.lora.rows`."""
    package = (__package__ or "").partition(".")[0]
    for found in pkgutil.iter_modules([str(ROOT)], f"{package}."):
        if found.name.rpartition(".")[2] in _NOT_OURS | _SCRIPTS:
            continue
        yield found.name
        if found.ispkg:
            yield from _below(found.name)


def _below(package: str) -> Iterator[str]:
    folder = ROOT.joinpath(*package.split(".")[1:])
    for found in pkgutil.iter_modules([str(folder)], f"{package}."):
        if found.name.rpartition(".")[2] not in _SCRIPTS:
            yield found.name
            if found.ispkg:
                yield from _below(found.name)


def main() -> None:
    """Import them, one after the other."""
    import_comfy(Path(sys.argv[1]))
    sys.argv = sys.argv[:1]
    imported, lacking, failed = 0, [], []
    for name in names():
        try:
            importlib.import_module(name)
            imported += 1
        except ImportError as error:
            package = (error.name or "").partition(".")[0]
            if package in OPTIONAL and find_spec(package) is None:
                lacking.append(f"{name} needs {package}")
            else:
                failed.append(f"{name}: {error}")
        except Exception as error:  # noqa: BLE001 - whatever happens is the result
            failed.append(f"{name}: {type(error).__name__}: {error}")
    print(json.dumps({"imported": imported, "lacking": lacking, "failed": failed}))


if __name__ == "__main__":
    main()
