"""What is imported before a command does its work: nothing that takes long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_command import environment
from vivace.cli.table import COMMANDS, GROUPS

HEAVY = {"torch", "transformers", "numpy", "safetensors", "PIL", "aiohttp", "rich", "yaml"}
# Each takes milliseconds of its own, which is much of what help may take.
SLOW = {
    "argparse",
    "dataclasses",
    "typing",
    "pathlib",
    "re",
    "asyncio",
    "urllib",
    "json",
    "inspect",
}


# Python runs this at its start: it notes what was there then, and at the end what came.
RECORDER = """
import atexit, sys
def note(before=frozenset(sys.modules)):
    with open({path!r}, "w") as file:
        file.write("\\n".join(sorted(set(sys.modules) - before)))
atexit.register(note)
"""


def imported(home: Path, *words: str) -> tuple[set[str], int, str]:
    """The modules that a command imports after Python's own start, exit status, and output."""
    recorder = home.parent / f"{home.name}-recorder"
    recorder.mkdir(exist_ok=True)
    record = recorder / "modules.txt"
    (recorder / "sitecustomize.py").write_text(RECORDER.format(path=str(record)))
    variables = environment(home)
    variables["PYTHONPATH"] = os.pathsep.join([str(recorder), variables["PYTHONPATH"]])
    command = [sys.executable, "-m", "vivace", *words]
    done = subprocess.run(command, env=variables, cwd=home, capture_output=True, text=True)
    modules = set(record.read_text().split())
    assert "vivace.cli.main" in modules
    return modules, done.returncode, done.stdout + done.stderr


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("words", [(), *((group,) for group in GROUPS)], ids=str)
def test_help_of_groups(tmp_path: Path, words: tuple[str, ...]) -> None:
    modules, status, text = imported(tmp_path, *words, "--help")
    assert status == 0
    assert text.startswith("Usage: vivace")
    assert packages(modules) & (HEAVY | SLOW) == set()
    assert [name for name in modules if name.startswith("vivace.cli.commands.")] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_commands(tmp_path: Path, name: str) -> None:
    modules, status, text = imported(tmp_path, *name.split(), "--help")
    assert status == 0
    assert text.startswith(f"Usage: vivace {name}")
    assert packages(modules) & (HEAVY | SLOW) == set()
    ours = {one for one in modules if one.startswith("vivace.cli.commands.")}
    assert ours == {f"vivace.cli.commands.{COMMANDS[name][0]}"}


@pytest.mark.parametrize("name", COMMANDS)
def test_wrong_options(tmp_path: Path, name: str) -> None:
    modules, status, text = imported(tmp_path, *name.split(), "--qwertz")
    assert status == 2
    assert "There is no option --qwertz" in text
    assert f"See 'vivace {name} --help'" in text
    assert packages(modules) & (HEAVY | SLOW) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_completion(tmp_path: Path, name: str) -> None:
    modules, status, text = imported(tmp_path, "__complete", *name.split(), "=--js")
    assert status == 0
    assert text.startswith("--json\t")
    assert packages(modules) & (HEAVY | SLOW) == set()


@pytest.mark.parametrize(
    "words",
    [
        ("lora", "merge", "gone.safetensors", "-o", "out.safetensors"),
        ("lora", "merge", "a.safetensors:x", "-o", "out.safetensors"),
        ("lora", "convert", "a.safetensors", "--format", "peft", "-o", "a.safetensors"),
        ("lora", "resize", "a.safetensors", "--rank", "4", "-o", "no/out.safetensors"),
        ("lora", "resize", "a.safetensors", "-o", "out.safetensors"),
        ("lora", "extract", "a.safetensors", "gone", "-o", "out.safetensors"),
        ("run", "gone.json"),
        ("migrate", "gone.json"),
        ("config", "show"),
        ("doctor", "--server", "http://127.0.0.1:9"),
        ("completion", "bash"),
    ],
    ids=" ".join,
)
def test_what_needs_no_tensors_loads_none(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "a.safetensors").touch()
    modules, _, _ = imported(tmp_path, *words)
    assert packages(modules) & {"torch", "transformers", "numpy", "safetensors"} == set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors"]
