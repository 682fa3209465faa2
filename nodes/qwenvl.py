"""QwenVL: text from images, a video and a prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from . import choices
from . import vlm_inputs as inputs
from . import vlm_values as values

MAX_IMAGES = 32
_DEFAULTS = DEFAULTS["VivaceQwenVL"]


class QwenVL(io.ComfyNode):
    """One answer about any number of images."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceQwenVL",
            display_name="QwenVL",
            category=inputs.CATEGORY,
            description=(
                "Text from images, a video or a prompt alone, by a Qwen vision-language model: on"
                " this machine, or on a server. An image is encoded once, whatever is asked about"
                " it later."
            ),
            search_aliases=[
                "caption",
                "vlm",
                "llm",
                "describe image",
                "image to text",
                "ocr",
                "video",
                "qwen",
                "prompt",
                "vivace",
            ],
            inputs=[
                inputs.engine_input(),
                io.Autogrow.Input(
                    "images",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input("image", tooltip="One image, or a batch of them."),
                        prefix="image",
                        min=0,
                        max=MAX_IMAGES,
                    ),
                    optional=True,
                    tooltip="Images in order; a batch counts as so many images.",
                ),
                io.Image.Input("video", optional=True, tooltip="The frames of a video."),
                *inputs.prompt_inputs(),
                *inputs.answer_inputs(),
                io.Float.Input(
                    "fps",
                    default=_DEFAULTS["fps"],
                    min=0.01,
                    max=1000.0,
                    optional=True,
                    advanced=True,
                    tooltip="Frames per second of the video.",
                ),
                io.Float.Input(
                    "sample_fps",
                    default=_DEFAULTS["sample_fps"],
                    min=0.01,
                    max=1000.0,
                    optional=True,
                    advanced=True,
                    tooltip="Frames per second that the model sees.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=_DEFAULTS["max_frames"],
                    min=1,
                    max=768,
                    optional=True,
                    advanced=True,
                    tooltip="Most frames of the video that the model sees.",
                ),
                inputs.api_key_input(),
            ],
            outputs=[
                io.String.Output(display_name="text", tooltip="The answer, without thinking."),
                io.String.Output(
                    display_name="thinking", tooltip="What the model thought; empty if it did not."
                ),
                io.String.Output(
                    display_name="report", tooltip="What each stage took, as Markdown."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        engine: dict[str, Any] | None = None,
        images: dict[str, Any] | None = None,
        video: Any = None,
        preset: str | None = None,
        prompt: str = _DEFAULTS["prompt"],
        system_prompt: str = _DEFAULTS["system_prompt"],
        image_quality: str = _DEFAULTS["image_quality"],
        enable_image_cache: bool = _DEFAULTS["enable_image_cache"],
        max_tokens: int = _DEFAULTS["max_tokens"],
        thinking_budget: int = _DEFAULTS["thinking_budget"],
        sampling: dict[str, Any] | None = None,
        seed: int = _DEFAULTS["seed"],
        fps: float = _DEFAULTS["fps"],
        sample_fps: float = _DEFAULTS["sample_fps"],
        max_frames: int = _DEFAULTS["max_frames"],
        api_key: Any = None,
    ) -> io.NodeOutput:
        from ..vlm.preset_prompts import NONE, instruction
        from ..wrappers.vlm.vlm_answer import answer, question_of

        choices.check_choices(cls.hidden, engine=values.ENGINES, sampling=values.SAMPLINGS)
        values.configure_cache()
        choice = values.engine_choice(engine, api_key)
        settings = values.answer_settings(max_tokens, thinking_budget, sampling, seed)
        question = question_of(
            instruction(preset or NONE, prompt),
            system_prompt,
            [image for image in (images or {}).values() if image is not None],
            video,
            (fps, sample_fps, max_frames),
        )
        reply, report = answer(
            choice, question, settings, image_quality, enable_image_cache, cls.hidden.unique_id
        )
        shown = {"text": (reply.text,), "thinking": (reply.thinking,), "report": (report,)}
        return io.NodeOutput(reply.text, reply.thinking, report, ui=shown)
