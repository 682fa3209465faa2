"""What commands print: JSON of a documented shape, and plain text where nobody looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli_command import environment, vivace_command
from support.lora_samples import write
from vivace.cli.table import COMMANDS, load
from vivace.devkit.doubles.demo_models import LORAS, lora_state_dict, save
from vivace.devkit.rig.layout import ROOT

GOLDEN = ROOT / "tests" / "data" / "golden"
PEFT = LORAS[0].filename


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a LoRA twice, half of one, and a workflow of another pack."""
    folder = tmp_path_factory.mktemp("home")
    for name in (PEFT, "again.safetensors"):
        save(lora_state_dict(LORAS[0]), folder / name)
    (folder / "cut.safetensors").write_bytes((folder / PEFT).read_bytes()[:5000])
    write(
        folder / "other.safetensors",
        {"some.thing.lora_A.weight": lora_state_dict(LORAS[0]).popitem()[1]},
    )
    golden = json.loads((GOLDEN / "BlankImage.json").read_text(encoding="utf-8"))
    (folder / "flow.json").write_text(json.dumps(golden["ui"]["before"]))
    return folder


def run(home: Path, *words: str, status: int = 0) -> Any:
    done = vivace_command(home, *words, "--json")
    assert done.status == status, done.err
    assert done.err == ""
    return done.json()


def test_inspect(home: Path) -> None:
    one, two, three = run(home, "lora", "inspect", PEFT, "cut.safetensors", "gone", status=1)
    assert one["architecture"] == "qwen_image"
    assert one["faults"] == []
    assert len(one["keys"]) == 8
    first = one["keys"][0]
    assert {"key", "module", "part", "role", "status", "reason"} <= set(first)
    assert {key["status"] for key in one["keys"]} == {"mapped"}
    for item, name in ((two, "cut.safetensors"), (three, "gone")):
        assert item["architecture"] is None
        assert item["keys"] == []
        assert name in item["error"]
    assert run(home, "lora", "inspect", "other.safetensors")[0]["architecture"] is None


def test_check(home: Path) -> None:
    found = run(home, "lora", "check", ".", status=1)
    assert set(found) == {"files", "duplicates"}
    files = {item["path"]: item for item in found["files"]}
    assert set(files) == {PEFT, "again.safetensors", "cut.safetensors", "other.safetensors"}
    assert "truncated" in files["cut.safetensors"]["problem"]
    assert files[PEFT]["problem"] is None
    assert [sorted(group) for group in found["duplicates"]] == [["again.safetensors", PEFT]]
    clean = home / "clean"
    clean.mkdir(exist_ok=True)
    shutil.copy(home / PEFT, clean)
    assert run(home, "lora", "check", "clean")["duplicates"] == []
    assert "for qwen_image, not z_image" in str(
        run(home, "lora", "check", "clean", "--model", "z_image", status=1)["files"]
    )


def test_migrate(home: Path) -> None:
    (one, two) = run(home, "migrate", "flow.json", "gone.json", status=1)
    assert set(two) == {"file", "error"}
    assert one["file"] == "flow.json"
    assert isinstance(one["lines"], list)
    assert "written" not in one
    before = (home / "flow.json").read_bytes()
    (again,) = run(home, "migrate", "flow.json", "-o", "new.json")
    assert again["written"] == "new.json"
    assert "VivaceBlankImage" in (home / "new.json").read_text()
    assert (home / "flow.json").read_bytes() == before
    (refused,) = run(home, "migrate", "flow.json", "-o", "new.json", status=1)
    assert "there already" in refused["error"]


def test_startup(comfyui_folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "small_pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}\n")
    words = ["startup", "small_pack", "--comfyui", str(comfyui_folder), "--python", sys.executable]
    done = vivace_command(tmp_path, *words, "--json", "--quiet")
    assert done.status == 0, done.err
    assert done.err == ""
    (report,) = done.json()
    assert report["loaded"]
    assert report["broken_budgets"] == []
    assert {"import", "object_info", "bare_interpreter"} <= set(report)


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("lora", "--help"),
        *((*name.split(), "--help") for name in COMMANDS),
        ("lora", "inspect", PEFT),
        ("lora", "check", "."),
        ("migrate", "flow.json"),
        ("config", "show"),
        ("foo",),
    ],
    ids=" ".join,
)
def test_piped_output_is_plain(home: Path, words: tuple[str, ...]) -> None:
    done = vivace_command(home, *words)
    text = done.out + done.err
    assert "\x1b" not in text
    assert text.isprintable() or all(line.isprintable() for line in text.splitlines())
    assert max(map(len, done.out.splitlines()), default=0) <= 160
    assert not any(line.endswith(" ") for line in text.splitlines())


def test_colours_are_given_when_asked_for_and_only_then(home: Path) -> None:
    assert "\x1b[1m" in vivace_command(home, "config", "show", "--color", "always").out
    assert "\x1b" not in vivace_command(home, "config", "show", "--color=always", "--json").out
    colored = {"VIVACE_COLOR": "always"}
    assert "\x1b" in vivace_command(home, "config", "show", variables=colored).out
    assert "\x1b" not in vivace_command(home, "config", "show", "--color=auto").out


def test_names_that_the_encoding_lacks(home: Path) -> None:
    name = "墨 ink.safetensors"
    shutil.copy(home / PEFT, home / name)
    ascii_only = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = vivace_command(home, "lora", "inspect", name, variables=ascii_only)
    (home / name).unlink()
    assert done.status == 0
    assert done.out.startswith("\\u58a8 ink.safetensors: qwen_image LoRA rank 8;")


def test_a_reader_that_ends_early(home: Path) -> None:
    command = [sys.executable, "-m", "vivace", "lora", "inspect", "--json", *[PEFT] * 40]
    process = subprocess.Popen(
        command, env=environment(home), cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_all(home: Path, name: str) -> None:
    command = load(name).COMMAND
    text = " ".join(vivace_command(home, *name.split(), "--help").out.split())
    for option in command.options:
        assert option.name in text
    for argument in command.arguments:
        assert argument.metavar in text
    assert command.examples, "an example for every command"
    assert all(line in text for line, _ in command.examples)
    narrow = vivace_command(home, *name.split(), "--help", variables={"COLUMNS": "60"}).out
    lines = [line for line in narrow.splitlines() if "vivace " not in line]
    assert max(map(len, lines)) <= 60 or os.name == "nt"
