"""Files with workflows that were saved with other packs' nodes: JSON, and PNG with text in it."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ....migrate import Known, migrate_workflow
from ....migrate.files import read_workflow
from ....migrate.table import DECLINED, RULES
from ....toolkit.json_files import JsonFileError, write_object
from .. import scratch
from ..mutations import bytes_of, json_of
from ..refusals import PACK, may_refuse

_PNG = b"\x89PNG\r\n\x1a\n"
KNOWN = Known(["a/vivace-demo-peft.safetensors", "b.pt"], ["Qwen-VL/small-qwen3_vl"], True)
_GOLDEN = PACK / "tests" / "data" / "golden"
_WORDS = (
    *RULES, *list(DECLINED)[:3], "nodes", "links", "definitions", "subgraphs", "prompt", "inputs",
    "outputs", "widgets_values", "properties", "proxyWidgets", "class_type", "type", "id", "link",
    "linkIds", "name", "size", "-10", "-20", "0", "1", "2", "auto", "disable", "randomize",
    "control_after_generate", "None (FP16)", "lora_name_1", "lora_count", "model", "clip",
)  # fmt: skip


def target(data: bytes) -> None:
    """Read the file, migrate it, and write what came out."""
    name = "x.png" if data.startswith(_PNG) else "x.json"
    with scratch.file(data, name) as path:
        workflow = None
        with may_refuse(JsonFileError):
            workflow = read_workflow(path)
        if workflow is None:
            return
        found = _migrate(workflow)
        with may_refuse(JsonFileError):
            write_object(path.with_name("out.json"), found)


def _migrate(workflow: dict[str, Any]) -> dict[str, Any]:
    before = json.dumps(workflow)
    found, report = migrate_workflow(workflow, KNOWN)
    assert json.dumps(workflow) == before
    assert report.lines()
    json.dumps(report.to_json())
    after = json.dumps(found)
    if not report.replaced:
        assert after == before
    if not report.folded:
        assert _ids(found) == _ids(workflow)
    again, second = migrate_workflow(found, KNOWN)
    assert not second.replaced
    assert json.dumps(again) == after
    return found


def _ids(workflow: dict[str, Any]) -> list[Any]:
    if not isinstance(workflow.get("nodes"), list):
        return list(workflow)  # a prompt
    return [node.get("id") for node in workflow["nodes"] if isinstance(node, dict)]


@lru_cache(maxsize=1)
def _workflows() -> tuple[bytes, ...]:
    """Each known node in both formats, and in a subgraph."""
    found: list[Any] = []
    for file in sorted(_GOLDEN.glob("*.json")):
        golden = json.loads(file.read_text(encoding="utf-8"))
        found += [golden["ui"]["before"], golden["prompt"]["before"]]
    first = json.loads(json.dumps(found[0]))
    first["definitions"] = {"subgraphs": [_subgraph(first)]}
    links = {"proxyWidgets": [["2", "seed"], ["2", "model_name"]]}
    first["nodes"].append({"id": 9, "type": "sub", "properties": links})
    found += [first, {"prompt": found[1]}]
    return tuple(json.dumps(one).encode() for one in found)


def _subgraph(workflow: dict[str, Any]) -> dict[str, Any]:
    """The same nodes as a subgraph, in which links are objects."""
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    links = [dict(zip(names, link, strict=True)) for link in workflow["links"]]
    sockets = [{"name": "IMAGE", "type": "IMAGE", "linkIds": [1]}]
    return {
        "id": "sub", "name": "Inside", "nodes": workflow["nodes"], "links": links,
        "inputs": sockets, "outputs": sockets,
    }  # fmt: skip


def _picture(text: bytes, kind: bytes) -> bytes:
    """A PNG that is nothing but a text."""
    packed = zlib.compress(text)
    data = {
        b"tEXt": b"workflow\0" + text,
        b"zTXt": b"workflow\0\0" + packed,
        b"iTXt": b"prompt\0\1\0\0\0" + packed,
    }[kind]
    return _PNG + b"".join(_chunk(*one) for one in ((b"IHDR", bytes(13)), (kind, data)))


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def seeds() -> Sequence[bytes]:
    """Workflows of the tests of migration, and three pictures."""
    found = _workflows()
    kinds = (b"tEXt", b"zTXt", b"iTXt")
    pictures = [_picture(found[n], kind) for n, kind in enumerate(kinds)]
    return [*found, *pictures]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change values anywhere in a workflow; pictures by their bytes."""
    if not data.startswith(_PNG):
        return json_of(data, chance, _WORDS)
    if chance.random() < 0.5:
        return bytes_of(data, chance)
    text = json_of(chance.choice(_workflows()), chance, _WORDS)
    return _picture(text, chance.choice((b"tEXt", b"zTXt", b"iTXt")))
