"""Changes that depend on the base weight (OFT, BOFT, GLoRA, IA3), on running models.

What they must do to a weight is LyCORIS' own result.
"""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.applying import (
    apply,
    lora_file,
    random,
    reference,
    relative_error,
    special_file,
)
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

MODULE = "transformer_blocks.0.attn.to_q"
D = tiny.QWEN_DIM


def lycoris_file(folder: Path, kind: str, weight: torch.Tensor) -> tuple[Path, torch.Tensor]:
    """A file as LyCORIS saves it, and the weight that it makes of `weight`."""
    modules = pytest.importorskip("lycoris.modules", reason="an oracle of the newest ComfyUI only")
    classes = {
        "oft": ("diag_oft", "DiagOFTModule", {"lora_dim": 8, "rescaled": True}),
        "boft": ("boft", "ButterflyOFTModule", {"lora_dim": 8}),
        "glora": ("glora", "GLoRAModule", {"lora_dim": 4, "alpha": 2.0}),
        "ia3": ("ia3", "IA3Module", {}),
        "ia3 of inputs": ("ia3", "IA3Module", {"train_on_input": True}),
    }
    place, name, options = classes[kind]
    with torch.inference_mode(False), torch.no_grad():
        layer = torch.nn.Linear(D, D, bias=False)
        layer.weight.copy_(weight.clone())
        made = getattr(getattr(modules, place), name)("x", layer, **options)
        for index, parameter in enumerate(made.parameters()):
            parameter.add_(random(*parameter.shape, seed=index) * (3.0 if "ia3" in kind else 0.4))
        stored = made.custom_state_dict() or made.state_dict()
        stored = {name: tensor.float() for name, tensor in stored.items() if name != "scalar"}
        merged = made.get_merged_weight()[0].double()
    path = folder / f"{kind}.safetensors"
    stem = f"lycoris_{MODULE.replace('.', '_')}"
    save_file({f"{stem}.{k}": v.clone().contiguous() for k, v in stored.items()}, path)
    return path, merged


def peft_file(folder: Path, kind: str, layer: torch.nn.Linear) -> tuple[Path, torch.nn.Linear]:
    """A file as peft saves it, and the layer with what it makes of `layer` merged in."""
    peft = pytest.importorskip("peft", reason="an oracle of the newest ComfyUI only")
    configs = {
        "oft": peft.OFTConfig(oft_block_size=8, target_modules=[MODULE]),
        "ia3": peft.IA3Config(target_modules=[MODULE], feedforward_modules=[]),
    }
    names = MODULE.split(".")
    root: torch.nn.Module = torch.nn.Linear(D, D)
    root.load_state_dict(layer.state_dict())
    for name in reversed(names):
        root = torch.nn.ModuleDict({name: root})
    with torch.inference_mode(False), torch.no_grad():
        adapter = peft.get_peft_model(root, configs[kind])
        for index, parameter in enumerate(p for p in adapter.parameters() if p.requires_grad):
            parameter.add_(random(*parameter.shape, seed=index) * (3.0 if kind == "ia3" else 0.4))
        adapter.save_pretrained(str(folder))
        merged = adapter.merge_and_unload().get_submodule(MODULE)
    return folder / "adapter_model.safetensors", merged


KINDS = ["oft", "boft", "glora", "ia3", "ia3 of inputs"]


