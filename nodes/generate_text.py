"""Generate Text: one turn of a conversation with a language or vision-language model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..defaults import DEFAULTS
from . import vlm_inputs as inputs
from . import vlm_values as values
from .choices import check_choices, with_defaults

if TYPE_CHECKING:
    from ..vlm.json_answer import JsonForm

CATEGORY = "Vivace/Text"
MAX_IMAGES = 32
FORMS = [TEXT, JSON, SCHEMA] = ["text", "JSON", "JSON schema"]

ChatType = io.Custom("VIVACE_CHAT")
_DEFAULTS = DEFAULTS["VivaceGenerateText"]


class GenerateText(io.ComfyNode):
    """Text from a prompt, images and the conversation before."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivaceGenerateText",
            display_name="Generate Text",
            category=CATEGORY,
            description=(
                "Text by a Qwen model on this machine, or by any OpenAI-compatible server: with"
                " images, as JSON of a schema, and in conversations that other nodes go on with."
            ),
            search_aliases=[
                "llm",
                "chat",
                "gpt",
                "openai",
                "ollama",
                "qwen",
                "prompt enhancer",
                "text generator",
                "vivace",
            ],
            inputs=[
                inputs.engine_input(),
                *_prompt_inputs(),
                *inputs.answer_inputs(),
                _form_input(),
                io.String.Input(
                    "stop",
                    multiline=True,
                    default=_DEFAULTS["stop"],
                    optional=True,
                    advanced=True,
                    tooltip=(
                        "The answer ends before the first of these texts, one a line; \\n stands"
                        " for a line break, \\t for a tab, \\\\ for a backslash."
                    ),
                ),
                _price_input("price_prompt", "prompts"),
                _price_input("price_answer", "answers, thinking included"),
                inputs.api_key_input(),
            ],
            outputs=[
                io.String.Output(
                    display_name="text",
                    tooltip="The answer, without thinking; of JSON, nothing but the JSON.",
                ),
                io.String.Output(
                    display_name="thinking", tooltip="What the model thought; empty if it did not."
                ),
                ChatType.Output(
                    display_name="chat",
                    tooltip="The conversation with this answer, for another of these nodes.",
                ),
                io.String.Output(
                    display_name="transcript",
                    tooltip="The conversation as Markdown, to show or to save.",
                ),
                io.String.Output(
                    display_name="usage",
                    tooltip="Tokens and cost as a JSON object; null for what nobody counted.",
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
        prompt: str = _DEFAULTS["prompt"],
        system_prompt: str = _DEFAULTS["system_prompt"],
        images: dict[str, Any] | None = None,
        chat: Any = None,
        image_quality: str = _DEFAULTS["image_quality"],
        enable_image_cache: bool = _DEFAULTS["enable_image_cache"],
        max_tokens: int = _DEFAULTS["max_tokens"],
        thinking_budget: int = _DEFAULTS["thinking_budget"],
        sampling: dict[str, Any] | None = None,
        seed: int = _DEFAULTS["seed"],
        answer_format: dict[str, Any] | None = None,
        stop: str = _DEFAULTS["stop"],
        price_prompt: float = _DEFAULTS["price_prompt"],
        price_answer: float = _DEFAULTS["price_answer"],
        api_key: Any = None,
    ) -> io.NodeOutput:
        from ..vlm.remote.token_count import Prices
        from ..wrappers.vlm.text_answer import TurnSettings, take_turn

        check_choices(
            cls.hidden,
            engine=values.ENGINES,
            sampling=values.SAMPLINGS,
            answer_format=FORMS,
        )
        if not prompt.strip():
            raise ValueError("prompt is empty. Write what the model shall answer")
        settings = TurnSettings(
            values.answer_settings(max_tokens, thinking_budget, sampling, seed, stop_strings(stop)),
            _json_form(answer_format),
            Prices(price_prompt, price_answer),
            image_quality,
            enable_image_cache,
        )
        values.configure_cache()
        turn = take_turn(
            values.engine_choice(engine, api_key),
            conversation_of(chat, system_prompt),
            prompt,
            [image for image in (images or {}).values() if image is not None],
            settings,
            cls.hidden.unique_id,
        )
        text, thinking = turn.reply.text, turn.reply.thinking
        shown = {"text": (text,), "thinking": (thinking,), "report": (turn.report,)}
        transcript, usage = str(turn.chat), turn.tokens.json()
        return io.NodeOutput(text, thinking, turn.chat, transcript, usage, turn.report, ui=shown)


def stop_strings(text: str) -> tuple[str, ...]:
    """Read stop strings, one a line; empty lines are none."""
    marks = {"\\\\": "\\", "\\n": "\n", "\\t": "\t"}
    lines = [re.sub(r"\\[\\nt]", lambda found: marks[found[0]], line) for line in text.split("\n")]
    return tuple(line for line in lines if line)


def _prompt_inputs() -> list[Any]:
    return [
        io.String.Input(
            "prompt",
            multiline=True,
            default=_DEFAULTS["prompt"],
            dynamic_prompts=False,
            tooltip="What the model shall answer.",
        ),
        io.String.Input(
            "system_prompt",
            multiline=True,
            default=_DEFAULTS["system_prompt"],
            optional=True,
            tooltip=(
                "How the model shall behave, now and in the turns that follow. Empty: as the"
                " conversation had it before."
            ),
        ),
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
        ChatType.Input(
            "chat",
            optional=True,
            tooltip="The conversation so far, from another of these nodes.",
        ),
    ]


def _form_input() -> Any:
    retries = io.Int.Input(
        "retries",
        default=_DEFAULTS["answer_format.retries"],
        min=0,
        max=10,
        optional=True,
        tooltip="How often the model is asked again after an answer that is not such JSON.",
    )
    schema = io.String.Input(
        "schema",
        multiline=True,
        default=_DEFAULTS["answer_format.schema"],
        dynamic_prompts=False,
        tooltip="A JSON Schema that the answer must fit.",
    )
    return io.DynamicCombo.Input(
        "answer_format",
        options=[
            io.DynamicCombo.Option(TEXT, []),
            io.DynamicCombo.Option(JSON, [retries]),
            io.DynamicCombo.Option(SCHEMA, [schema, retries]),
        ],
        optional=True,
        tooltip="text: as it comes. JSON: one object. JSON schema: what fits a schema.",
    )


def _price_input(name: str, what: str) -> Any:
    return io.Float.Input(
        name,
        default=_DEFAULTS[name],
        min=0.0,
        max=1e6,
        step=0.01,
        optional=True,
        advanced=True,
        tooltip=f"Price of a million tokens of {what}, in any currency; 0 for both: no cost.",
    )


def _json_form(answer_format: dict[str, Any] | None) -> JsonForm | None:
    from ..vlm.json_answer import JsonForm

    chosen = with_defaults("answer_format", answer_format, _DEFAULTS)
    kind = chosen.get("answer_format", TEXT)
    if kind == TEXT:
        return None
    schema = None
    if kind == SCHEMA:
        from ..toolkit.json_schema import JsonSchema

        try:
            content = json.loads(chosen["schema"])
        except (ValueError, RecursionError) as error:
            raise ValueError(f"answer_format.schema is not JSON: {error}") from None
        if not isinstance(content, dict):
            raise ValueError("answer_format.schema is not a JSON object")
        try:
            schema = JsonSchema(content)
        except ValueError as error:
            raise ValueError(f"answer_format.schema: {error}") from None
    return JsonForm(schema, chosen["retries"])


def conversation_of(chat: Any, system_prompt: str) -> Any:
    """Return the `Chat` to go on with; a system prompt takes the place of its own.

    Raises:
        ValueError: `chat` is something else.
    """
    from ..vlm.text.chat import Chat

    if chat is None:
        return Chat(system_prompt)
    if not isinstance(chat, Chat):
        raise ValueError("chat is no conversation. Connect the chat output of another node")
    return Chat(system_prompt, chat.messages) if system_prompt else chat
