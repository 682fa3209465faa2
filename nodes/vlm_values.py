"""What the values of the inputs in `vlm_inputs` mean: models, engines, settings, the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths

from . import settings
from .choices import given

FOLDERS = ("LLM", "text_encoders")
ENGINES = [LOCAL, SERVER] = ["local", "server"]
SAMPLINGS = [MODEL_DEFAULT, GREEDY, CUSTOM] = ["model default", "greedy", "custom"]


def model_roots() -> list[str]:
    """The folders that models are looked for in."""
    # Other packs and extra_model_paths.yaml may have given the name more folders.
    folder_paths.add_model_folder_path("LLM", str(Path(folder_paths.models_dir) / "LLM"))
    return [root for name in FOLDERS for root in folder_paths.get_folder_paths(name)]


def model_names() -> list[str]:
    """Names of the model folders, complete or not."""
    from ..hub.model_folders import find_models

    return list(find_models(model_roots()).models)


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

    engine = given(engine)
    if not engine:
        raise ValueError(f"engine is missing; choose {LOCAL} or {SERVER}")
    if engine["engine"] == SERVER:
        if not engine["server_model"].strip():
            raise ValueError("server_model is empty. Name the model as the server calls it")
        return ServerChoice(
            engine["address"],
            engine["server_model"].strip(),
            _key(engine.get("api_key_variable", "").strip(), api_key),
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

    values = given(sampling)
    kind = values.pop("sampling", MODEL_DEFAULT)
    chosen = None
    if kind == GREEDY:
        chosen = Sampling()
    elif kind == CUSTOM:
        chosen = Sampling(**{"temperature": 0.7, "top_p": 0.8, "top_k": 20, **values})
    budget = None if thinking_budget < 0 else thinking_budget
    return AnswerSettings(max_tokens, budget, chosen, seed, stop)


def _model_path(name: str) -> Path:
    from ..hub.model_folders import find_models

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
    from ..wrappers.vlm.vlm_cache import CacheSizes, configure_once

    configure_once(CacheSizes(*settings.vlm_cache_megabytes()), cache_folder())