@pytest.mark.parametrize("mode", ["merge", "auto"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_changes_the_weight_as_lycoris_does(kind: str, mode: str, tmp_path: Path) -> None:
    model = tiny.qwen_image()
    weight = tiny.weight_of(model, f"{MODULE}.weight")
    path, merged = lycoris_file(tmp_path, kind, weight)
    change = merged - weight.double()
    base = tiny.sample(model)
    for strength in (1.0, 0.5):
        got = tiny.sample(apply(model, (path, strength), mode=mode))
        wanted = reference(tiny.qwen_image, "fp32", [({MODULE: change}, strength)])
        assert relative_error(base, wanted) > 1e-3
        assert relative_error(got, wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)


@pytest.mark.parametrize("mode", ["merge", "auto"])
@pytest.mark.parametrize("kind", ["oft", "ia3"])
def test_it_changes_weight_and_bias_as_peft_does(kind: str, mode: str, tmp_path: Path) -> None:
    model = tiny.qwen_image()
    layer = model.model.diffusion_model.get_submodule(MODULE)
    assert layer.bias is not None
    path, merged = peft_file(tmp_path, kind, layer)
    base = tiny.sample(model)
    for strength in (1.0, 0.5):
        wanted = tiny.qwen_image()
        changed = wanted.model.diffusion_model.get_submodule(MODULE)
        weight, bias = changed.weight.data.clone(), changed.bias.data.clone()
        changed.weight.data = weight + strength * (merged.weight.data - weight)
        changed.bias.data = bias + strength * (merged.bias.data - bias)
        got = tiny.sample(apply(model, (path, strength), mode=mode))
        assert relative_error(base, tiny.sample(wanted)) > 1e-3
        assert relative_error(got, tiny.sample(wanted)) < 2e-5
    assert torch.equal(tiny.sample(model), base)


@pytest.mark.own_loading
@pytest.mark.parametrize("kind", [*KINDS, "dora"])
def test_beside_a_weight_of_16_bits_no_more_is_lost_than_the_output_rounds(
    kind: str, tmp_path: Path
) -> None:
    from vivace.wrappers.lora.branch_set import install, remove

    model = tiny.qwen_image("bf16")
    weight = tiny.weight_of(model, f"{MODULE}.weight").float()
    if kind == "dora":
        path, _, changed = special_file(tmp_path, kind, model)
        changed = weight.double() + (changed - weight.double()) / 0.7
    else:
        path, changed = lycoris_file(tmp_path, kind, weight)
    layer = model.model.diffusion_model.get_submodule(MODULE)
    x = random(16, D, seed=9).bfloat16()
    wanted = x.double() @ changed.T + layer.bias.double()
    patched = apply(model, (path, 1.0))
    assert patched.patches == {}
    install(patched)
    try:
        got = layer(x).double()
    finally:
        remove(patched)
    assert relative_error(layer(x).double(), wanted) > 0.05
    # Half a unit in the last place of 8 bits, three times: the product, its change, their sum.
    assert relative_error(got, wanted) < 3 * 2**-9


@pytest.mark.parametrize("kind", ["glora", "ia3"])
def test_beside_a_weight_of_8_bits(kind: str, tmp_path: Path) -> None:
    model = tiny.qwen_image("fp8 cast")
    weight = tiny.weight_of(model, f"{MODULE}.weight")
    path, merged = lycoris_file(tmp_path, kind, weight)
    got = tiny.sample(apply(model, (path, 1.0)))
    change = {MODULE: merged - weight.double()}
    assert relative_error(got, reference(tiny.qwen_image, "fp8 cast", [(change, 1.0)])) < 2e-5


@pytest.mark.parametrize("kind", ["oft", "boft"])
def test_a_rotation_of_a_quantized_weight_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    model: Any = tiny.qwen_image("fp8 cast")
    path, _ = lycoris_file(tmp_path, kind, tiny.weight_of(model, f"{MODULE}.weight"))
    base = tiny.sample(model)
    with pytest.raises(ValueError, match="OFT rotates the weight"):
        apply(model, (path, 1.0))
    assert torch.equal(tiny.sample(model), base)


def test_a_layer_without_bias_gets_one_beside_it(tmp_path: Path) -> None:
    stem = "layers.1.attention.to_out.0"
    down, up, bias = random(4, D, seed=1) / 16, random(D, 4, seed=2) / 2, random(D, seed=3)
    tensors = {"lora_A.weight": down, "lora_B.weight": up, "lora_B.bias": bias}
    path = tmp_path / "a.safetensors"
    save_file({f"diffusion_model.{stem}.{k}": v for k, v in tensors.items()}, path)
    wanted = tiny.z_image()
    layer = wanted.model.diffusion_model.layers[1].attention.out
    layer.weight.data += (0.5 * up.double() @ down.double()).float()
    layer.bias = torch.nn.Parameter(0.5 * bias, requires_grad=False)
    base = tiny.sample(tiny.z_image())
    for mode in ("auto", "branch", "merge"):
        got = tiny.sample(apply(tiny.z_image(), (path, 0.5), mode=mode))
        assert relative_error(got, tiny.sample(wanted)) < 2e-5
    assert relative_error(base, tiny.sample(wanted)) > 1e-3


@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_ia3_of_a_layer_that_has_lost_its_bias(mode: str, tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    model, wanted = tiny.qwen_image(), tiny.qwen_image()
    factor = 1 + random(D, 1, seed=3) / 2
    path = tmp_path / "ia3.safetensors"
    save_file({f"base_model.model.{MODULE}.ia3_l": factor}, path)
    for one in (model, wanted):
        one.model.diffusion_model.get_submodule(MODULE).bias = None
    wanted.model.diffusion_model.get_submodule(MODULE).weight.data *= factor
    patched, report = apply_loras(model, [(path, 1.0)], mode)  # pyright: ignore[reportArgumentType]
    assert relative_error(tiny.sample(patched), tiny.sample(wanted)) < 2e-5
    assert "not in this model" not in report, "a factor of no bias leaves nothing out"


def test_the_weight_of_integers_with_a_scale_is_read_back() -> None:
    from vivace.wrappers.targets.known_kinds import kind_of

    layer: Any = torch.nn.Linear(4, 4)
    layer.weight = torch.nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    layer.scale_weight = torch.tensor(0.5)
    assert torch.equal(kind_of(layer).weight(layer, layer.weight), torch.full((4, 4), 0.5))


@pytest.mark.parametrize(
    "kinds", [("plain", "oft"), ("plain", "ia3"), ("oft", "ia3"), ("ia3", "ia3")]
)
@pytest.mark.parametrize("mode", ["merge", "branch"])
def test_the_order_of_changes_does_not_count(
    kinds: tuple[str, str], mode: str, tmp_path: Path
) -> None:
    """Each is a change of the base weight, whatever was merged before it."""
    layer = tiny.qwen_image().model.diffusion_model.get_submodule(MODULE)
    files, changes = [], []
    for index, kind in enumerate(kinds):
        folder = tmp_path / str(index)
        folder.mkdir()
        if kind == "plain":
            path, deltas = lora_file(folder / "a.safetensors", {MODULE: (D, D)})
            changes.append((deltas[MODULE], torch.zeros(D)))
        else:
            path, merged = peft_file(folder, kind, layer)
            change = merged.weight.data - layer.weight.data, merged.bias.data - layer.bias.data
            changes.append(change)
        files.append(path)
    wanted = tiny.qwen_image()
    changed = wanted.model.diffusion_model.get_submodule(MODULE)
    for weight, bias in changes:
        changed.weight.data = changed.weight.data + 0.6 * weight.to(changed.weight)
        changed.bias.data = changed.bias.data + 0.6 * bias
    expected = tiny.sample(wanted)
    for stack in (files, files[::-1]):
        model = tiny.qwen_image()
        at_once = apply(model, *((path, 0.6) for path in stack), mode=mode)
        one_by_one = apply(apply(model, (stack[0], 0.6), mode=mode), (stack[1], 0.6), mode=mode)
        for patched in (at_once, one_by_one):
            assert relative_error(tiny.sample(patched), expected) < 2e-5


def test_a_patch_outlives_its_model(tmp_path: Path) -> None:
    """A merged model keeps the patches of one that may be gone."""
    import comfy.lora

    model = tiny.qwen_image()
    layer = model.model.diffusion_model.get_submodule(MODULE)
    weight = layer.weight.detach().clone()
    path, merged = peft_file(tmp_path, "ia3", layer)
    wanted = merged.weight.detach().clone()
    patched = apply(model, (path, 1.0), mode="merge")
    key = f"diffusion_model.{MODULE}.weight"
    patches = patched.patches[key]
    gone = weakref.ref(model.model)
    del model, patched, layer, merged
    gc.collect()
    assert gone() is None
    assert relative_error(comfy.lora.calculate_weight(patches, weight, key), wanted) < 1e-6
