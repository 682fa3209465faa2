"""Run by ComfyUI's Python: prints what is installed as JSON. The standard library only, no imports
of the packages, and a syntax that Pythons which are too old can read."""

import json
import sys
from importlib import metadata

del sys.path[0]  # this folder, whose modules must not pass for packages


def _build_version(distribution, name):
    """The version in `version.py`, which says what the package was built for."""
    try:
        with open(str(distribution.locate_file(name + "/version.py")), encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("__version__ = "):
                    return line.split("=", 1)[1].strip().strip("'\"")
    except (OSError, ValueError):
        pass
    return distribution.version


packages = {}
for name in sys.argv[1:]:
    try:
        found = metadata.distribution(name)
        version = found.version
    except (metadata.PackageNotFoundError, KeyError):
        continue
    if name in ("torch", "torchvision", "torchaudio"):
        version = _build_version(found, name)
    packages[name] = {"version": version, "requires": list(found.requires or ())}
print(json.dumps({"python": sys.version.split()[0], "packages": packages}))  # noqa: T201
