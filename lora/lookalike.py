"""Models that share module names with a supported one and must not be taken for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .header import TensorInfo
from .mapping import UNMATCHED, KeyMap
from .plan import observed_inputs


@dataclass(frozen=True)
class LookAlike:
    """How to tell a model from the supported one whose module names it shares.

    `tells` are pieces of names that only it has, unless the file also has one of `own`, pieces of
    module paths that only the supported model has. `hidden` are its widths, `inputs` the input
    size of a named module, `labels` what metadata calls it.
    """

    title: str
    tells: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    hidden: tuple[int, ...] = ()
    inputs: tuple[tuple[str, int], ...] = ()
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    labels: tuple[str, ...] = ()


_LOOK_ALIKES = {
    "qwen_image": (
        LookAlike(
            "Qwen-Image-2.1",
            tells=("img_mlp.gate_", "img_mlp_gate_", "txt_in.in_layer", "txt_in_in_layer"),
            own=("add_q_proj", "add_k_proj", "add_v_proj", "txt_mlp", "img_mlp"),
            labels=("qwen-image-2.1", "qwen_image_2.1", "qwen_image_2_1"),
        ),
        LookAlike(
            "Mage Flow",
            inputs=(("txt_in", 2560),),
            shapes=(("txt_norm", (2560,)), ("proj_out", (128,))),
            labels=("mageflow", "mage-flow", "mage_flow"),
        ),
        LookAlike(
            "FLUX",
            tells=("single_transformer_blocks", "ff_context", ".ff.net", "_ff_net"),
            own=("txt_mlp", "img_mlp", "_mod.1"),
            labels=("flux",),
        ),
        LookAlike("Stable Diffusion 3", hidden=(1536, 2432), labels=("stable-diffusion-3", "sd3")),
    ),
    "z_image": (
        LookAlike("Lumina-Image 2 or NewBie", hidden=(2304,), labels=("lumina", "newbie")),
        LookAlike(
            "Ideogram 4",
            tells=("attention.o.", "attention_o.", "adaln_modulation"),
            own=("attention.out", "adaLN_modulation", "refiner"),
            hidden=(4608,),
            labels=("ideogram",),
        ),
    ),
}
_LABELS = ("ss_base_model_version", "modelspec.architecture")


def recognize(
    keys: KeyMap, infos: Mapping[str, TensorInfo], metadata: Mapping[str, str]
) -> str | None:
    """Return why the file is for another model than its names suggest, or None."""
    if keys.architecture is None:
        return None
    labels = " ".join(metadata.get(name, "") for name in _LABELS).lower()
    strange = [entry.key for entry in keys.entries.values() if entry.status == UNMATCHED]
    modules = [group.target.module for group in keys.groups]
    inputs = _inputs(keys, infos)
    hidden = keys.architecture.hidden
    for model in _LOOK_ALIKES.get(keys.architecture.name, ()):
        label = next((label for label in model.labels if label in labels), None)
        sizes = {size for module, size in inputs.items() if _is_wide(module, keys)}
        # Z-Image descends from Lumina, and a label may say so: a fitting width is better evidence.
        if label and not (model.hidden and hidden in sizes):
            return f"made for {model.title} (its metadata says {label!r})"
        tell = next((tell for tell in model.tells if any(tell in key for key in strange)), None)
        if tell and not any(own in module for own in model.own for module in modules):
            return f"made for {model.title} (it has {tell.strip('._')!r})"
        if hidden not in sizes and (wide := sizes & set(model.hidden)):
            return f"made for {model.title} (width {min(wide)} instead of {hidden})"
        for module, size in model.inputs:
            if inputs.get(module) == size:
                return f"made for {model.title} ({module} takes {size} inputs)"
        if fault := _wrong_rows(model, keys, infos):
            return fault
    return None


def _inputs(keys: KeyMap, infos: Mapping[str, TensorInfo]) -> dict[str, int]:
    found: dict[str, int] = {}
    for group in keys.groups:
        size = observed_inputs(group, infos)
        if size is not None:
            found[group.target.module] = size
    return found


def _is_wide(module: str, keys: KeyMap) -> bool:
    architecture = keys.architecture
    if architecture is None:
        return False
    shape = architecture.modules[architecture.layout(module)[0].module].shape
    return len(shape) == 2 and shape[1] == architecture.hidden


def _wrong_rows(model: LookAlike, keys: KeyMap, infos: Mapping[str, TensorInfo]) -> str | None:
    rows = dict(model.shapes)
    for group in keys.groups:
        expected = rows.get(group.target.module)
        key = group.roles.get("diff", group.roles.get("up"))
        if expected and key and infos[key].shape[: len(expected)] == expected:
            return f"made for {model.title} ({group.target.module} has {expected[0]} rows)"
    return None
