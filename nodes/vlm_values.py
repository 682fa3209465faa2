"""What the values of the inputs in `vlm_inputs` mean: models, engines, settings, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths

from ..defaults import VLM
from . import settings
from .choices import given, with_defaults
from .model_choice import ModelChoice

ENGINES = [LOCAL, SERVER] = ["local", "server"]
SAMPLINGS = [MODEL_DEFAULT, GREEDY, CUSTOM] = ["model default", "greedy", "custom"]


def _find(roots: list[str]) -> Any:
    from ..hub.model_folders import find_models

    return find_models(roots)


MODELS = ModelChoice("model", ("LLM", "text_encoders"), _find)


def engine_choice(engine: dict[str, Any] | None, api_key: Any = None) -> Any:
    """What `wrappers.vlm_session.open_session` takes.

    Args:
        api_key: what *API Key* handed on; for a server.

    Raises:
        ValueError: there is no engine, the model is not there, no server model is named, or two
            keys are, or none is where the variable says.
    """
    from ..vlm.loading.load_options import LoadOptions
    from ..wrappers.vlm.vlm_session import LocalChoice, ServerChoice

    if not given(engine):
        raise ValueError(f"engine is missing; choose {LOCAL} or {SERVER}")
    engine = with_defaults("engine", engine, VLM)
    if engine["engine"] == SERVER:
        if not engine["server_model"].strip():
            raise ValueError("server_model is empty. Name the model as the server calls it")
        return ServerChoice(
            engine["address"],
            engine["server_model"].strip(),
            _key(engine["api_key_variable"].strip(), api_key),
            engine["timeout"],
            engine["concurrency"],
        )
    options = LoadOptions(
        dtype=engine["dtype"],
        quantization=engine["quantization"],
        attention=engine["attention"],
        compile_vision=engine["compile_vision"],
        compile_decode=engine["compile_decode"],
    )
    return LocalChoice(MODELS.path(engine["model"]), options, engine["keep_loaded"])


def _key(variable: str, api_key: Any) -> Any:
    """The key of a server, from one of the two places where it may be named."""
    from ..vlm.remote.secret import Secret

    if api_key is None:
        return Secret.from_environment(variable) if variable else None
    if variable:
        raise ValueError("api_key is connected and api_key_variable filled in. Clear one of them")
    if not isinstance(api_key, Secret):
        raise ValueError("api_key takes what the node API Key hands on, nothing else")
    return api_key


def answer_settings(
    max_tokens: int,
    thinking_budget: int,
    sampling: dict[str, Any] | None,
    seed: int,
    stop: tuple[str, ...] = (),
) -> Any:
    """How to answer, as `vlm.question.AnswerSettings`."""
    from ..vlm.decode.sampling import Sampling
    from ..vlm.question import AnswerSettings

    values = with_defaults("sampling", sampling, VLM)
    kind = values.pop("sampling", MODEL_DEFAULT)
    chosen = None
    if kind == GREEDY:
        chosen = Sampling()
    elif kind == CUSTOM:
        chosen = Sampling(**values)
    budget = None if thinking_budget < 0 else thinking_budget
    return AnswerSettings(max_tokens, budget, chosen, seed, stop)


def cache_folder() -> Path:
    """Where image embeddings lie on disk."""
    return Path(folder_paths.get_user_directory()) / "vivace" / "image_embeddings"


def configure_cache() -> None:
    """Size the image cache as the settings say, unless QwenVL Cache has done it otherwise."""
    from ..wrappers.vlm.vlm_cache import CacheSizes, configure_once

    configure_once(CacheSizes(*settings.vlm_cache_megabytes()), cache_folder())
