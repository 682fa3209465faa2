"""The endings of LoRA files stand in one place."""

from __future__ import annotations

import re

import pytest
from vivace.devkit.rig.layout import ROOT
from vivace.lora.files.file_names import resolve
from vivace.lora.files.file_types import ENDINGS, is_lora_file, without_ending
from vivace.migrate.rules import find_name

# Lists of other things: every file that ComfyUI counts as a model, and weights that transformers
# would unpickle.
OTHERS = {"cli/doctor/models.py", "hub/model_check.py", "lora/files/file_types.py"}


def test_there_is_no_second_list() -> None:
    listed = re.compile(r"""["']\.(?:ckpt|sft|pth)["']""")
    sources = [
        path
        for folder in ("cli", "http_api", "hub", "lora", "migrate", "nodes", "web", "wrappers")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".js")
    ]
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources
        if listed.search(path.read_text(encoding="utf-8"))
    }
    assert found <= OTHERS


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_known_wherever_names_are_resolved(ending: str) -> None:
    assert is_lora_file(f"a/Ink{ending.upper()}")
    assert without_ending(f"a/ink{ending}") == "a/ink"
    assert resolve("ink", [f"a/ink{ending}"]) == f"a/ink{ending}"
    notes: list[str] = []
    assert find_name("ink", [f"a/ink{ending}"], notes) == f"a/ink{ending}"
    assert notes == [f"'ink' is 'a/ink{ending}' here"]
