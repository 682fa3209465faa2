"""The inputs that the QwenVL nodes share; `vlm_values` says what their values mean."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..defaults import DEFAULTS, VLM
from .api_key import ApiKeyHandle
from .vlm_values import CUSTOM, GREEDY, LOCAL, MODEL_DEFAULT, MODELS, SERVER

CATEGORY = "Vivace/QwenVL"
QUALITIES = ["auto", "fast", "balanced", "high", "ultra"]
NO_MODEL = "(none found: put a model folder into models/LLM)"
_INSTRUCTION = DEFAULTS["VivaceQwenVL"]


def engine_input() -> Any:
    """Where answers come from: a local model folder, or a server."""
    local = [
        io.Combo.Input(
            "model",
            options=MODELS.names() or [NO_MODEL],
            tooltip=(
                "A model folder as Hugging Face lays it out, below models/LLM or a text_encoders"
                " folder. *QwenVL Download* fetches one."
            ),
        ),
        _choice("quantization", ["none", "8-bit", "4-bit"], "none: as stored, bf16 or fp8."),
        _choice("dtype", ["bfloat16", "float16", "float32"], "Of what is not quantized."),
        _choice(
            "attention",
            ["auto", "sdpa", "flash_attention_2", "eager"],
            "auto leaves the choice to transformers.",
        ),
        _choice(
            "compile_vision",
            ["auto", "on", "off"],
            "torch.compile for the vision encoder; auto: on CUDA, from the second image of a size.",
        ),
        _choice(
            "compile_decode",
            ["auto", "on", "off"],
            "torch.compile for writing text; auto: on CUDA, for long answers.",
        ),
        io.Boolean.Input(
            "keep_loaded",
            default=VLM["engine.keep_loaded"],
            optional=True,
            tooltip=(
                "On: the model stays until other models need its memory, or it is unloaded."
                " Off: its memory is given back after each run."
            ),
        ),
    ]
    server = [
        io.String.Input(
            "address",
            default=VLM["engine.address"],
            tooltip="Of an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, LM Studio.",
        ),
        io.String.Input(
            "server_model",
            default=VLM["engine.server_model"],
            tooltip="The model's name on the server.",
        ),
        io.String.Input(
            "api_key_variable",
            default=VLM["engine.api_key_variable"],
            optional=True,
            tooltip=(
                "Name of an environment variable that holds the key, ending in _API_KEY; never the"
                " key itself."
            ),
        ),
        io.Float.Input(
            "timeout",
            default=VLM["engine.timeout"],
            min=1.0,
            max=3600.0,
            optional=True,
            tooltip="Seconds without any text until the server counts as gone.",
        ),
        io.Int.Input(
            "concurrency",
            default=VLM["engine.concurrency"],
            min=1,
            max=256,
            optional=True,
            tooltip="Requests at a time, for batches.",
        ),
    ]
    return io.DynamicCombo.Input(
        "engine",
        options=[io.DynamicCombo.Option(LOCAL, local), io.DynamicCombo.Option(SERVER, server)],
        tooltip="A model on this machine, or on a server (several GPUs, a cluster).",
    )


def api_key_input() -> Any:
    """What the node API Key hands on, for a server."""
    return ApiKeyHandle.Input(
        "api_key",
        optional=True,
        tooltip="From the node API Key, for a server that wants one; in place of api_key_variable.",
    )


def answer_inputs() -> list[Any]:
    """Quality, cache, and how text is generated."""
    return [
        io.Combo.Input(
            "image_quality",
            options=QUALITIES,
            default=VLM["image_quality"],
            optional=True,
            tooltip=(
                "How many pixels the model sees: fast 128-256 tokens an image, balanced 256-512,"
                " high to 768, ultra to 1024 (of 28 x 28 pixels); auto goes by the detail."
            ),
        ),
        io.Boolean.Input(
            "enable_image_cache",
            default=VLM["enable_image_cache"],
            optional=True,
            tooltip="An image that was encoded before is not encoded again.",
        ),
        io.Int.Input(
            "max_tokens",
            default=VLM["max_tokens"],
            min=1,
            max=131072,
            optional=True,
            tooltip="Of the answer.",
        ),
        io.Int.Input(
            "thinking_budget",
            default=VLM["thinking_budget"],
            min=-1,
            max=131072,
            optional=True,
            advanced=True,
            tooltip=(
                "Tokens of thinking beside the answer. -1: no bound of its own, thinking counts as"
                " answer; 0: asks the model not to think."
            ),
        ),
        io.DynamicCombo.Input(
            "sampling",
            options=[
                io.DynamicCombo.Option(MODEL_DEFAULT, []),
                io.DynamicCombo.Option(GREEDY, []),
                io.DynamicCombo.Option(CUSTOM, _sampling_inputs()),
            ],
            optional=True,
            tooltip="How tokens are chosen. greedy: always the most probable one.",
        ),
        io.Int.Input(
            "seed",
            default=VLM["seed"],
            min=0,
            max=2**64 - 1,
            optional=True,
            control_after_generate=True,
            tooltip="The same seed makes the same random choices of tokens.",
        ),
    ]


def prompt_inputs() -> list[Any]:
    """Preset, own prompt and system prompt."""
    from ..vlm.preset_prompts import PRESETS

    return [
        io.Combo.Input(
            "preset",
            options=list(PRESETS),
            default=_INSTRUCTION["preset"],
            optional=True,
            tooltip="An instruction that is ready to use; your own prompt is added to it.",
        ),
        io.String.Input(
            "prompt",
            multiline=True,
            default=_INSTRUCTION["prompt"],
            optional=True,
            dynamic_prompts=False,
            tooltip="Your own question or instruction; it follows the preset.",
        ),
        io.String.Input(
            "system_prompt",
            multiline=True,
            default=_INSTRUCTION["system_prompt"],
            optional=True,
            advanced=True,
            tooltip="How the model shall behave. Empty: no system message is sent.",
        ),
    ]


def _sampling_inputs() -> list[Any]:
    return [
        io.Float.Input(
            "temperature",
            default=VLM["sampling.temperature"],
            min=0.0,
            max=5.0,
            step=0.05,
            optional=True,
            tooltip="Higher is more varied; 0 always takes the most probable token.",
        ),
        io.Float.Input(
            "top_p",
            default=VLM["sampling.top_p"],
            min=0.01,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Only the most probable tokens that reach this probability together; 1: all.",
        ),
        io.Int.Input(
            "top_k",
            default=VLM["sampling.top_k"],
            min=0,
            max=1000,
            optional=True,
            tooltip="Only this many of the most probable tokens; 0 for all.",
        ),
        io.Float.Input(
            "min_p",
            default=VLM["sampling.min_p"],
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip=(
                "Only tokens of at least this share of the most probable one's probability; 0 for"
                " all. Used by local models only."
            ),
        ),
        io.Float.Input(
            "repetition_penalty",
            default=VLM["sampling.repetition_penalty"],
            min=0.1,
            max=5.0,
            step=0.01,
            optional=True,
            tooltip=(
                "Above 1, tokens that occurred already are less probable. Used by local models"
                " only."
            ),
        ),
    ]


def _choice(name: str, options: list[str], tooltip: str) -> Any:
    return io.Combo.Input(
        name,
        options=options,
        default=VLM[f"engine.{name}"],
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )
