"""What stands in one place stays there: where each such thing may be found in the source."""

from __future__ import annotations

import re

import pytest
from vivace.devkit.rig.layout import ROOT

ROOMS = ("cli", "lora", "migrate", "music", "nodes", "hub", "svdquant", "toolkit", "vlm", "web",
         "wrappers")  # fmt: skip
PLACES = {
    "the bar of folders": (r"vivace-picker-crumbs", {"web/folders.js"}),
    "folders inside of folders": (r"counts\.get\(inner\)", {"web/folders.js"}),
    "LoRA names that were written otherwise": (r"\bwithout_ending\(",
        {"lora/files/file_types.py", "lora/files/file_names.py"}),
    "names that differ only in case": (r"casefold\(\) == \w+\.casefold\(\)",
        {"toolkit/named_json.py"}),
    "folders of models": (r"add_model_folder_path\(", {"nodes/model_choice.py"}),
    "walks for model folders": (r"\bCONFIG for\b|[\"']config\.json[\"'] in ",
        {"hub/model_folders.py"}),
    "the order of modulation rows": (r"\(-1, MODULATION_CHUNKS\)\)\.mT", {"svdquant/convert.py"}),
}  # fmt: skip


@pytest.mark.parametrize("fact", PLACES)
def test_there_is_no_second_place(fact: str) -> None:
    pattern, places = PLACES[fact]
    found = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".js")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }
    assert found
    assert found <= places
