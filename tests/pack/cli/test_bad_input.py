"""What each command says of bad input: exit status, message, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli_command import vivace_command

A = "a.safetensors"
OUT = ("-o", "out.safetensors")
CASES = [
    (["foo"], 2, "'foo' is no command after 'vivace'"),
    (["lora", "inspct", A], 2, "did you mean inspect?"),
    (["lora"], 2, "Usage: vivace lora COMMAND"),
    ([], 2, "Usage: vivace COMMAND"),
    (["lora", "inspect"], 2, "FILES is missing"),
    (["lora", "inspect", ""], 2, "must be a file name, not nothing"),
    (["lora", "inspect", "gone"], 1, "gone: no such file. Check the name"),
    (["lora", "inspect", "."], 1, ".: is a folder, not a file"),
    (["lora", "inspect", A], 1, "not a valid safetensors file: only 3 bytes long"),
    (["lora", "inspect", A, "--against", "gone"], 1, "gone"),
    (["lora", "merge", A], 2, "--output is missing"),
    (["lora", "merge", *OUT], 2, "LORAS is missing"),
    (["lora", "merge", f"{A}:much", *OUT], 2, "The strength of a.safetensors is 'much'"),
    (["lora", "merge", f"{A}:nan", *OUT], 2, "The strength of a.safetensors is 'nan'"),
    (["lora", "merge", "gone.safetensors", *OUT], 1, "There is no file gone.safetensors"),
    (["lora", "merge", A, "-o", "out.txt"], 1, "End it in .safetensors"),
    (["lora", "merge", A, "-o", A], 1, "is there already. Name another file, or use --force"),
    (["lora", "merge", A, *OUT, "--rank", "0"], 2, "--rank is '0', which must be a whole number"),
    (["lora", "merge", A, *OUT, "--rank"], 2, "--rank needs a value"),
    (["lora", "convert", A, *OUT], 2, "--format is missing"),
    (["lora", "convert", A, *OUT, "--format", "gguf"], 2, "not one of comfyui, kohya, peft"),
    (["lora", "convert", "gone", *OUT, "--format=peft"], 1, "There is no file gone"),
    (["lora", "resize", A, *OUT], 2, "Neither --rank nor --error is given"),
    (["lora", "resize", A, *OUT, "--error", "2"], 2, "must be a number above 0, at most 1"),
    (["lora", "resize", A, *OUT, "--rank=2", "--error=.1"], 2, "exclude each other"),
    (["lora", "resize", A, "-o", "no/out.safetensors", "--rank=2"], 1, "There is no folder no"),
    (["lora", "extract", A, *OUT], 2, "BASE is missing"),
    (["lora", "extract", A, "gone", *OUT], 1, "There is no file gone"),
    (["lora", "check"], 2, "FOLDER is missing"),
    (["lora", "check", A], 1, "is not a folder. Name the folder that the LoRAs are in"),
    (["lora", "check", ".", "--model", "sdxl"], 2, "not one of qwen_image, qwen_image_21, z_image"),
    (["migrate"], 2, "FILES is missing"),
    (["migrate", "gone.json"], 1, "gone.json: there is no such file"),
    (["migrate", "w.json"], 1, "w.json: damaged: not a JSON object"),
    (["migrate", "w.json", "-o", "x.json", "--in-place"], 2, "exclude each other"),
    (["startup", "--comfyui", "."], 1, "is not a ComfyUI folder"),
    (["startup", "--comfyui"], 2, "--comfyui needs a value"),
    (["doctor", "--timeout", "soon"], 2, "must be a whole number from 1 to 86400"),
    (["doctor", "--server", "ftp://x"], 2, "'ftp://x' is no address of a server"),
    (["doctor", "extra"], 2, "'extra' is one argument too many"),
    (["run"], 2, "WORKFLOW is missing"),
    (["config", "show", "--config", "gone.yaml"], 2, "There is no configuration file gone.yaml"),
    (["completion"], 2, "SHELL is missing"),
    (["completion", "tcsh"], 2, "not one of bash, zsh, fish, powershell"),
    (["completion", "bash", "--color", "blue"], 2, "not one of auto, always, never"),
    (["completion", "bash", "--json=yes"], 2, "--json takes no value"),
    (["completion", "bash", "-q", "-q"], 2, "--quiet is given twice"),
]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / A).write_text("no\n")
    (tmp_path / "w.json").write_text("[1, 2]")
    return tmp_path


@pytest.mark.parametrize(("words", "status", "text"), CASES, ids=lambda one: str(one)[:50])
def test_bad_input(home: Path, words: list[str], status: int, text: str) -> None:
    done = vivace_command(home, *words)
    assert done.status == status
    # What is wrong with one of several files is part of the result.
    said = done.err + done.out
    assert text in " ".join(said.split())
    assert "Traceback" not in said
    assert status == 1 or done.out == ""
    assert sorted(path.name for path in home.iterdir()) == [A, "w.json"]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["lora", "merge", "gone", *OUT, "--json"], 1),
        (["lora", "merge", "--json"], 2),
        (["--json", "foo"], 2),
        (["config", "show", "--json", "--config", "gone.yaml"], 2),
        (["run", "w.json", "--json", "--server", "http://127.0.0.1:9"], 3),
    ],
)
def test_errors_as_json(home: Path, words: list[str], status: int) -> None:
    (home / "w.json").write_text('{"1": {"class_type": "A", "inputs": {}}}')
    done = vivace_command(home, *words)
    assert done.status == status
    answer = json.loads(done.out)
    assert set(answer) == {"error", "status"}
    assert answer["status"] == status
    assert done.err == f"vivace: {answer['error']}\n"
