"""The configuration of a training, from a YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CliError, UsageError
from ..parser import did_you_mean

# What goes to inputs of the training node, by their names there.
INPUTS = {
    "steps": "steps",
    "learning_rate": "learning_rate",
    "rank": "rank",
    "batch_size": "batch_size",
    "gradient_accumulation": "grad_accumulation_steps",
    "optimizer": "optimizer",
    "loss": "loss_function",
    "seed": "seed",
    "training_dtype": "training_dtype",
    "lora_dtype": "lora_dtype",
    "algorithm": "algorithm",
    "gradient_checkpointing": "gradient_checkpointing",
    "checkpoint_depth": "checkpoint_depth",
    "offloading": "offloading",
    "bypass": "bypass_mode",
    "quantized_backward": "quantized_backward",
}
_TEXTS = ("model", "family", "text_encoder", "vae", "name", "caption", "resume")
_PATHS = ("dataset", "output")
_KEYS = (*_PATHS, *_TEXTS, *INPUTS, "longest_edge", "samples")
_SAMPLE_KEYS = ("prompts", "size", "steps", "cfg", "seed")


@dataclass(frozen=True)
class Config:
    """What the file says; paths are taken from the file's folder.

    Attributes:
        training: values for the training node, by the keys of `INPUTS`.
        samples: options of the pictures after the training, "prompts" among them.
    """

    dataset: Path
    output: Path
    name: str
    model: str | None = None
    family: str | None = None
    text_encoder: str | None = None
    vae: str | None = None
    caption: str | None = None
    resume: str | None = None
    longest_edge: int | None = None
    training: dict[str, Any] = field(default_factory=dict)
    samples: dict[str, Any] = field(default_factory=dict)


def read_config(path: Path) -> Config:
    """Read a configuration.

    Raises:
        CliError: the file cannot be read.
        UsageError: a key is unknown or missing, or a value is of the wrong type.
    """
    data = _load(path)
    _check_keys(data, _KEYS, str(path))
    if data.get("dataset") is None:
        raise UsageError(f"{path}: dataset is missing", "Name the folder of images and captions")
    texts = {key: _text(data.get(key), f"{path}: {key}") for key in (*_TEXTS, *_PATHS)}
    dataset = path.parent / Path(texts["dataset"] or "").expanduser()
    edge = data.get("longest_edge")
    if edge is not None and (not isinstance(edge, int) or isinstance(edge, bool) or edge < 16):
        raise UsageError(f"{path}: longest_edge must be a whole number of pixels from 16 on")
    training = {key: data[key] for key in INPUTS if data.get(key) is not None}
    for key, value in training.items():
        if not isinstance(value, str | int | float):
            raise UsageError(f"{path}: {key} must be one value, not a list or table")
    family = texts["family"]
    if family not in (None, "qwen-image", "z-image"):
        raise UsageError(f"{path}: family must be qwen-image or z-image, not '{family}'")
    return Config(
        dataset=dataset,
        output=path.parent / Path(texts["output"] or ".").expanduser(),
        name=texts["name"] or dataset.resolve().name,
        **{key: texts[key] for key in _TEXTS if key != "name"},
        longest_edge=edge,
        training=training,
        samples=_samples(data.get("samples"), path),
    )


def _load(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        remedy = "Install it: pip install pyyaml"
        raise CliError("The configuration needs the package pyyaml", remedy) from None
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CliError(f"There is no file {path}", "Check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CliError(f"{path} cannot be read ({error})", "Check the file") from None
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise UsageError(f"{path} is not YAML ({text})", "Correct it") from None
    if not isinstance(data, Mapping):
        raise UsageError(f"{path} has no keys", "Write at least 'dataset: FOLDER'")
    return data


def _check_keys(data: Mapping[Any, Any], known: tuple[str, ...], place: str) -> None:
    for key in data:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise UsageError(f"{place}: unknown key '{key}'{hint}", f"Known: {', '.join(known)}")


def _text(value: Any, place: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise UsageError(f"{place} must be text, not {value!r}")
    return value


def _samples(value: Any, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    found = {"prompts": value} if isinstance(value, list) else value
    if not isinstance(found, Mapping):
        raise UsageError(f"{path}: samples must be a list of prompts, or a table with prompts")
    _check_keys(found, _SAMPLE_KEYS, f"{path}: samples")
    prompts = found.get("prompts")
    fits = isinstance(prompts, list) and prompts and all(isinstance(p, str) for p in prompts)
    if not fits:
        raise UsageError(f"{path}: samples needs prompts, a list of texts")
    return dict(found)
