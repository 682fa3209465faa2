"""Help pages, tooltips and languages say the same as the schemas: everything, and nothing more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import vivace
from PIL import Image
from vivace.devkit.pictures.image_files import NODE_BYTES
from vivace.devkit.pictures.node_pictures import VALUES
from vivace.devkit.rig.client import ComfyClient
from vivace.devkit.rig.layout import PACK_NAME
from vivace.devkit.rig.published import left_out

ROOT = Path(vivace.__file__ or "").parent
LANGUAGES = ("en", "zh", "ja", "ko", "fr", "de", "es", "ru")
HEADINGS = ["Example", "Inputs", "Outputs", "Limits and errors"]
COMFYUI_HEADING = "ComfyUI's own node"


@pytest.fixture(scope="module")
def schemas(comfyui: ModuleType) -> dict[str, Any]:
    """The real schemas by node id."""
    from vivace.lazy_registry import NODE_TABLE, NodeLoader

    return {row.node_id: NodeLoader(row).real().define_schema() for row in NODE_TABLE}


def inputs_of(schema: Any) -> dict[str, Any]:
    """All inputs by the name that a prompt gives them, those below a choice included."""

    def walk(inputs: list[Any], before: str) -> Iterator[tuple[str, Any]]:
        for item in inputs:
            yield before + item.id, item
            for option in item.options if item.io_type == "COMFY_DYNAMICCOMBO_V3" else ():
                yield from walk(option.inputs, f"{before}{item.id}.")

    return dict(walk(schema.inputs, ""))


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def first_cells(section: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", section, flags=re.MULTILINE)


def page_of(node_id: str) -> str:
    return (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")


def language(name: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / name / file).read_text(encoding="utf-8"))


def texts(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The leaves of nested objects, each with its path."""
    if not isinstance(value, dict):
        yield path, value
        return
    for key, inner in value.items():
        yield from texts(inner, (*path, key))


def english(schemas: dict[str, Any]) -> dict[str, Any]:
    """What `nodeDefs.json` holds in English; the editor writes `_` for the dots in names."""
    return {
        node_id: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {
                name.replace(".", "_"): {"name": item.id, "tooltip": item.tooltip}
                for name, item in inputs_of(schema).items()
            },
            "outputs": {
                str(place): {"name": output.display_name, "tooltip": output.tooltip}
                for place, output in enumerate(schema.outputs)
            },
        }
        for node_id, schema in schemas.items()
    }


def english_main(schemas: dict[str, Any]) -> dict[str, Any]:
    """What `main.json` holds in English: categories, and the settings of the scripts."""
    setting = re.compile(
        r'id: "(Vivace\.[\w.]+)",\s*category: (.+),\s*name: "(.+)",\s*tooltip: "(.+)",'
        r'\s*type: "\w+"(?:,\s*options: \[((?:\s*\{.+\},)+))?'
    )
    scripts = "".join(script.read_text() for script in sorted((ROOT / "web").glob("*.js")))
    found = setting.findall(scripts)
    categories = {part for schema in schemas.values() for part in schema.category.split("/")}
    assert len(found) == len(re.findall(r"^ +category: ", scripts, flags=re.MULTILINE))
    groups = {part for _, category, *_ in found for part in json.loads(category)[:2]}
    return {
        "nodeCategories": {part: part for part in categories},
        "settingsCategories": {part: part for part in groups},
        "settings": {
            id.replace(".", "_"): {"name": name, "tooltip": tooltip} | options_of(options)
            for id, _, name, tooltip, options in found
        },
    }


def options_of(script: str) -> dict[str, Any]:
    """The texts of a setting's choices; choices that are values of nodes are shown as they are."""
    names = re.findall(r'text: "(.+?)"', script)
    return {"options": {name: name for name in names}} if names else {}


def test_every_node_has_a_page_with_all_its_inputs_and_outputs(schemas: dict[str, Any]) -> None:
    pages = {path.stem for path in (ROOT / "web" / "docs").glob("*.md")}
    assert pages == schemas.keys()
    for node_id, schema in schemas.items():
        page = page_of(node_id)
        assert page.startswith(f"# {schema.display_name}\n"), node_id
        found = sections(page)
        assert list(found)[:4] == HEADINGS, node_id
        assert set(found) <= {*HEADINGS, COMFYUI_HEADING}, node_id
        assert sorted(first_cells(found["Inputs"])) == sorted(inputs_of(schema)), node_id
        names = [output.display_name for output in schema.outputs]
        assert first_cells(found["Outputs"]) == names, node_id


