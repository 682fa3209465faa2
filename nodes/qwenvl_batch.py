"""QwenVL Batch: captions for many images, or for a folder."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from . import choices
from . import vlm_inputs as inputs
from . import vlm_values as values

EXISTING = ["skip", "overwrite", "append"]
_DEFAULTS = DEFAULTS["VivaceQwenVLBatch"]


class QwenVLBatch(io.ComfyNode):
    """The same question about each of many images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceQwenVLBatch",
            display_name="QwenVL Batch",
            category=inputs.CATEGORY,
            description=(
                "Captions many images: those of a batch or list, as a list; or those of a folder,"
                " as a .txt file beside each. An interrupted folder goes on where it stopped."
            ),
            search_aliases=[
                "batch caption",
                "caption folder",
                "dataset",
                "image to text",
                "vlm",
                "qwen",
                "vivace",
            ],
            is_input_list=True,
            inputs=[
                inputs.engine_input(),
                io.Image.Input("images", optional=True, tooltip="A batch, or a list of images."),
                io.String.Input(
                    "folder",
                    default=_DEFAULTS["folder"],
                    optional=True,
                    tooltip="A folder of images, in place of the images above.",
                ),
                io.Combo.Input(
                    "existing",
                    options=EXISTING,
                    default=_DEFAULTS["existing"],
                    optional=True,
                    tooltip="What becomes of captions that are there already, in a folder.",
                ),
                io.Boolean.Input(
                    "subfolders",
                    default=_DEFAULTS["subfolders"],
                    optional=True,
                    tooltip="Of the folder, too.",
                ),
                io.Int.Input(
                    "batch_size",
                    default=_DEFAULTS["batch_size"],
                    min=1,
                    max=64,
                    optional=True,
                    tooltip="Images that are captioned together.",
                ),
                *inputs.prompt_inputs(),
                *inputs.answer_inputs(),
                inputs.api_key_input(),
            ],
            outputs=[
                io.String.Output(
                    display_name="captions",
                    is_output_list=True,
                    tooltip="The captions that were written in this run, in order.",
                ),
                io.String.Output(
                    display_name="report",
                    tooltip="What each stage took, and what failed, as Markdown.",
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, folder: Any = None, **_: Any) -> Any:
        # What is in the folder may have changed.
        return float("nan") if any(path.strip() for path in _list(folder)) else ""

    @classmethod
    def execute(cls, **entered: Any) -> io.NodeOutput:
        from ..vlm.caption_folder import ImageFolder
        from ..vlm.preset_prompts import NONE, instruction
        from ..wrappers.vlm.vlm_batch import BatchPrompt, caption_folder, caption_images
        from ..wrappers.vlm.vlm_session import open_session

        choices.check_choices(cls.hidden, engine=values.ENGINES, sampling=values.SAMPLINGS)
        images = [image for batch in _list(entered.pop("images", None)) for image in batch]
        given = choices.given({name: _first(value) for name, value in entered.items()})
        folder = given.get("folder", _DEFAULTS["folder"]).strip()
        if bool(images) == bool(folder):
            raise ValueError("Connect images, or name a folder of images; one of the two")
        prompt = BatchPrompt(
            instruction(given.get("preset", NONE), given.get("prompt", _DEFAULTS["prompt"])),
            given.get("system_prompt", _DEFAULTS["system_prompt"]),
            given.get("batch_size", _DEFAULTS["batch_size"]),
            cls.hidden.unique_id,
        )
        values.configure_cache()
        session = open_session(
            values.engine_choice(given.get("engine"), given.get("api_key")),
            values.answer_settings(
                given.get("max_tokens", _DEFAULTS["max_tokens"]),
                given.get("thinking_budget", _DEFAULTS["thinking_budget"]),
                given.get("sampling"),
                given.get("seed", _DEFAULTS["seed"]),
            ),
            given.get("image_quality", _DEFAULTS["image_quality"]),
            given.get("enable_image_cache", _DEFAULTS["enable_image_cache"]),
        )
        try:
            if folder:
                chosen = ImageFolder(folder, given.get("subfolders", _DEFAULTS["subfolders"]))
                existing = given.get("existing", _DEFAULTS["existing"])
                found = caption_folder(session, prompt, chosen, existing)
            else:
                found = caption_images(session, prompt, images)
            report = session.report() + found.lines()
        finally:
            session.close()
        shown = {"text": found.texts[-1:] or [""], "thinking": ("",), "report": (report,)}
        return io.NodeOutput(found.texts, report, ui=shown)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _first(value: Any) -> Any:
    """A value as it was given: as an input list, each comes in a list of its own."""
    if isinstance(value, dict):
        return {name: _first(inner) for name, inner in value.items()}
    return value[0] if isinstance(value, list) and value else value
