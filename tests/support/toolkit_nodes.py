"""Nodes of comfyui-llm-toolkit as its workflows have them, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

from support.both_formats import Part, Parts, as_prompt, as_workflow, prompt_of
from vivace.migrate import Known, MigrationReport, migrate_workflow
from vivace.migrate.our_nodes import TARGETS

KEY = "a-key-of-nobody"
WRITER, STREAM = "LLMToolkitTextGenerator", "LLMToolkitTextGeneratorStream"
TEXT = Part("PrimitiveStringMultiline", {"value": "What is this?"}, outputs=("STRING",))
IMAGE = Part("LoadImage", {"image": "a.png"}, outputs=("IMAGE", "MASK"))
TASK = Part("SystemPromptTaskGenerator", {"task": "T", "as_text": False}, outputs=("*", "STRING"))


def provider(name: str = "openai", model: str = "gpt-4.1", key: str = "", **links: Any) -> Part:
    values = {"provider": name, "llm_model": model, "external_api_key": key}
    return Part("APIProviderSelectorNode", values, links)


def server(name: str = "ollama", model: str = "gemma3:1b", port: str = "11434") -> Part:
    values = {"llm_provider": name, "llm_model": model, "base_ip": "localhost", "port": port}
    return Part("LLMToolkitProviderSelector", values)


def key_node(**links: Any) -> Part:
    values = {"provider": "openai", "api_key": KEY, "override_existing": True}
    return Part("APIKeyInput", values, links)


def writer(type_: str = WRITER, prompt: str = "Mine.", **links: Any) -> Part:
    return Part(type_, {"prompt": prompt, "hide_thinking": True}, links, ("*", "STRING"))


def manager(*sources: tuple[int, int]) -> Part:
    names = ("context", *(f"context_{number}" for number in range(1, 10)))
    return Part("LLMPromptManager", {}, dict(zip(names, sources, strict=False)))


def show(*source: int) -> Part:
    return Part("PreviewAny", {}, {"source": (source[0], source[1])}, ("STRING",))


def migrate(parts: Parts, known: Known | None = None) -> tuple[dict[str, Any], MigrationReport]:
    """Migrate both formats, which must come to the same; the prompt and the report."""
    after, report = migrate_workflow(as_prompt(parts), known)
    saved, same = migrate_workflow(as_workflow(parts), known)
    assert same == report
    names: dict[str, list[str]] = {}
    for node in saved["nodes"]:
        if node["type"] in TARGETS:
            inputs = after[str(node["id"])]["inputs"]
            names[node["type"]] = list(TARGETS[node["type"]].complete(inputs, ()))
            assert len(names[node["type"]]) == len(node["widgets_values"])
        elif node["type"] in {part.type for part in parts.values()}:
            old = next(part for part in parts.values() if part.type == node["type"])
            names[node["type"]] = list(old.values)
    assert prompt_of(saved, names) == after
    assert saved["last_link_id"] >= max((link[0] for link in saved["links"]), default=0)
    assert KEY not in json.dumps(report.to_json()) + " ".join(report.lines())
    return after, report


def stays(parts: Parts, why: str, known: Known | None = None) -> None:
    """Nothing is changed in either format."""
    for before in (as_prompt(parts), as_workflow(parts)):
        after, report = migrate_workflow(before, known)
        assert after == before
        assert report.replaced == report.folded == []
        assert any(why in item.reason for item in report.left), report.lines()
        assert KEY not in json.dumps(report.to_json())
