"""What docs/cli.md shows as answers about the demo's LoRAs is what the commands print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from support.cli_command import vivace_command
from vivace.devkit.doubles.demo_models import LORAS, lora_state_dict, save
from vivace.devkit.rig.layout import ROOT


def shown() -> list[tuple[list[str], list[str]]]:
    """The words of each command about the demo's LoRAs that is shown with its answer."""
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.splitlines()
            if "vivace-demo-" in command and lines:
                found.append((shlex.split(command)[1:], lines))
    return found


def test_the_answers_are_those_of_the_demos_loras(tmp_path: Path) -> None:
    for lora in LORAS:
        save(lora_state_dict(lora), tmp_path / lora.filename)
    compared = 0
    for words, lines in shown():
        done = vivace_command(tmp_path, *words)
        assert (done.status, done.out.splitlines()) == (0, lines), (words, done.err)
        compared += sum("MB" in line for line in lines)
    assert compared >= 5
