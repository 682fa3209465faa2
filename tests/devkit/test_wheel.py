"""The wheel that `pip install .` makes has the pack's modules and data, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from vivace.devkit.rig.layout import ROOT
from vivace.devkit.rig.published import copy_pack, published_files

DATA = ("cli/templates/", "locales/", "web/")


def test_the_wheel_has_every_module_and_no_development_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    copy_pack(source)
    # It lies in a checkout, where the root is the package.
    shutil.copy(ROOT / "dev.py", source / "dev.py")
    command = [sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps"]
    command += ["--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("vivace-*.whl")
    inside = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = published_files()
    wanted = {name for name in files if name.endswith(".py") or name.startswith(DATA)}
    assert inside == {f"vivace/{name}" for name in wanted}
