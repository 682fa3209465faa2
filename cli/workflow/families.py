"""What the built-in workflows need of a server's files, for each family of models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CliError, UsageError
from .build import Builder, base, matching, named
from .convert import Prompt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol

    from ..spec import Values

    class Wanted(Protocol):
        """What a person may have named, other than by options."""

        @property
        def family(self) -> str | None: ...
        @property
        def model(self) -> str | None: ...
        @property
        def text_encoder(self) -> str | None: ...
        @property
        def vae(self) -> str | None: ...


TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class ModelFamily:
    """Regular expressions that names of files match, the best first; letter case does not count."""

    name: str
    title: str
    models: Sequence[str]
    text_encoders: Sequence[str]
    vaes: Sequence[str]


FAMILIES = {
    family.name: family
    for family in (
        ModelFamily(
            "qwen-image",
            "Qwen-Image",
            (r"qwen[-_ .]?image",),
            (r"qwen[-_ .]?2[._]?5[-_ .]?vl[-_ .]?7b", r"qwen[-_ .]?2[._]?5[-_ .]?vl"),
            (r"qwen[-_ .]?image[-_ .]?vae", r"qwen.*vae"),
        ),
        ModelFamily(
            "z-image",
            "Z-Image",
            (r"z[-_ .]?image",),
            (r"qwen[-_ .]?3[-_ .]?4b",),
            (r"^ae\.", r"flux.*(vae|ae\b)", r"z[-_ .]?image.*vae"),
        ),
    )
}


@dataclass(frozen=True)
class Files:
    """The files of a server that a workflow uses, as the server lists them."""

    family: ModelFamily
    model: str
    text_encoder: str
    vae: str

    @property
    def quantized(self) -> bool:
        """Whether the model is one of SVDQuant."""
        return is_svdquant(self.model)

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return {
            "family": self.family.name,
            "model": self.model,
            "text_encoder": self.text_encoder,
            "vae": self.vae,
        }


def choose_files(builder: Builder, values: Values | Wanted, prefix: str = "--") -> Files:
    """The files that `model`, `family`, `text_encoder` and `vae` name, else those that fit.

    Args:
        prefix: of those names in errors.

    Raises:
        UsageError: a name means no file, or it has to be said which is meant.
        CliError: the server lacks a file.
    """
    models = builder.choices("UNETLoader", "unet_name")
    family = FAMILIES[values.family] if values.family else None
    if values.model is not None:
        model = named(values.model, models, f"{prefix}model", "diffusion model")
        family = family or _family(model, prefix)
    else:
        model, family = _only_model(models, family, prefix)
    encoders = builder.choices("CLIPLoader", "clip_name")
    vaes = builder.choices("VAELoader", "vae_name")
    word = f"{prefix}text-encoder" if prefix == "--" else f"{prefix}text_encoder"
    encoder = _file(values.text_encoder, encoders, family.text_encoders, word, family)
    vae = _file(values.vae, vaes, family.vaes, f"{prefix}vae", family)
    return Files(family, model, encoder, vae)


def template(object_info: Mapping[str, Any], files: Files, *, loras: bool) -> Builder:
    """The built-in workflow for these files, with or without its LoRA Stack.

    Raises:
        CliError: the server lacks a node.
    """
    quantized = "_svdquant" if files.quantized else ""
    path = TEMPLATES / f"{files.family.name.replace('-', '_')}{quantized}.json"
    prompt: Prompt = json.loads(path.read_text(encoding="utf-8"))
    if not loras:
        prompt["sampling"]["inputs"]["model"] = prompt.pop("stack")["inputs"]["model"]
    builder = Builder(object_info, prompt)
    name = "model_name" if files.quantized else "unet_name"
    prompt["model"]["inputs"][name] = files.model
    prompt["clip"]["inputs"]["clip_name"] = files.text_encoder
    prompt["vae"]["inputs"]["vae_name"] = files.vae
    return builder


def is_svdquant(model: str) -> bool:
    """Whether a file is named as Nunchaku's checkpoints are."""
    return "svdq" in base(model).lower()


def _family(model: str, prefix: str) -> ModelFamily:
    found = [family for family in FAMILIES.values() if matching([model], family.models)]
    if len(found) == 1:
        return found[0]
    problem = f"The name of {model} does not say which model it is"
    raise UsageError(problem, f"Say so with {prefix}family: {' or '.join(FAMILIES)}")


def _only_model(
    models: Sequence[str], family: ModelFamily | None, prefix: str
) -> tuple[str, ModelFamily]:
    families = [family] if family else list(FAMILIES.values())
    found = [(model, one) for one in families for model in matching(models, one.models)]
    if len(found) == 1:
        return found[0]
    if not found:
        titles = " or ".join(one.title for one in families)
        problem = f"The server has no {titles} that its name shows"
        raise CliError(problem, f"Put one into models/diffusion_models, or name it: {prefix}model")
    names = ", ".join(model for model, _ in found)
    raise UsageError("The server has several models", f"Choose with {prefix}model: {names}")


def _file(
    wanted: str | None,
    offered: Sequence[str],
    patterns: Sequence[str],
    option: str,
    family: ModelFamily,
) -> str:
    what = "VAE" if option.endswith("vae") else "text encoder"
    if wanted is not None:
        return named(wanted, offered, option, what)
    found = matching(offered, patterns)
    if found:
        return sorted(found)[0]
    problem = f"The server has no {what} of {family.title} that its name shows"
    raise CliError(problem, f"Name one with {option}; it has {', '.join(offered) or 'none'}")
