"""Preview If."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS

ACTIONS = [PREVIEW, SAVE, BOTH] = ["preview", "save", "preview and save"]
OTHERWISE = [PASS_ON, STOP] = ["pass on", "stop"]
NOT_CONNECTED = object()  # ComfyUI hands in None for what is connected and not computed
_DEFAULTS = DEFAULTS["VivacePreviewIf"]


class PreviewIf(io.ComfyNode):
    """Shows or saves images when a condition holds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivacePreviewIf",
            display_name="Preview If",
            category="Vivace/Image",
            description=(
                "Shows or saves images when a condition holds, and passes them on. When it does"
                " not, a replacement can take their place, and the images are not computed then."
            ),
            search_aliases=["conditional preview", "preview image logic", "save if", "vivace"],
            inputs=[
                io.Boolean.Input(
                    "condition",
                    default=_DEFAULTS["condition"],
                    tooltip="Whether to show or save the images.",
                ),
                io.Image.Input(
                    "image", lazy=True, tooltip="The images; computed only where they are needed."
                ),
                io.Combo.Input(
                    "action",
                    options=ACTIONS,
                    default=_DEFAULTS["action"],
                    tooltip="Where the images go: into the node, into the output folder, or both.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default=_DEFAULTS["filename_prefix"],
                    tooltip="As in Save Image, with the same placeholders and folders.",
                ),
                io.Image.Input(
                    "replacement",
                    optional=True,
                    lazy=True,
                    tooltip="Passed on in place of the images when the condition does not hold.",
                ),
                io.Combo.Input(
                    "otherwise",
                    options=OTHERWISE,
                    default=_DEFAULTS["otherwise"],
                    optional=True,
                    tooltip=(
                        "When the condition does not hold. pass on: the replacement, or the images"
                        " if there is none; stop: nothing that follows is run."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The images, or the replacement.")
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
            is_output_node=True,
        )

    @classmethod
    def check_lazy_status(
        cls,
        condition: bool,
        image: Any = None,
        replacement: Any = NOT_CONNECTED,
        otherwise: str = _DEFAULTS["otherwise"],
        **_: Any,
    ) -> list[str]:
        if condition:
            return ["image"]
        if otherwise == STOP:
            return []
        return ["image" if replacement is NOT_CONNECTED else "replacement"]

    @classmethod
    def execute(
        cls,
        condition: bool,
        action: str,
        filename_prefix: str,
        image: Any = None,
        replacement: Any = NOT_CONNECTED,
        otherwise: str = _DEFAULTS["otherwise"],
    ) -> io.NodeOutput:
        # Empty lists, or the editor would go on showing the images of the last run.
        shown: dict[str, Any] = {"images": [], "saved": []}
        if not condition:
            from comfy_execution.graph_utils import ExecutionBlocker

            unused = image if replacement is NOT_CONNECTED else replacement
            passed = ExecutionBlocker(None) if otherwise == STOP else unused
            return io.NodeOutput(passed, ui=shown)
        from ..wrappers.preview.image_files import preview_pngs, save_pngs

        if action == PREVIEW:
            shown["images"] = preview_pngs(image, cls.hidden)
        else:
            shown["images" if action == BOTH else "saved"] = save_pngs(
                image, filename_prefix, cls.hidden
            )
        return io.NodeOutput(image, ui=shown)
