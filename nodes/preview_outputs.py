"""Preview Outputs: shows whatever comes in."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS

MAX_INPUTS = 20
MAX_SHOWN = 100  # values of all inputs together
FORMATS = [MARKDOWN, JSON] = ["Markdown", "JSON"]
_DEFAULTS = DEFAULTS["VivacePreviewOutputs"]


class PreviewOutputs(io.ComfyNode):
    """Shows values of any type, each in the way that suits it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivacePreviewOutputs",
            display_name="Preview Outputs",
            category="Vivace/Utilities",
            description=(
                "Shows whatever is connected: images, masks, audio with its waveform, video, text,"
                " numbers and JSON, statistics of latents, and what conditioning, models with their"
                " LoRAs, text encoders, VAEs and any other value consist of."
            ),
            search_aliases=[
                "preview any",
                "show anything",
                "display text",
                "inspect",
                "debug",
                "print value",
                "vivace",
            ],
            inputs=[
                io.Autogrow.Input(
                    "values",
                    template=io.Autogrow.TemplatePrefix(
                        io.AnyType.Input(
                            "value", tooltip="A value of any type, or a list of them."
                        ),
                        prefix="value",
                        min=0,
                        max=MAX_INPUTS,
                    ),
                    optional=True,
                    tooltip="What to show, in order; of any type.",
                ),
                io.Combo.Input(
                    "summary_format",
                    options=FORMATS,
                    default=_DEFAULTS["summary_format"],
                    optional=True,
                    advanced=True,
                    tooltip="Of the output summary: Markdown for people, JSON for programs.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="summary",
                    tooltip="What is shown as text: a title, figures and texts of each value.",
                )
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
            is_output_node=True,
            is_input_list=True,
        )

    @classmethod
    def execute(
        cls,
        values: dict[str, list[Any] | None] | None = None,
        summary_format: list[str] | None = None,
    ) -> io.NodeOutput:
        from ..toolkit.preview_report import as_json, as_markdown
        from ..toolkit.summary import Summary
        from ..wrappers.preview.value_previews import Shown, show

        connected = [(name, items) for name, items in (values or {}).items() if items is not None]
        sources = _sources(cls.hidden.prompt, cls.hidden.unique_id)
        named = [
            (_label(name, sources.get(name, ""), place, len(items)), item)
            for name, items in connected
            for place, item in enumerate(items)
        ]
        shown = [(label, show(item, cls.hidden)) for label, item in named[:MAX_SHOWN]]
        if len(named) > MAX_SHOWN:
            more = Summary("nothing", f"{len(named) - MAX_SHOWN} more values are not shown")
            shown.append(("more", Shown(more)))
        entries = [item.to_json(label) for label, item in shown]
        report = [(label, item.summary) for label, item in shown]
        wanted = (summary_format or [MARKDOWN])[0]
        text = as_json(report) if wanted == JSON else as_markdown(report)
        return io.NodeOutput(text, ui={**_files(entries), "values": entries})


def _files(entries: list[dict[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """The files under the names that ComfyUI's history and its clients know."""
    found: dict[str, list[dict[str, str]]] = {"images": [], "audio": []}
    for entry in entries:
        found["audio" if entry["media"] == "audio" else "images"] += entry["files"]
    return found


def _label(name: str, source: str, place: int, length: int) -> str:
    number = f" [{place}]" if length > 1 else ""
    return f"{name}{number}: {source}" if source else f"{name}{number}"


def _sources(prompt: Any, unique_id: str | None) -> dict[str, str]:
    """For each input the title of the node that it comes from, or its class."""
    nodes = prompt if isinstance(prompt, dict) else {}
    inputs = nodes.get(unique_id, {}).get("inputs", {})
    found = {}
    for name, link in inputs.items():
        linked = isinstance(link, list) and len(link) == 2 and isinstance(link[0], str)
        source = nodes.get(link[0], {}) if linked else {}
        meta = source.get("_meta")
        title = meta.get("title") if isinstance(meta, dict) else None
        found[name.removeprefix("values.")] = str(title or source.get("class_type", ""))
    return found