def test_every_page_has_a_picture_of_its_node(client: ComfyClient, schemas: dict[str, Any]) -> None:
    folder = ROOT / "web" / "docs" / "images"
    assert {path.stem for path in folder.iterdir()} == schemas.keys()
    for node_id, schema in schemas.items():
        introduction = page_of(node_id).split("\n## ")[0]
        assert f"![The node {schema.display_name}](images/{node_id}.png)" in introduction, node_id
        picture = folder / f"{node_id}.png"
        assert picture.stat().st_size < NODE_BYTES
        with Image.open(picture) as image:
            assert image.format == "PNG"
        served = client.get(f"/extensions/{PACK_NAME}/docs/images/{node_id}.png")
        assert served == picture.read_bytes()


def test_pictures_are_filled_with_inputs_that_exist(schemas: dict[str, Any]) -> None:
    assert VALUES.keys() <= schemas.keys()
    for node_id, values in VALUES.items():
        assert values.keys() <= inputs_of(schemas[node_id]).keys(), node_id


def test_pages_and_examples_are_published() -> None:
    folders = ("web", "locales", "example_workflows")
    paths = [path for name in folders for path in (ROOT / name).rglob("*")]
    assert left_out([path.relative_to(ROOT).as_posix() for path in paths]) == []
    assert left_out(["tests/server/test_help.py"]) == ["tests/server/test_help.py"]


def test_nodes_that_pages_point_to_exist(schemas: dict[str, Any]) -> None:
    titles = {schema.display_name for schema in schemas.values()}
    named = re.compile(r"\*((?:QwenVL|LoRA|Blank|Load SVDQuant|API Key|Prompt Manager)[\w ]*)\*")
    found = [name for node_id in schemas for name in named.findall(page_of(node_id))]
    assert len(found) >= 10
    assert set(found) <= titles


def test_every_input_and_output_has_a_tooltip_and_every_node_aliases(
    schemas: dict[str, Any],
) -> None:
    for node_id, schema in schemas.items():
        named = inputs_of(schema)
        grown = [item.template.input for item in named.values() if hasattr(item, "template")]
        assert [item.id for item in [*named.values(), *grown] if not item.tooltip] == [], node_id
        assert [o.display_name for o in schema.outputs if not o.tooltip] == [], node_id
        assert "vivace" in schema.search_aliases
        assert len({alias.lower() for alias in schema.search_aliases}) >= 3, node_id


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_language_has_every_text_and_no_other(schemas: dict[str, Any], name: str) -> None:
    for file, wanted in (("nodeDefs.json", english(schemas)), ("main.json", english_main(schemas))):
        here, there = dict(texts(language(name, file))), dict(texts(wanted))
        missing, stale = sorted(there.keys() - here.keys()), sorted(here.keys() - there.keys())
        assert not missing, f"{name}/{file} lacks {missing}"
        assert not stale, f"{name}/{file} has texts of nothing: {stale}"
        assert [path for path, text in here.items() if not str(text).strip()] == []
        if name == "en":
            assert here == there


@pytest.mark.parametrize("name", LANGUAGES[1:])
def test_translations_keep_figures_and_choices(schemas: dict[str, Any], name: str) -> None:
    wanted = {"nodes": english(schemas), "main": english_main(schemas)}
    here = {"nodes": language(name, "nodeDefs.json"), "main": language(name, "main.json")}
    translated = dict(texts(here))
    for path, text in texts(wanted):
        other = translated[path]
        assert sorted(re.findall(r"\d+", other)) == sorted(re.findall(r"\d+", text)), path
        # The editor's translator would take these for its own syntax.
        assert not re.search(r"[{}@|]", other), path
        if path[-1] in ("tooltip", "description"):
            assert other != text, f"{path} is not translated"
    for node_id, schema in schemas.items():
        for key, item in inputs_of(schema).items():
            said = here["nodes"][node_id]["inputs"][key.replace(".", "_")]["tooltip"]
            options = item.options if item.io_type == "COMBO" else ()
            # Choices are values of prompts and shown as they are. "on" is a common word, too.
            for option in (option for option in options or () if len(option) > 2):
                if re.search(rf"(?<![\w.-]){re.escape(option)}(?![\w.-])", item.tooltip):
                    assert option in said, (node_id, key)


def test_there_are_no_other_languages() -> None:
    found = {path.relative_to(ROOT / "locales").as_posix() for path in ROOT.glob("locales/*/*")}
    assert found == {f"{n}/{file}" for n in LANGUAGES for file in ("main.json", "nodeDefs.json")}


def test_the_server_hands_out_languages_and_pages(
    client: ComfyClient, schemas: dict[str, Any]
) -> None:
    served = client.get_json("/i18n")
    for name in LANGUAGES:
        ours = language(name, "main.json") | {"nodeDefs": language(name, "nodeDefs.json")}
        everything = dict(texts(served[name]))
        assert everything.items() >= dict(texts(ours)).items(), name
    info = client.get_json("/object_info")
    for node_id in schemas:
        pack = info[node_id]["python_module"].split(".")[1]
        page = client.get(f"/extensions/{pack}/docs/{node_id}.md").decode()
        assert page == page_of(node_id)
