"""What stays, what is said about it, and links that go through a node or a subgraph."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from vivace.migrate import Known, MigrationReport, migrate_workflow
from vivace.migrate.table import DECLINED, RULES

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
POWER, MANAGER = "Power_Lora_Loader_rgthree", "Lora_Loader_LoraManager"


def before(name: str, form: str = "ui") -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text())[form]["before"]


def node(workflow: dict[str, Any], id_: int = 2) -> dict[str, Any]:
    return next(n for n in workflow["nodes"] if n["id"] == id_)


def stays(workflow: dict[str, Any], why: str, known: Known | None = None) -> None:
    after, report = migrate_workflow(workflow, known)
    assert after == workflow
    assert [why in item.reason for item in report.left] == [True], report.lines()


def notes(workflow: dict[str, Any], known: Known | None = None) -> list[str]:
    _, report = migrate_workflow(workflow, known)
    return report.replaced[0].notes


@pytest.mark.parametrize("form", ["ui", "prompt"])
@pytest.mark.parametrize("name", [POWER, MANAGER])
def test_a_general_loader_is_for_qwen_image_and_z_image_only(name: str, form: str) -> None:
    text = json.dumps(before(name, form)).replace("demo-qwen-image", "sd-xl")
    workflow = json.loads(text)
    stays(workflow, "could not be told to be Qwen-Image or Z-Image")
    _, report = migrate_workflow(workflow, Known(any_model=True))
    assert len(report.replaced) == 1


def test_the_model_is_found_behind_other_nodes() -> None:
    prompt = before(POWER, "prompt")
    prompt["8"] = {"class_type": "ModelSamplingAuraFlow", "inputs": {"model": ["1", 0]}}
    prompt["9"] = {"class_type": "Reroute", "inputs": {"": ["8", 0]}}
    prompt["2"]["inputs"]["model"] = ["9", 0]
    _, report = migrate_workflow(prompt)
    assert len(report.replaced) == 1
    prompt["8"]["inputs"]["model"] = ["9", 0]  # in circles
    stays(prompt, "could not be told")


@pytest.mark.parametrize("form", ["ui", "prompt"])
def test_an_output_that_ours_lacks_keeps_the_node(form: str) -> None:
    workflow = before(MANAGER, form)
    if form == "ui":
        workflow["links"].append([9, 2, 2, 3, 0, "STRING"])
    else:
        workflow["3"]["inputs"]["source"] = ["2", 2]
    stays(workflow, "nothing for what its output 2 is connected to")


def test_an_input_that_ours_lacks_keeps_the_node() -> None:
    workflow = before("NunchakuQwenImageLoraStackV2")
    workflow["links"].append([9, 1, 0, 2, 1, "COMBO"])
    node(workflow)["inputs"].append(
        {"name": "lora_name_1", "type": "COMBO", "link": 9, "widget": {"name": "lora_name_1"}}
    )
    stays(workflow, "no input for what is connected to 'lora_name_1'")


def test_an_input_of_no_account_is_cut_off_with_a_note() -> None:
    workflow = before("NunchakuQwenImageLoraStackV2")
    workflow["links"].append([9, 1, 0, 2, 1, "COMBO"])
    node(workflow, 1)["outputs"][0]["links"].append(9)
    node(workflow)["inputs"].append({"name": "cpu_offload", "type": "COMBO", "link": 9})
    after, report = migrate_workflow(workflow)
    assert "what was connected to 'cpu_offload' has no counterpart" in report.replaced[0].notes
    assert [link[0] for link in after["links"]] == [1, 2]
    assert node(after, 1)["outputs"][0]["links"] == [1]


@pytest.mark.parametrize("form", ["ui", "prompt"])
def test_a_node_goes_once_the_link_that_kept_it_has_gone(form: str) -> None:
    workflow, other = before(MANAGER, form), before("NunchakuQwenImageLoraStackV2", form)
    if form == "ui":
        workflow["links"] += [[9, 2, 2, 6, 1, "STRING"], [10, 1, 0, 6, 0, "MODEL"]]
        sockets = [{"name": "model", "link": 10}, {"name": "cpu_offload", "link": 9}]
        workflow["nodes"].append(node(other) | {"id": 6, "inputs": sockets, "outputs": []})
    else:
        workflow["6"] = other["2"]
        workflow["6"]["inputs"]["cpu_offload"] = ["2", 2]
    _, report = migrate_workflow(workflow)
    assert [item.node for item in report.replaced] == ["6", "2"]
    assert not report.left


def test_bypass_and_a_video_file() -> None:
    workflow = before("QwenVL")
    values = node(workflow)["widgets_values"]
    values[-1] = "clip.mp4"
    assert any("video_path = 'clip.mp4'" in note for note in notes(workflow))
    values[6] = True
    stays(workflow, "switch it off")


def test_installed_classes_and_unknown_ones_stay_without_a_word() -> None:
    workflow = before("BlankImage")
    for known, type_ in ((Known(installed={"BlankImage"}), "BlankImage"), (None, "KSampler")):
        node(workflow)["type"] = type_
        after, report = migrate_workflow(workflow, known)
        assert after == workflow
        assert report == MigrationReport()


def test_a_known_class_without_a_counterpart_is_named() -> None:
    workflow = before("BlankImage")
    node(workflow)["type"] = "AILab_QwenVL_GGUF"
    stays(workflow, "llama.cpp")


def test_names_are_found_in_their_folders() -> None:
    known = Known(
        ["style\\vivace-demo-peft.safetensors", "x/vivace-demo-kohya.pt", "y/vivace-demo-kohya.pt"]
    )
    after, report = migrate_workflow(before(MANAGER), known)
    rows = node(after)["widgets_values"][0]
    assert [row["lora"] for row in rows] == [
        "style/vivace-demo-peft.safetensors",
        "vivace-demo-kohya.safetensors",
    ]
    assert "several files here have the name" in " ".join(report.replaced[0].notes)
    model = Known(models=["Qwen-VL/small-qwen3_vl"])
    after, _ = migrate_workflow(before("QwenVL"), model)
    assert node(after)["widgets_values"][1] == "Qwen-VL/small-qwen3_vl"


def test_values_out_of_range_are_brought_in_with_a_note() -> None:
    prompt = before("AILab_QwenVL_Advanced", "prompt")
    prompt["2"]["inputs"] |= {"top_p": 0.0, "num_beams": 1}
    after, report = migrate_workflow(prompt)
    assert after["2"]["inputs"]["sampling.top_p"] == 0.01
    assert "0.0 is out of range for ours; it is 0.01 now" in report.replaced[0].notes


def test_a_subgraph_with_its_inputs_and_shown_widgets() -> None:
    inner = before("NunchakuZImageTurboLoraStackV4")
    keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links: list[dict[str, Any]] = [dict(zip(keys, link, strict=True)) for link in inner["links"]]
    by_id = {link["id"]: link for link in links}
    by_id[3] |= {"origin_id": -10, "origin_slot": 0}  # the clip comes from outside
    loader = before("NunchakuQwenImageLoraLoader")
    extra: dict[str, Any] = node(loader) | {"id": 7}
    subgraph: dict[str, Any] = {
        "id": "some-uuid",
        "name": "Styled",
        "nodes": [n for n in inner["nodes"] if n["id"] != 4] + [extra],
        "links": [*links, {**by_id[1], "id": 11, "target_id": 7}],
        "inputs": [{"name": "clip", "type": "CLIP", "linkIds": [3]}],
        "outputs": [],
    }
    extra["inputs"][0]["link"] = 11
    shown: list[Any] = [["7", "lora_name"], ["7", "cpu_offload"], ["1", "unet_name"]]
    host: dict[str, Any] = {"id": 1, "type": "some-uuid", "properties": {"proxyWidgets": shown}}
    workflow: dict[str, Any] = {
        "nodes": [host],
        "links": [],
        "definitions": {"subgraphs": [subgraph]},
    }
    original = copy.deepcopy(workflow)
    after, report = migrate_workflow(workflow)
    assert workflow == original
    assert [item.node for item in report.replaced] == ["Styled/2", "Styled/7"]
    found = after["definitions"]["subgraphs"][0]
    assert found["inputs"][0]["linkIds"] == [4]
    fourth = next(link for link in found["links"] if link["id"] == 4)
    assert fourth == by_id[4] | {"origin_id": -10, "origin_slot": 0}
    assert 3 not in [link["id"] for link in found["links"]]
    kept = after["nodes"][0]["properties"]["proxyWidgets"]
    assert kept == [["7", "lora"], ["1", "unet_name"]]


@pytest.mark.parametrize("form", ["ui", "prompt"])
@pytest.mark.parametrize(
    ("name", "row"),
    [
        (POWER, {"on": True, "lora": "a.safetensors", "strength": 0.8, "strengthTwo": 0.3}),
        (MANAGER, {"active": True, "name": "a", "strength": "0.8", "clipStrength": "0.3"}),
    ],
)
def test_text_encoders_are_changed_by_ours_too(form: str, name: str, row: dict[str, Any]) -> None:
    workflow = before(name, form)
    if name == POWER:
        rows: Any = {"lora_1": row} if form == "prompt" else [row]
    else:
        rows = {"loras": {"__value__": [row]}} if form == "prompt" else ["", [row]]
    if form == "prompt":
        inputs = workflow["2"]["inputs"]
        workflow["2"]["inputs"] = {"model": inputs["model"], "clip": inputs["clip"], "text": ""}
        workflow["2"]["inputs"] |= rows
    else:
        node(workflow)["widgets_values"] = rows
    after, report = migrate_workflow(workflow)
    assert len(report.replaced) == 1
    assert not any("encoder" in note for note in report.replaced[0].notes)
    wanted = {"on": True, "lora": "a.safetensors", "strength": 0.8, "strength_clip": 0.3}
    if form == "prompt":
        assert after["2"]["inputs"]["rows"] == [wanted]
        assert after["2"]["inputs"]["clip"] == workflow["2"]["inputs"]["clip"]
        users = [
            part["inputs"]["clip"]
            for id_, part in after.items()
            if id_ != "2" and "clip" in part["inputs"]
        ]
        assert users == [["2", 5]]
        return
    assert node(after)["widgets_values"][0] == [wanted]
    (fed,) = (item["link"] for item in node(after)["inputs"] if item["name"] == "clip")
    ends = {link[0]: link[1:5] for link in after["links"]}
    assert ends[fed][2] == 2
    (used,) = node(after)["outputs"][5]["links"]
    assert ends[used][:2] == [2, 5]


def test_a_text_encoder_strength_that_is_no_number_keeps_the_node() -> None:
    workflow = before(POWER)
    row = {"on": True, "lora": "a.safetensors", "strength": 0.8, "strengthTwo": "much"}
    node(workflow)["widgets_values"] = [row]
    stays(workflow, "the text encoder strength of row_1 is 'much', not a number")


@pytest.mark.parametrize("form", ["ui", "prompt"])
def test_an_image_that_was_to_be_made_up_keeps_the_node(form: str) -> None:
    workflow = before("PreviewImageLogic", form)
    if form == "ui":
        workflow["links"] = workflow["links"][1:]
        node(workflow, 1)["outputs"][0]["links"] = None
        node(workflow)["inputs"][0]["link"] = None
    else:
        del workflow["2"]["inputs"]["image"]
    stays(workflow, "use a Blank Image of ours")


@pytest.mark.parametrize("name", sorted(DECLINED))
def test_known_nodes_without_a_counterpart_are_named_with_the_reason(name: str) -> None:
    prompt = {"1": {"class_type": name, "inputs": {}}}
    after, report = migrate_workflow(prompt)
    assert after == prompt
    assert [(item.old, item.reason) for item in report.left] == [(name, DECLINED[name])]
    assert name not in RULES
