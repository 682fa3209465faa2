"""The published archive, unpacked into a real ComfyUI: everything is there and works."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.graphs import PEFT, SOME_WEIGHT, row, stack_prompt
from support.published import server_with
from vivace.cli.version import version
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import OUT, ROOT
from vivace.devkit.rig.published import copy_pack, published_files

PACK = "vivace"  # the registry's name, under which its archive is unpacked


@pytest.fixture(scope="module")
def client(comfyui_folder: Path, models: Path) -> Iterator[ComfyClient]:
    work = OUT / "tests" / "release"
    shutil.rmtree(work, ignore_errors=True)
    pack = work / "custom_nodes" / PACK
    copy_pack(pack)
    with server_with(pack, work, comfyui_folder) as server:
        server.wait_until_ready()
        yield ComfyClient(server.url)


def test_the_archive_has_what_people_need_and_no_more() -> None:
    files = published_files()
    assert {"__init__.py", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= set(files)
    tops = {name.partition("/")[0] for name in files}
    kept_back = {"tests", "devkit", "dev.py", ".ci", ".github"}
    assert not tops & kept_back
    assert not {"docs/architecture.md", "docs/development.md"} & set(files)
    pages = [ROOT / name for name in files if name.startswith("docs/")]
    assert sum(page.stat().st_size for page in pages) < 250_000


def test_every_node_is_there(client: ComfyClient) -> None:
    from vivace.lazy_registry import NODE_TABLE

    info = client.get_json("/object_info")
    for entry in NODE_TABLE:
        found = info[entry.node_id]
        assert found["python_module"] == f"custom_nodes.{PACK}"
        assert "cannot be imported" not in found["description"]
        assert found["output_tooltips"] or not entry.outputs


def test_a_stack_works(client: ComfyClient) -> None:
    outputs = client.run(stack_prompt([row(PEFT, 0.5)]))
    assert outputs["weights"]["patched"] == [4]
    assert outputs["weights"]["files"], SOME_WEIGHT


def test_the_editor_gets_its_files(client: ComfyClient) -> None:
    page = client.get(f"/extensions/{PACK}/docs/VivaceLoraStack.md").decode()
    assert page == (ROOT / "web/docs/VivaceLoraStack.md").read_text(encoding="utf-8")
    assert client.get(f"/extensions/{PACK}/lora_rows.js")
    templates = client.get_json("/workflow_templates")[PACK]
    assert len(templates) == len(list((ROOT / "example_workflows").glob("*.json")))
    names = client.get_json("/i18n")
    german = json.loads((ROOT / "locales/de/nodeDefs.json").read_text(encoding="utf-8"))
    assert names["de"]["nodeDefs"]["VivaceLoraStack"] == german["VivaceLoraStack"]


def test_the_changes_of_this_version_are_told() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {version()}" in changes
