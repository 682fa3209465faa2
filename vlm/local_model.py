"""A model loaded from a folder: language model, vision tower, tokenizer and its own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..hub.model_check import CheckedModel, check_model
from ..hub.model_folders import CONFIG, read_json
from ..hub.refused_load import REFUSALS, refusal
from .decode.decode_graphs import DECODE_GRAPHS, DecodeGraphs
from .decode.language_model import LanguageModel
from .decode.sampling import Sampling
from .loading.four_bit import prepare_for_cpu
from .loading.load_options import LoadError, LoadOptions, from_pretrained_options
from .text.chat_prompt import ChatPrompts
from .vision.image_embeddings import ModelIdentity
from .vision.pixels import PixelFormat
from .vision.tower_check import check_tower
from .vision.tower_load import check_whole
from .vision.vision_tower import VisionTower, find_vision_tower

_OLD_TEMPLATE = "chat_template.json"


class ModelKey(NamedTuple):
    """What makes two loaded models the same; callers with the same key share one copy."""

    identity: str
    dtype: str
    quantization: str
    attention: str
    device: str


class LocalModel:
    """A model in memory, ready to read images and write text.

    Args:
        model: of one of transformers' Auto classes, with a head.
        tower: None for a model without vision.
        pixel_format: of the tower.
        compile_decode, decode_graphs: as `Stepper` takes them.

    Attributes:
        language: the model without its vision tower.
        identity: for the keys of image embeddings.
        movable: whether `to` works; quantized models are dropped and loaded again instead.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any,
        identity: ModelIdentity,
        tower: VisionTower | None = None,
        pixel_format: PixelFormat | None = None,
        *,
        movable: bool = True,
        key: ModelKey | None = None,
        compile_decode: str = "auto",
        decode_graphs: DecodeGraphs = DECODE_GRAPHS,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.identity = identity
        self.tower = tower
        self.pixel_format = pixel_format
        self.movable = movable
        self.key = key
        self.compile_decode = compile_decode
        self.decode_graphs = decode_graphs
        self.language = LanguageModel(model)
        self.eos_ids = _eos_ids(model, tokenizer)
        self.prompts = ChatPrompts(tokenizer)
        if tower is not None:
            self.prompts = ChatPrompts(
                tokenizer,
                tower.geometry.merge_size,
                tower.geometry.temporal_patch_size,
                self.language.splits_frames(),
            )

    @property
    def device(self) -> torch.device:
        return self.language.device

    @property
    def nbytes(self) -> int:
        """Bytes of parameters and buffers; shared ones count once."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())

    def default_sampling(self, seed: int = 0) -> Sampling:
        """How the model's makers let it choose tokens."""
        config: Any = getattr(self.model, "generation_config", None)
        if not getattr(config, "do_sample", False):
            return Sampling(repetition_penalty=_value(config, "repetition_penalty", 1.0), seed=seed)
        return Sampling(
            temperature=_value(config, "temperature", 1.0),
            top_p=_value(config, "top_p", 1.0),
            top_k=int(_value(config, "top_k", 0)),
            min_p=_value(config, "min_p", 0.0),
            repetition_penalty=_value(config, "repetition_penalty", 1.0),
            seed=seed,
        )

    def to(self, device: torch.device) -> None:
        """Move the model.

        Raises:
            LoadError: it is quantized, and must be dropped and loaded again instead.
        """
        if not self.movable:
            raise LoadError("A quantized model cannot be moved. Drop it and load it again")
        self.decode_graphs.clear(self.model)  # they lie where the model lay
        self.model.to(device)


def load_model(path: Path, options: LoadOptions) -> LocalModel:
    """Check a folder and load the model in it, from its files alone.

    Raises:
        ModelFolderError: the folder cannot be used, as `check_model` says.
        LoadError: a library is missing, transformers refuses the model, a file changed meanwhile,
            the vision tower came out quantized, or a CPU cannot compute its 4-bit layers.
        UnsupportedTowerError: the vision tower is of an unknown construction.
    """
    checked = check_model(path)
    stored = _stored_quantization(read_json(path, CONFIG))
    given = from_pretrained_options(options, stored)
    model, tokenizer = _load(checked, given)
    if check_model(path).identity != checked.identity:
        remedy = "Wait until the model is complete and run again"
        raise LoadError(f"{path}: a file changed while the model was being loaded. {remedy}")
    model.eval().requires_grad_(False)
    if torch.device(options.device).type == "cpu":
        prepare_for_cpu(model, path)
    if "device_map" not in given:
        model.to(options.device)
    tower = pixel_format = None
    if checked.folder.has_vision:
        module = find_vision_tower(model)
        check_whole(module.named_parameters())
        check_tower(module)
        tower = VisionTower(module, options.compile_vision)
        pixel_format = _pixel_format(path, tower)
    return LocalModel(
        model,
        tokenizer,
        _identity(checked),
        tower,
        pixel_format,
        movable="quantization_config" not in given,
        key=model_key(checked, options),
        compile_decode=options.compile_decode,
    )


def model_key(checked: CheckedModel, options: LoadOptions) -> ModelKey:
    """The key that a model will have when it is loaded."""
    return ModelKey(
        checked.identity,
        options.dtype,
        options.quantization,
        options.attention,
        str(torch.device(options.device)),
    )


def _load(checked: CheckedModel, given: Mapping[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

    auto = AutoModelForImageTextToText if checked.folder.has_vision else AutoModelForCausalLM
    path = checked.folder.path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False
        )
        model = auto.from_pretrained(path, **given)
    except REFUSALS as error:
        raise LoadError(refusal(path, error)) from error
    if not tokenizer.chat_template and (path / _OLD_TEMPLATE).is_file():
        tokenizer.chat_template = read_json(path, _OLD_TEMPLATE).get("chat_template")
    return model, tokenizer


def _identity(checked: CheckedModel) -> ModelIdentity:
    path, _, revision = checked.identity.rpartition("@")
    return ModelIdentity(path, revision)


def _stored_quantization(config: Mapping[str, Any]) -> str | None:
    stored = config.get("quantization_config")
    return str(stored.get("quant_method", "quantized")) if isinstance(stored, dict) else None


def _pixel_format(path: Path, tower: VisionTower) -> PixelFormat:
    """The tower's own geometry, and the normalization of the image processor's file."""
    name = "preprocessor_config.json"
    if (path / name).is_file():
        settings = read_json(path, name)
    else:
        name = "processor_config.json"
        settings = read_json(path, name).get("image_processor") or {}
    try:
        mean, std = ([float(value) for value in settings[n]] for n in ("image_mean", "image_std"))
        return PixelFormat(
            tower.geometry.patch_size,
            tower.geometry.merge_size,
            tower.geometry.temporal_patch_size,
            (mean[0], mean[1], mean[2]),
            (std[0], std[1], std[2]),
        )
    except (KeyError, IndexError, TypeError, ValueError):
        raise LoadError(
            f"{path}: {name} does not say how images are normalized (image_mean, image_std). "
            "Download the model again"
        ) from None


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: the generation defaults', the config's, the tokenizer's."""
    ids: set[int] = set()
    for source in (getattr(model, "generation_config", None), model.config, tokenizer):
        value = getattr(source, "eos_token_id", None)
        if value is not None:
            ids |= set(value) if isinstance(value, (list, tuple)) else {value}
    return frozenset(ids)


def _value(config: Any, name: str, default: float) -> float:
    """A generation default; transformers 5 has None where nothing was set."""
    value = getattr(config, name, None)
    return default if value is None else float(value)
