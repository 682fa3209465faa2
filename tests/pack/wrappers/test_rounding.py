"""What the report says of rounding is what ComfyUI's merging does to whole weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.applying import FUSED_ROWS, QWEN_MODULES, Z_MODULES, D, apply, lora_file, random
from support.layout_models import LAYOUTS, model_of
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = [pytest.mark.usefixtures("comfyui"), pytest.mark.own_loading]

Deltas = dict[str, torch.Tensor]
MODULE = "transformer_blocks.0.attn.to_q"
KINDS = ["fp32", "fp16", "bf16", "fp8 cast", "fp8 quantized", *LAYOUTS]


def weights(model: Any) -> Deltas:
    """The weights of all linear layers as they are now, in float64."""
    found = {}
    for path, module in model.model.diffusion_model.named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.dim() != 2:
            continue
        if hasattr(type(weight.data), "dequantize") and type(weight.data) is not torch.Tensor:
            weight = weight.to(torch.float32).dequantize()
        found[path] = weight.detach().double().clone()
    return found


def merged(model: Any) -> Deltas:
    """The same while ComfyUI has a model loaded with its patches."""
    import comfy.model_management

    comfy.model_management.load_models_gpu([model], force_full_load=True)
    found = weights(model)
    comfy.model_management.unload_all_models()
    return found


def whole(deltas: Deltas, strength: float, base: Deltas) -> Deltas:
    """Changes as whole matrices, by module of the model."""
    found: Deltas = {}
    for path, delta in deltas.items():
        name, rows = FUSED_ROWS.get(path, (path, slice(None)))
        change = found.setdefault(name, torch.zeros_like(base[name]))
        change[rows] += strength * delta
    return found


def expected(base: Deltas, after: Deltas, files: list[Deltas]) -> tuple[float, list[float]]:
    """The error of the stack and what is kept of each file, over whole matrices."""
    change, error = 0.0, 0.0
    own, along = [0.0] * len(files), [0.0] * len(files)
    for name in {name for file in files for name in file}:
        total = torch.stack([file[name] for file in files if name in file]).sum(0)
        lost = after[name] - base[name] - total
        change += float(total.square().sum())
        error += float(lost.square().sum())
        for index, file in enumerate(files):
            if name in file:
                own[index] += float(file[name].square().sum())
                along[index] += float((lost * file[name]).sum())
    kept = [1 + a / o for a, o in zip(along, own, strict=True)]
    return (error / change) ** 0.5, kept


def small_file(
    path: Path, modules: dict[str, tuple[int, int]], size: float, seed: int = 1
) -> tuple[Path, Deltas]:
    """A LoRA file whose changes are `size` as large as those of `lora_file`."""
    from safetensors.torch import load_file

    path, deltas = lora_file(path, modules, seed=seed)
    tensors = {n: t * size if ".lora_B." in n else t for n, t in load_file(path).items()}
    save_file(tensors, path)
    return path, {name: size * delta for name, delta in deltas.items()}


def place(model: Any, *loras: tuple[Path, float], mode: Any = "merge") -> Any:
    from vivace.wrappers.lora.apply import place_loras

    return place_loras(model, loras, mode, strict=True)


def measure(model: Any, placed: Any, **limits: int) -> Any:
    from vivace.wrappers.lora.rounding import measure as measured
    from vivace.wrappers.lora.rounding_sample import Limits
    from vivace.wrappers.lora.running_model import RunningModel

    files = [(file.merged, file.strength) for file in placed.files]
    return measured(model, RunningModel.of(model), files, Limits(**limits))


EVERYTHING = {"modules": 10**6, "rows": 10**6, "numbers": 10**12}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_comfyui_makes_of_whole_weights(kind: str, tmp_path: Path) -> None:
    path, deltas = small_file(tmp_path / "a.safetensors", QWEN_MODULES, 0.01)
    model = model_of(kind)
    base = weights(model)
    placed = place(model, (path, 0.7))
    error, (kept,) = expected(base, merged(placed.model), [whole(deltas, 0.7, base)])
    complete = measure(model, placed, **EVERYTHING)
    # In fp32 the change is rounded as much as the sum, in any order.
    exactly = 0.05 if kind == "fp32" else 1e-4
    assert complete.error == pytest.approx(error, rel=exactly)
    assert complete.kept == (pytest.approx(kept, rel=1e-5),)
    assert str(complete.sample) == "in all of 5 modules"
    sampled = placed.rounding
    assert sampled.error == pytest.approx(error, rel=0.1)
    assert placed.files[0].kept == pytest.approx(kept, abs=0.1 * error)
    assert str(sampled.sample) == "in a sample of 5 modules, 32 rows each"
    assert sampled.too_much == (error > 0.05)
    for name, weight in weights(model).items():
        assert torch.equal(weight, base[name]), "measuring changes nothing"


def test_the_kinds_lose_what_they_are_known_to_lose(tmp_path: Path) -> None:
    """A change of a thousandth of the weight: exact in fp32, little of it left in fewer bits."""
    path, _ = small_file(tmp_path / "a.safetensors", {MODULE: (D, D)}, 1.0)
    found = {}
    for kind in ("fp32", "fp16", "bf16", "fp8 cast"):
        model = model_of(kind)
        weight = weights(model)[MODULE]
        delta = lora_file(path, {MODULE: (D, D)})[1][MODULE]
        strength = 1e-3 * float(weight.norm() / delta.norm())
        found[kind] = place(model, (path, strength)).rounding.error
    assert found["fp32"] < 1e-3 < found["fp16"] < 0.3
    assert 0.7 < found["bf16"] < 0.9
    assert found["fp8 cast"] > 5


@pytest.mark.parametrize("kind", ["bf16", "fp8 quantized"])
def test_each_file_of_a_stack_has_its_own_share(kind: str, tmp_path: Path) -> None:
    a, first = small_file(tmp_path / "a.safetensors", QWEN_MODULES, 0.02)
    few = {MODULE: (D, D), "img_in": (D, 64)}
    b, second = small_file(tmp_path / "b.safetensors", few, 0.002, seed=3)
    model = model_of(kind)
    base = weights(model)
    placed = place(model, (a, 0.5), (b, -1.0))
    files = [whole(first, 0.5, base), whole(second, -1.0, base)]
    error, kept = expected(base, merged(placed.model), files)
    complete = measure(model, placed, **EVERYTHING)
    assert complete.error == pytest.approx(error, rel=1e-4)
    assert complete.kept == tuple(pytest.approx(share, rel=1e-4) for share in kept)
    assert placed.files[0].kept == placed.rounding.kept[0]
    assert placed.files[1].kept == placed.rounding.kept[1]


def test_what_an_earlier_node_merged_is_part_of_the_change(tmp_path: Path) -> None:
    a, first = small_file(tmp_path / "a.safetensors", QWEN_MODULES, 0.02)
    b, second = small_file(tmp_path / "b.safetensors", {MODULE: (D, D)}, 0.002, seed=3)
    model = model_of("bf16")
    base = weights(model)
    earlier = place(model, (a, 1.0)).model
    placed = place(earlier, (b, 1.0))
    both = [{MODULE: first[MODULE]}, {MODULE: second[MODULE]}]
    error, (_, kept) = expected(base, merged(placed.model), both)
    complete = measure(earlier, placed, **EVERYTHING)
    assert complete.error == pytest.approx(error, rel=1e-4)
    assert complete.kept == (pytest.approx(kept, rel=1e-4),)


def test_a_part_of_a_fused_weight(tmp_path: Path) -> None:
    path, deltas = small_file(tmp_path / "a.safetensors", Z_MODULES, 0.02)
    model = tiny.z_image("bf16")
    base = weights(model)
    placed = place(model, (path, 1.0))
    error, (kept,) = expected(base, merged(placed.model), [whole(deltas, 1.0, base)])
    complete = measure(model, placed, **EVERYTHING)
    assert complete.error == pytest.approx(error, rel=1e-4)
    assert complete.kept == (pytest.approx(kept, rel=1e-4),)
    assert placed.rounding.error == pytest.approx(error, rel=0.1)


@pytest.mark.parametrize("kind", ["dora by columns", "rotation"])
def test_a_change_that_needs_every_row_is_measured_whole(kind: str, tmp_path: Path) -> None:
    model = model_of("bf16")
    weight = weights(model)[MODULE]
    path = tmp_path / "a.safetensors"
    if kind == "rotation":
        blocks = random(D // 8, 8, 8, seed=1) / 50
        save_file({f"lycoris_{MODULE.replace('.', '_')}.oft_blocks": blocks}, path)
        skew = blocks.double() - blocks.double().mT
        one = torch.eye(8, dtype=torch.float64)
        turns = torch.block_diag(*((one + q) @ (one - q).inverse() for q in skew))
        turned = turns.T @ weight
    else:
        down, up = random(4, D, seed=1) / 16, random(D, 4, seed=2) / 2
        magnitude = weight.norm(dim=0, keepdim=True) * (1 + random(1, D, seed=3) / 50)
        tensors = {"lora_A.weight": down, "lora_B.weight": up, "dora_scale": magnitude.float()}
        save_file({f"diffusion_model.{MODULE}.{n}": t for n, t in tensors.items()}, path)
        turned = weight + up.double() @ down.double()
        turned = magnitude.float().double() * turned / turned.norm(dim=0, keepdim=True)
    base = weights(model)
    placed = place(model, (path, 1.0))
    error, (kept,) = expected(base, merged(placed.model), [{MODULE: turned - weight}])
    assert placed.rounding.error == pytest.approx(error, rel=1e-3)
    assert placed.files[0].kept == pytest.approx(kept, rel=1e-4)
    assert str(placed.rounding.sample) == "in all of 1 module"


def test_the_report_states_it_and_advises(tmp_path: Path) -> None:
    from vivace.wrappers.lora.apply import apply_loras

    path, _ = small_file(tmp_path / "a.safetensors", QWEN_MODULES, 0.01)
    _, report = apply_loras(model_of("bf16"), [(path, 1.0)], "merge")
    line = re.search(r"an error of ([\d.]+) % of the change, in a sample of 5 modules", report)
    assert line is not None
    assert float(line[1]) > 5
    assert "32 rows each: use auto" in report
    assert re.match(r"1 LoRA, 5 modules, merging loses [\d.]+ %: use auto\n", report)
    kept = re.search(r"5 modules merged, .*; rounding leaves ([\d.]+) % of the merged", report)
    assert kept is not None
    assert 50 < float(kept[1]) < 150
    _, report = apply_loras(model_of("fp32"), [(path, 1.0)], "merge")
    assert "an error of under 0.001 %" in report or "an error of 0.00" in report
    assert "use auto" not in report
    _, report = apply_loras(model_of("bf16"), [(path, 1.0)], "auto")
    assert "rounding" not in report


def test_where_it_cannot_be_measured_it_says_so(tmp_path: Path) -> None:
    from comfy.sd import load_lora_for_models
    from comfy.utils import load_torch_file

    path, _ = small_file(tmp_path / "a.safetensors", QWEN_MODULES, 0.02)
    model = model_of("bf16")
    stock = load_lora_for_models(model, None, load_torch_file(str(path)), 0.5, 0.0)[0]
    found = place(stock, (path, 1.0)).rounding
    assert found.line().endswith("not measured: other nodes have patched the same weights")
    some, _ = small_file(tmp_path / "b.safetensors", {MODULE: (D, D)}, 0.02)
    stock = load_lora_for_models(model, None, load_torch_file(str(some)), 0.5, 0.0)[0]
    found = place(stock, (path, 1.0)).rounding
    assert len(found.sample.rows) == 4


def test_norms_alone_are_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    name = "diffusion_model.transformer_blocks.0.attn.norm_q.diff"
    save_file({name: random(128, seed=1) / 8}, path)
    assert place(model_of("bf16"), (path, 1.0)).rounding is None
    assert len(place(model_of("bf16"), (path, 1.0), mode="auto").files[0].merged) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_auto_merges_no_linear_layer(kind: str, tmp_path: Path) -> None:
    from vivace.wrappers.lora.running_model import RunningModel
    from vivace.wrappers.lora.way import Need, Way

    path, _ = lora_file(tmp_path / "a.safetensors", QWEN_MODULES)
    model = model_of(kind)
    assert apply(model, (path, 1.0)).patches == {}
    running = RunningModel.of(model)
    linear = [p for p, m in running.architecture.modules.items() if m.kind == "linear"]
    ways = {running.way(p, "auto", need) for p in linear for need in (Need.NOTHING, Need.WEIGHT)}
    assert ways == {Way.BRANCH}
