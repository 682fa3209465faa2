"""Pins everything that a supported ComfyUI needs: `python3 -m devkit.requirements.compile`.

Needs `uv` on the path and the ComfyUI folders that `dev.py setup` has fetched.
"""

from __future__ import annotations

import subprocess

from devkit.rig.layout import DEV, RELEASES, REQUIREMENTS

# Files that one release has beside those of all. The older ComfyUI runs with the older
# transformers, so that the tests see both of its major versions.
FILES = {"0.30.0": ["oracles.in"], "0.18.2": ["transformers4.in"]}

for release in RELEASES:
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.10"]
    command += ["--no-annotate", "--upgrade", "--custom-compile-command"]
    command += ["python3 -m devkit.requirements.compile", "torch.in", "tools.in"]
    command += FILES.get(release.version, [])
    command += [str(DEV / f"comfyui-{release.version}" / "requirements.txt")]
    subprocess.run([*command, "-o", release.requirements.name], cwd=REQUIREMENTS, check=True)
    print(f"{release.requirements.name} written")
