"""The completion scripts: that of bash in a real bash, the others as far as their shell is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.cli_command import environment, vivace_command
from vivace.cli.table import COMMANDS, GROUPS, members

BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None, reason="there is no bash here")
LORA = sorted(word for word in members("lora"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with files to complete, and the program `vivace` on the path."""
    program = tmp_path / "bin" / "vivace"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m vivace "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work"
    (work / "my loras").mkdir(parents=True)
    for name in ("ink.safetensors", "ink.txt", "flow.json", "a b.safetensors"):
        (work / name).touch()
    return work


def variables(home: Path) -> dict[str, str]:
    found = environment(home)
    return {**found, "PATH": os.pathsep.join([str(home.parent / "bin"), found["PATH"]])}


def candidates(home: Path, line: str) -> list[str]:
    """What bash offers at the end of a line, which it takes apart as it does when Tab is hit."""
    assert BASH is not None
    # Readline cuts at blanks, and at '=' and ':', which are words of their own.
    pieces = [re.split("([=:])", word) for word in line.split(" ")]
    words = [piece for word in pieces for piece in word if piece or len(word) == 1]
    script = (
        'eval "$(vivace completion bash)"\n'
        'COMP_LINE="$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        '_vivace; printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        [BASH, "--norc", "-c", script, "bash", line, *words],
        env=variables(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    return sorted(filter(None, done.stdout.splitlines()))


@needs_bash
@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("vivace ", sorted(members(""))),
        ("vivace lo", ["lora"]),
        ("vivace lora ", LORA),
        ("vivace lora in", ["inspect"]),
        ("vivace lora check --mo", ["--model"]),
        ("vivace lora check --model ", ["qwen_image", "qwen_image_21", "z_image"]),
        ("vivace lora check --model=", ["qwen_image", "qwen_image_21", "z_image"]),
        ("vivace lora check --model=z", ["z_image"]),
        ("vivace lora inspect i", ["ink.safetensors"]),
        ("vivace lora inspect ", ["a b.safetensors", "ink.safetensors", "my loras"]),
        ("vivace lora check ", ["my loras"]),
        ("vivace migrate ", ["flow.json", "my loras"]),
        ("vivace migrate -o ", ["flow.json", "my loras"]),
        ("vivace completion f", ["fish"]),
        ("vivace --color a", []),
        ("vivace nothing ", []),
    ],
)
def test_bash_offers(home: Path, line: str, wanted: list[str]) -> None:
    assert candidates(home, line) == wanted


@needs_bash
def test_tab_in_an_interactive_bash(home: Path) -> None:
    pty = pytest.importorskip("pty", reason="there are no terminals of this kind")
    assert BASH is not None
    leader, follower = pty.openpty()
    shell = subprocess.Popen(
        [BASH, "--norc", "--noprofile", "-i"],
        env={**variables(home), "PS1": "$ ", "INPUTRC": os.devnull},
        cwd=home,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
    )
    os.close(follower)

    def until(text: str) -> str:
        seen = ""
        end = time.monotonic() + 60
        while text not in seen and time.monotonic() < end:
            seen += os.read(leader, 4096).decode(errors="replace")
        assert text in seen
        return seen

    try:
        os.write(leader, b"eval \"$(vivace completion bash)\"; echo rea''dy\n")
        until("ready")
        os.write(leader, b"vivace lora insp\t")
        until("inspect ")
        os.write(leader, b"a\t")
        until("a\\ b.safetensors ")
    finally:
        shell.kill()
        shell.wait()
        os.close(leader)


CHECKS = {
    "bash": ["bash", "-n"],
    "zsh": ["zsh", "-n"],
    "fish": ["fish", "--no-execute"],
    "powershell": [
        "pwsh",
        "-NoProfile",
        "-Command",
        "$errors = $null; [void][System.Management.Automation.Language.Parser]::ParseFile("
        "$args[0], [ref]$null, [ref]$errors); exit $errors.Count",
    ],
}
PARTS = {
    "bash": ["complete -F _vivace vivace", "compgen -f", "COMPREPLY"],
    "zsh": ["#compdef vivace", "compdef _vivace vivace", "_files", "_describe"],
    "fish": ["complete -c vivace", "commandline -ct"],
    "powershell": ["Register-ArgumentCompleter -Native -CommandName vivace", "CompletionResult"],
}


@pytest.mark.parametrize("shell", CHECKS)
def test_scripts(tmp_path: Path, shell: str) -> None:
    done = vivace_command(tmp_path, "completion", shell)
    assert done.status == 0
    assert [part for part in PARTS[shell] if part not in done.out] == []
    # Each asks the program, with what stands at the cursor behind an equals sign.
    assert "vivace __complete" in done.out
    assert vivace_command(tmp_path, "completion", shell, "--json").json() == {
        "shell": shell,
        "script": done.out,
    }
    program, *options = CHECKS[shell]
    if shutil.which(program):
        script = tmp_path / "script.ps1"
        script.write_text(done.out)
        checked = subprocess.run([program, *options, script], capture_output=True, text=True)
        assert (checked.returncode, checked.stderr) == (0, "")


def test_every_command_is_offered(tmp_path: Path) -> None:
    for group in ("", *GROUPS):
        done = vivace_command(tmp_path, "__complete", *group.split(), "=")
        offered = [line.partition("\t")[0] for line in done.out.splitlines()]
        assert offered == list(members(group))
    assert {name.split()[0] for name in COMMANDS} == set(members(""))
