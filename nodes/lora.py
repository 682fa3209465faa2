"""LoRA Stack and LoRA Loader."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..lora.rows import LoraRow, RowError, parse_rows
from . import lora_files

CATEGORY = "Vivace/LoRA"
MAX_STRENGTH = 100.0


@io.comfytype(io_type="VIVACE_LORA_ROWS")
class LoraRows(io.ComfyTypeI):
    """A list of `{"on": bool, "lora": str, "strength": float}`, edited by `web/lora_rows.js`."""

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
                io.Model.Input("model", tooltip="The diffusion model: Qwen-Image or Z-Image."),
                LoraRows.Input(
                    "rows",
                    tooltip="The LoRAs, in order. A row that is off or at strength 0 does nothing.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the LoRAs.")],
        )

    @classmethod
    def validate_inputs(cls, rows: Any = None) -> bool | str:
        try:
            active = _active(parse_rows([] if rows is None else rows))
        except RowError as error:
            return str(error)
        return lora_files.missing_loras(row.lora for row in active) or True

    @classmethod
    def fingerprint_inputs(cls, rows: Any = None, **_: Any) -> Any:
        return [(*lora_files.file_identity(r.lora), r.strength) for r in _active(parse_rows(rows))]

    @classmethod
    def execute(cls, model: Any, rows: Any) -> io.NodeOutput:
        return io.NodeOutput(_apply(model, parse_rows(rows)))


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
                io.Model.Input("model", tooltip="The diffusion model: Qwen-Image or Z-Image."),
                io.Combo.Input(
                    "lora",
                    options=list(lora_files.listed_loras()),
                    tooltip="A file from ComfyUI's loras folders.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-MAX_STRENGTH,
                    max=MAX_STRENGTH,
                    step=0.01,
                    tooltip="1 applies the LoRA as trained, 0 not at all, below 0 its opposite.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="The model with the LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, lora: str | None = None) -> bool | str:
        return lora_files.missing_loras([] if lora is None else [lora]) or True

    @classmethod
    def fingerprint_inputs(cls, lora: str | None = None, **_: Any) -> Any:
        return None if lora is None else lora_files.file_identity(lora)

    @classmethod
    def execute(cls, model: Any, lora: str, strength: float) -> io.NodeOutput:
        return io.NodeOutput(_apply(model, (LoraRow(lora, strength),)))


def _active(rows: tuple[LoraRow, ...]) -> list[LoraRow]:
    return [row for row in rows if row.active]


def _apply(model: Any, rows: tuple[LoraRow, ...]) -> Any:
    from ..wrappers.dense import apply_loras

    return apply_loras(model, [(lora_files.lora_path(r.lora), r.strength) for r in _active(rows)])
