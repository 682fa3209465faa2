"""One file per old node: what we expect of it, as a workflow of the editor and as a prompt."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from vivace.migrate import Known, migrate_workflow
from vivace.migrate.our_nodes import TARGETS
from vivace.migrate.table import RULES

FOLDER = Path(__file__).parents[2] / "data" / "golden"
FILES = sorted(FOLDER.glob("*.json"))
FORMATS = ("ui", "prompt")


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def test_every_old_node_has_a_file() -> None:
    assert sorted(read(file)["old"] for file in FILES) == sorted(RULES)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_node_becomes_ours(file: Path, form: str) -> None:
    golden = read(file)
    before = copy.deepcopy(golden[form]["before"])
    after, report = migrate_workflow(before, Known(**golden.get("known", {})))
    assert before == golden[form]["before"]  # not changed in place
    found = {"before": before, "after": after, "report": report.to_json()}
    if os.environ.get("VIVACE_UPDATE_SNAPSHOT"):
        golden[form] = found
        file.write_text(json.dumps(golden, indent=1) + "\n")
    assert found == golden[form]
    assert [item.old for item in report.replaced] == [golden["old"]]
    assert report.left == []


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_migrating_twice_changes_nothing(file: Path, form: str) -> None:
    after = read(file)[form]["after"]
    again, report = migrate_workflow(after, Known(any_model=True))
    assert again == after
    assert report.replaced == []
    assert report.left == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_both_formats_mean_the_same(file: Path) -> None:
    """The widgets of the editor's node are the values of the prompt's, name by name."""
    golden = read(file)
    node = next(n for n in golden["ui"]["after"]["nodes"] if n["id"] == 2)
    inputs = golden["prompt"]["after"]["2"]["inputs"]
    names = list(TARGETS[node["type"]].complete(inputs, ()))
    widgets = dict(zip(names, node["widgets_values"], strict=True))
    widgets.pop("control_after_generate", None)
    linked = {item["name"] for item in node["inputs"] if item["link"] is not None}
    assert linked == {name for name, value in inputs.items() if value_is_link(name, value)}
    given = {name: value for name, value in inputs.items() if name not in linked}
    assert {name: value for name, value in widgets.items() if name not in linked} == given


def value_is_link(name: str, value: Any) -> bool:
    return name != "rows" and isinstance(value, list)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_makes_the_graph_is_kept(file: Path) -> None:
    before, after, report = (read(file)["ui"][key] for key in ("before", "after", "report"))
    gone = [item["node"] for item in report["folded"]]
    kept = [node for node in before["nodes"] if str(node["id"]) not in gone]
    for old, new in zip(kept, after["nodes"], strict=True):
        for key in ("id", "pos", "mode", "order", "title", "color", "flags"):
            assert old.get(key) == new.get(key)
    assert before["groups"] == after["groups"]
    sockets = {
        (link["link"], node["id"], slot)
        for node in after["nodes"]
        for slot, link in enumerate(node["inputs"])
        if link["link"] is not None
    }
    assert sockets == {(link[0], link[3], link[4]) for link in after["links"]}
    ends = {
        (id_, node["id"], slot)
        for node in after["nodes"]
        for slot, socket in enumerate(node["outputs"])
        for id_ in socket["links"] or ()
    }
    assert ends == {(link[0], link[1], link[2]) for link in after["links"]}
