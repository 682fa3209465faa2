"""The inputs that the QwenVL nodes share, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import settings

CATEGORY = "Vivace/QwenVL"
FOLDERS = ("LLM", "text_encoders")
QUALITIES = ["auto", "fast", "balanced", "high", "ultra"]
ENGINES = [LOCAL, SERVER] = ["local", "server"]
SAMPLINGS = [MODEL_DEFAULT, GREEDY, CUSTOM] = ["model default", "greedy", "custom"]
NO_MODEL = "(none found: put a model folder into models/LLM)"


def engine_input() -> Any:
    """Where answers come from: a local model folder, or a server."""
    local = [
        io.Combo.Input(
            "model",
            options=model_names() or [NO_MODEL],
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
            default=True,
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
            default="http://localhost:8000/v1",
            tooltip="Of an OpenAI-compatible server: vLLM, SGLang, llama.cpp, Ollama, LM Studio.",
        ),
        io.String.Input("server_model", default="", tooltip="The model's name on the server."),
        io.String.Input(
            "api_key_variable",
            default="",
            optional=True,
            tooltip=(
                "Name of an environment variable that holds the key, ending in _API_KEY; never the"
                " key itself."
            ),
        ),
        io.Float.Input(
            "timeout",
            default=180.0,
            min=1.0,
            max=3600.0,
            optional=True,
            tooltip="Seconds without any text until the server counts as gone.",
        ),
        io.Int.Input(
            "concurrency",
            default=4,
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


def answer_inputs() -> list[Any]:
    """Quality, cache, and how text is generated."""
    return [
        io.Combo.Input(
            "image_quality",
            options=QUALITIES,
            default="balanced",
            optional=True,
            tooltip=(
                "How many pixels the model sees: fast 128-256 tokens an image, balanced 256-512,"
                " high to 768, ultra to 1024 (of 28 x 28 pixels); auto goes by the detail."
            ),
        ),
        io.Boolean.Input(
            "enable_image_cache",
            default=True,
            optional=True,
            tooltip="An image that was encoded before is not encoded again.",
        ),
        io.Int.Input(
            "max_tokens", default=512, min=1, max=131072, optional=True, tooltip="Of the answer."
        ),
        io.Int.Input(
            "thinking_budget",
            default=-1,
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
            default=0,
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
            default="Detailed description",
            optional=True,
            tooltip="An instruction that is ready to use; your own prompt is added to it.",
        ),
        io.String.Input(
            "prompt",
            multiline=True,
            default="",
            optional=True,
            dynamic_prompts=False,
            tooltip="Your own question or instruction; it follows the preset.",
        ),
        io.String.Input(
            "system_prompt",
            multiline=True,
            default="",
            optional=True,
            advanced=True,
            tooltip="How the model shall behave. Empty: no system message is sent.",
        ),
    ]


def _sampling_inputs() -> list[Any]:
    return [
        io.Float.Input(
            "temperature",
            default=0.7,
            min=0.0,
            max=5.0,
            step=0.05,
            optional=True,
            tooltip="Higher is more varied; 0 always takes the most probable token.",
        ),
        io.Float.Input(
            "top_p",
            default=0.8,
            min=0.01,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="Only the most probable tokens that reach this probability together; 1: all.",
        ),
        io.Int.Input(
            "top_k",
            default=20,
            min=0,
            max=1000,
            optional=True,
            tooltip="Only this many of the most probable tokens; 0 for all.",
        ),
        io.Float.Input(
            "min_p",
            default=0.0,
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
            default=1.0,
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
        name, options=options, default=options[0], optional=True, advanced=True, tooltip=tooltip
    )


def model_roots() -> list[str]:
    """The folders that models are looked for in."""
    # Other packs and extra_model_paths.yaml may have given the name more folders.
    folder_paths.add_model_folder_path("LLM", str(Path(folder_paths.models_dir) / "LLM"))
    return [root for name in FOLDERS for root in folder_paths.get_folder_paths(name)]


def model_names() -> list[str]:
    """Names of the model folders, complete or not."""
    from ..vlm.model_folders import find_models

    return list(find_models(model_roots()).models)


def check_choices(hidden: Any, **options: list[str]) -> None:
    """Refuse unknown values of inputs with choices, which ComfyUI just leaves out.

    Args:
        hidden: of the node, with its id and the prompt.

    Raises:
        ValueError: a value is none of those there are.
    """
    node = (hidden.prompt or {}).get(str(hidden.unique_id)) or {}
    for name, known in options.items():
        value = node.get("inputs", {}).get(name)
        if isinstance(value, str) and value not in known:
            raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")


def engine_choice(engine: dict[str, Any] | None) -> Any:
    """What `wrappers.vlm_session.open_session` takes.

    Raises:
        ValueError: there is no engine, the model is not there, or no server model is named.
    """
    from ..vlm.load_options import LoadOptions
    from ..wrappers.vlm_session import LocalChoice, ServerChoice

    engine = given(engine)
    if not engine:
        raise ValueError(f"engine is missing; choose {LOCAL} or {SERVER}")
    if engine["engine"] == SERVER:
        if not engine["server_model"].strip():
            raise ValueError("server_model is empty. Name the model as the server calls it")
        return ServerChoice(
            engine["address"],
            engine["server_model"].strip(),
            engine.get("api_key_variable", "").strip(),
            engine.get("timeout", 180.0),
            engine.get("concurrency", 4),
        )
    options = LoadOptions(
        dtype=engine.get("dtype", "bfloat16"),
        quantization=engine.get("quantization", "none"),
        attention=engine.get("attention", "auto"),
        compile_vision=engine.get("compile_vision", "auto"),
        compile_decode=engine.get("compile_decode", "auto"),
    )
    return LocalChoice(_model_path(engine["model"]), options, engine.get("keep_loaded", True))


def answer_settings(
    max_tokens: int, thinking_budget: int, sampling: dict[str, Any] | None, seed: int
) -> Any:
    """How to answer, as `vlm.question.AnswerSettings`."""
    from ..vlm.question import AnswerSettings
    from ..vlm.sampling import Sampling

    values = given(sampling)
    kind = values.pop("sampling", MODEL_DEFAULT)
    chosen = None
    if kind == GREEDY:
        chosen = Sampling()
    elif kind == CUSTOM:
        chosen = Sampling(**{"temperature": 0.7, "top_p": 0.8, "top_k": 20, **values})
    budget = None if thinking_budget < 0 else thinking_budget
    return AnswerSettings(max_tokens, budget, chosen, seed)


def given(values: dict[str, Any] | None) -> dict[str, Any]:
    """What was given of the inputs below a choice; ComfyUI hands in None for the others."""
    return {name: value for name, value in (values or {}).items() if value is not None}


def _model_path(name: str) -> Path:
    from ..vlm.model_folders import find_models

    roots = model_roots()
    found = find_models(roots)
    if name in found.models:
        return found.models[name].path
    problems = "".join(f" {problem}." for problem in found.problems[:3])
    raise ValueError(
        f"There is no model '{name}' in {', '.join(roots)}.{problems} Put a model folder there, or"
        " fetch one with QwenVL Download."
    )


def cache_folder() -> Path:
    """Where image embeddings lie on disk."""
    return Path(folder_paths.get_user_directory()) / "vivace" / "image_embeddings"


def configure_cache() -> None:
    """Size the image cache as the settings say, unless QwenVL Cache has done it otherwise."""
    from ..wrappers.vlm_cache import CacheSizes, configure_once

    configure_once(CacheSizes(*settings.vlm_cache_megabytes()), cache_folder())
