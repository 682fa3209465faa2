"""LoRA Stack, LoRA Loader and LoRA Inspect."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from ..lora.rows import LoraRow, RowError, parse_rows, parse_stack
from . import lora_files, settings

CATEGORY = "Vivace/LoRA"
MAX_STRENGTH = 100.0
MODES = ["auto", "merge", "branch"]
_DEFAULTS, _LOADER = DEFAULTS["VivaceLoraStack"], DEFAULTS["VivaceLoraLoader"]


@io.comfytype(io_type="VIVACE_LORA_ROWS")
class LoraRows(io.ComfyTypeI):
    """A list of rows as `lora.rows.parse_rows` reads them, edited by `web/lora_rows.js`."""

    Type = list[dict[str, Any]]

    class Input(io.WidgetInput):  # pyright: ignore[reportIncompatibleVariableOverride]
        """The rows widget; it has no socket."""

        def __init__(self, id: str, tooltip: str) -> None:
            super().__init__(id, tooltip=tooltip, default=[], socketless=True)


class LoraStack(io.ComfyNode):
    """Any number of LoRAs on one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceLoraStack",
            display_name="LoRA Stack",
            category=CATEGORY,
            description=(
                "Applies any number of LoRAs to a model, each with its own switch and strength."
                " The incoming model is not changed; other branches of the graph do not see them."
            ),
            search_aliases=["lora", "multi lora", "power lora loader", "load lora", "vivace"],
            inputs=[
                _model_input(),
                LoraRows.Input(
                    "rows",
                    tooltip="The LoRAs, in order. A row that is off or at strength 0 does nothing.",
                ),
                _mode_input(),
                _strict_input(),
                io.Custom("LORA_STACK").Input(
                    "lora_stack",
                    optional=True,
                    tooltip="LoRAs from another pack's stack node; they come before the rows.",
                ),
                io.String.Input(
                    "text",
                    optional=True,
                    force_input=True,
                    tooltip=(
                        "A prompt with LoRAs in it, as <lora:name:0.8>, or <lora:name:0.8:0.6> with"
                        " the strength for the text encoder second; they come after the rows."
                    ),
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip=(
                        "The text encoder, for LoRAs that were trained on it too. It is not"
                        " changed; the output has the LoRAs."
                    ),
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRAs."),
                _report_output(),
                io.Custom("LORA_STACK").Output(
                    display_name="lora_stack",
                    tooltip=(
                        "All LoRAs as (name, strength, strength for the text encoder), for other"
                        " packs' nodes."
                    ),
                ),
                io.String.Output(
                    display_name="trigger_words",
                    tooltip="Trigger words of the LoRAs that are on, separated by commas.",
                ),
                io.String.Output(
                    display_name="text", tooltip="The text that came in, without its LoRAs."
                ),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="The text encoder with the LoRAs; nothing if none is connected.",
                ),
            ],
            **_report_stays(),
        )

    @classmethod
    def validate_inputs(cls, rows: Any = None, text: Any = None) -> bool | str:
        try:
            active, _ = _rows(rows, text)
        except RowError as error:
            return str(error)
        return lora_files.missing_loras(row.lora for row in active) or True

    @classmethod
    def fingerprint_inputs(cls, rows: Any = None, text: Any = None, **_: Any) -> Any:
        active, _rest = _rows(rows, text)
        return [(*lora_files.file_identity(r.lora), r.strength, r.clip) for r in active]

    @classmethod
    def execute(
        cls,
        model: Any,
        rows: Any,
        mode: str = _DEFAULTS["mode"],
        strict: bool = _DEFAULTS["strict"],
        lora_stack: Any = None,
        text: str | None = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        active, rest = _rows(rows, text, lora_stack)
        patched, encoder, report = _apply(model, clip, active, mode, strict)
        words = ", ".join(lora_files.trigger_words(row.lora for row in active))
        stack = [(lora_files.listed_name(r.lora), r.strength, r.clip) for r in active]
        shown = {"text": (report,)}
        return io.NodeOutput(patched, report, stack, words, rest, encoder, ui=shown)


class LoraLoader(io.ComfyNode):
    """One LoRA on one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceLoraLoader",
            display_name="LoRA Loader",
            category=CATEGORY,
            description=(
                "Applies one LoRA to a model. The incoming model is not changed; other branches of"
                " the graph do not see it."
            ),
            search_aliases=["lora", "load lora", "lora model only", "vivace"],
            inputs=[
                _model_input(),
                _lora_input(),
                io.Float.Input(
                    "strength",
                    default=_LOADER["strength"],
                    min=-MAX_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.01,
                    tooltip="1 applies the LoRA as trained, 0 not at all, below 0 its opposite.",
                ),
                _mode_input(),
                _strict_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model with the LoRA."),
                _report_output(),
            ],
            **_report_stays(),
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return lora_files.missing_loras([] if lora is None else [lora]) or True

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> Any:
        return None if lora is None else lora_files.file_identity(lora)

    @classmethod
    def execute(
        cls,
        model: Any,
        lora: str,
        strength: float,
        mode: str = _LOADER["mode"],
        strict: bool = _LOADER["strict"],
    ) -> io.NodeOutput:
        rows = [LoraRow(lora, strength)]
        patched, _, report = _apply(model, None, rows, mode, strict)
        return io.NodeOutput(patched, report, ui={"text": (report,)})


class LoraInspect(io.ComfyNode):
    """What a LoRA file holds, without a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceLoraInspect",
            display_name="LoRA Inspect",
            category=CATEGORY,
            description=(
                "What a LoRA file holds and what would be applied: format, rank, modules, and every"
                " tensor that is ignored or unknown, with the reason. Reads the header only."
            ),
            search_aliases=["lora info", "lora metadata", "lora keys", "vivace"],
            is_output_node=True,
            inputs=[_lora_input()],
            outputs=[
                io.String.Output(
                    display_name="report",
                    tooltip="What would be applied and what would not, as Markdown.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return lora_files.missing_loras([] if lora is None else [lora]) or True

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None) -> Any:
        return None if lora is None else lora_files.file_identity(lora)

    @classmethod
    def execute(cls, lora: str) -> io.NodeOutput:
        from ..lora.examine import inspect
        from ..lora.file_report import markdown

        report = markdown([inspect(lora_files.lora_path(lora))])
        return io.NodeOutput(report, ui={"text": (report,)})


def _rows(rows: Any, text: Any, lora_stack: Any = None) -> tuple[list[LoraRow], str]:
    """The active rows of all three inputs, in the order in which they apply; the rest of the text.

    Inputs that are links are None until the node runs.
    """
    from ..lora.prompt_tags import parse_text

    tagged, rest = parse_text("" if text is None else str(text))
    everything = (*parse_stack(lora_stack), *parse_rows([] if rows is None else rows), *tagged)
    return [row for row in everything if row.active], rest


def _apply(
    model: Any, clip: Any, rows: list[LoraRow], mode: str, strict: bool
) -> tuple[Any, Any, str]:
    from ..lora.files.cache import default_limit
    from ..lora.loader import CACHE
    from ..wrappers.lora.apply_stack import apply_stack

    limit = settings.lora_cache_bytes()
    CACHE.resize(default_limit if limit is None else limit)
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not '{mode}'.")
    files = [(lora_files.lora_path(row.lora), row.strength, row.clip) for row in rows]
    return apply_stack(model, clip, files, mode, strict)  # pyright: ignore[reportArgumentType]


def _model_input() -> io.Model.Input:
    return io.Model.Input(
        "model", tooltip="The diffusion model: Qwen-Image, Qwen-Image-2.1 or Z-Image."
    )


def _lora_input() -> io.Combo.Input:
    names = list(lora_files.listed_loras())
    return io.Combo.Input("lora", options=names, tooltip="A file from ComfyUI's loras folders.")


def _mode_input() -> io.Combo.Input:
    return io.Combo.Input(
        "mode",
        options=MODES,
        default=_DEFAULTS["mode"],
        optional=True,
        advanced=True,
        tooltip=(
            "auto, branch: beside the weights at run time; no weight is rounded, and a changed"
            " strength costs nothing. merge: into the weights, to save the model or for many"
            " pictures of one stack; the report says what rounding loses."
        ),
    )


def _strict_input() -> io.Boolean.Input:
    return io.Boolean.Input(
        "strict",
        default=_DEFAULTS["strict"],
        optional=True,
        advanced=True,
        tooltip="Stop with an error if anything in a file cannot be applied.",
    )


def _report_output() -> io.String.Output:
    return io.String.Output(
        display_name="report", tooltip="What was applied and what was not, as Markdown."
    )


def _report_stays() -> dict[str, Any]:
    """Have the report shown again when the page was opened anew and a run finds all in the cache.

    Older releases of ComfyUI have no such field.
    """
    known = "has_intermediate_output" in io.Schema.__dataclass_fields__
    return {"has_intermediate_output": True} if known else {}
