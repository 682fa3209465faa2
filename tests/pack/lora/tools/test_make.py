"""LoRA files from LoRA files, against float64 arithmetic on what the sources hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.lora_samples import (
    QWEN,
    TINY,
    Z_IMAGE,
    close,
    diff,
    load,
    loha,
    lora,
    lora_mid,
    named,
    random,
    write,
)
from torch import Tensor
from vivace.lora.errors import LoraError
from vivace.lora.factors.delta import Delta
from vivace.lora.files.open_file import LoraFile
from vivace.lora.tools.derived_file import MARK, make
from vivace.lora.tools.lower_rank import Limit
from vivace.lora.tools.name_styles import STYLES

H = 32
QKV = "diffusion_model.layers.0.attention.qkv"


def changes(path: Path) -> dict[tuple[str, str], Tensor]:
    """Every parameter that a file changes, and the change, in float64."""
    loaded = load(path)
    found: dict[tuple[str, str], Tensor] = {}
    for module, entries in loaded.deltas.items():
        shape = loaded.architecture.modules[module].shape
        for entry in entries:
            assert isinstance(entry.delta, Delta)
            size = shape if entry.parameter == "weight" else shape[:1]
            total = found.setdefault((module, entry.parameter), torch.zeros(size).double())
            total[entry.start : entry.stop] += entry.delta.matrix(torch.float64)
    return found


def same(found: dict[tuple[str, str], Tensor], wanted: dict[tuple[str, str], Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.equal(found[key], wanted[key]) for key in wanted
    )


def z_file(path: Path, seed: int = 0, alpha: float | None = 2.0, rank: int = 4) -> Path:
    """A LoRA of a Z-Image: Q, K and V one by one, a feed-forward layer, in bfloat16."""
    tensors: dict[str, Tensor] = {}
    rows = {"attention.to_q": H, "attention.to_k": H, "attention.to_v": H, "feed_forward.w1": 48}
    for i, (name, out) in enumerate(rows.items()):
        stem = f"transformer.layers.0.{name}"
        tensors[f"{stem}.lora_A.weight"] = random(rank, H, seed=seed + i, dtype=torch.bfloat16)
        tensors[f"{stem}.lora_B.weight"] = random(out, rank, seed=seed + 9, dtype=torch.bfloat16)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return write(path, tensors, {"ss_base_model_version": "zimage", "ss_network_alpha": "2"})


def run(output: Path, *sources: tuple[Path, float], **options: object):
    return make(list(sources), output, tool="test", architectures=TINY, **options)  # type: ignore


@pytest.mark.parametrize("style", STYLES)
def test_a_merge_is_the_sum(tmp_path: Path, style: str) -> None:
    sources = [
        (z_file(tmp_path / f"{i}.safetensors", seed=20 * i, alpha=alpha, rank=rank), strength)
        for i, (alpha, rank, strength) in enumerate([(2.0, 4, 0.8), (None, 3, -0.5), (1.0, 2, 1.0)])
    ]
    made = run(tmp_path / "out.safetensors", *sources, style=style)
    parts = [(changes(path), strength) for path, strength in sources]
    found = changes(made.path)
    assert found.keys() == parts[0][0].keys()
    for key, change in found.items():
        wanted = sum((one[key] * strength for one, strength in parts), torch.zeros(1).double())
        assert close(change, wanted, 2e-7)
    assert made.error < 2e-7
    assert made.ranks == ((9, 27) if style != "peft" else (9, 9))


def test_equal_scales_keep_types_and_bits(tmp_path: Path) -> None:
    one, two = z_file(tmp_path / "1.safetensors"), z_file(tmp_path / "2.safetensors", seed=50)
    made = run(tmp_path / "out.safetensors", (one, 1.0), (two, 1.0), style="comfyui")
    with LoraFile(made.path) as file:
        kinds = {n: t.dtype for n, t in file.header.tensors.items() if not n.endswith("alpha")}
    assert set(kinds.values()) == {"BF16"}
    assert made.error == 0.0


@pytest.mark.parametrize("first", STYLES)
@pytest.mark.parametrize("second", STYLES)
def test_converting_there_and_back_is_exact(tmp_path: Path, first: str, second: str) -> None:
    source = z_file(tmp_path / "a.safetensors")
    there = run(tmp_path / "b.safetensors", (source, 1.0), style=first)
    back = run(tmp_path / "c.safetensors", (there.path, 1.0), style=second)
    assert same(changes(there.path), changes(source))
    assert same(changes(back.path), changes(source))
    assert there.error == back.error == 0.0


def test_the_names_of_each_style(tmp_path: Path) -> None:
    source = z_file(tmp_path / "a.safetensors")
    names: dict[str, set[str]] = {}
    for style in STYLES:
        made = run(tmp_path / f"{style}.safetensors", (source, 1.0), style=style)
        with LoraFile(made.path) as file:
            names[style] = set(file.header.tensors)
    suffixes = ("alpha", "lora_down.weight", "lora_up.weight")
    assert {f"{QKV}.{suffix}" for suffix in suffixes} < names["comfyui"]
    assert {f"lora_unet_layers_0_attention_qkv.{s}" for s in suffixes} < names["kohya"]
    assert "transformer.layers.0.attention.to_q.lora_A.weight" in names["peft"]
    assert not any(name.endswith("alpha") for name in names["peft"])


@pytest.mark.parametrize("style", ["comfyui", "kohya"])
def test_every_family_keeps_its_change(tmp_path: Path, style: str) -> None:
    b = "transformer_blocks.0"
    f32 = torch.float32
    tensors = named(f"{b}.attn.to_q", loha(H, H, f32)) | named(
        f"{b}.attn.to_k", lora_mid(H, H, f32)
    )
    tensors |= named(f"{b}.attn.to_v", lora(H, H, f32)) | named("img_in", diff(H, 16, f32))
    tensors |= {f"{b}.attn.to_out.0.lokr_w1": random(4, 4)}
    tensors |= {f"{b}.attn.to_out.0.lokr_w2": random(8, 8)}
    tensors |= {f"{b}.attn.norm_q.diff": random(8), f"{b}.attn.to_q.diff_b": random(H)}
    source = write(tmp_path / "a.safetensors", tensors)
    made = run(tmp_path / "b.safetensors", (source, 1.0), style=style)
    assert same(changes(made.path), changes(source))
    half = run(tmp_path / "c.safetensors", (source, 0.5), style=style)
    wanted = {key: change * 0.5 for key, change in changes(source).items()}
    assert same(changes(half.path), wanted)


def test_dora_is_renamed_and_never_scaled(tmp_path: Path) -> None:
    stem = "diffusion_model.layers.0.feed_forward.w1"
    tensors = named(stem, lora(48, H, torch.float32)) | {f"{stem}.dora_scale": random(48, 1).abs()}
    source = write(tmp_path / "a.safetensors", tensors)
    there = run(tmp_path / "b.safetensors", (source, 1.0), style="peft")
    back = run(tmp_path / "c.safetensors", (there.path, 1.0), style="comfyui")
    (one,), (two,) = (load(path).deltas["layers.0.feed_forward.w1"] for path in (source, back.path))
    weight = random(48, H).double()
    first, second = one.delta.resolve(weight), two.delta.resolve(weight)  # type: ignore[union-attr]
    assert close(first.matrix(weight, torch.float64), second.matrix(weight, torch.float64), 1e-7)
    with pytest.raises(LoraError, match=r"w1: DoRA can be scaled only with the base weights"):
        run(tmp_path / "d.safetensors", (source, 0.5))
    assert not (tmp_path / "d.safetensors").exists()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("limit", [Limit(rank=3), Limit(error=0.3)], ids=["rank", "error"])
def test_resizing_leaves_out_the_least(tmp_path: Path, style: str, limit: Limit) -> None:
    source = z_file(tmp_path / "a.safetensors", rank=6)
    made = run(tmp_path / "b.safetensors", (source, 1.0), style=style, limit=limit)
    exact, found = changes(source), changes(made.path)
    split = style == "peft"
    lost = total = 0.0
    for (module, _), change in exact.items():
        cut = 3 if split and module.endswith("qkv") else 1
        stored = found[module, "weight"].chunk(cut)
        for matrix, reduced in zip(change.chunk(cut), stored, strict=True):
            values = torch.linalg.svdvals(matrix)
            kept = int((torch.linalg.svdvals(reduced) > 1e-6 * values[0]).sum())
            rest = values[kept:].norm()
            assert abs((matrix - reduced).norm() - rest) < 1e-6 * matrix.norm()
            if limit.rank:
                assert kept == limit.rank
            else:
                assert rest <= 0.3 * values.norm() < values[kept - 1 :].norm()
            lost, total = lost + float(rest**2), total + float(matrix.norm() ** 2)
    assert made.error == pytest.approx((lost / total) ** 0.5, rel=1e-5)
    told = json.loads(LoraFile(made.path).header.metadata[MARK])
    assert told["relative_error"] == pytest.approx(made.error, rel=1e-2)


def test_what_has_no_small_form_needs_a_rank(tmp_path: Path) -> None:
    def lokr(path: Path, seed: int) -> Path:
        stem = "lora_unet_layers_0_feed_forward_w2"
        factors = {"lokr_w1": random(4, 6, seed=seed), "lokr_w2": random(8, 8, seed=seed + 1)}
        return write(path, {f"{stem}.{name}": tensor for name, tensor in factors.items()})

    sources = [(lokr(tmp_path / f"{i}.safetensors", i), 1.0) for i in (1, 5)]
    with pytest.raises(LoraError, match=r"layers\.0\.feed_forward\.w2.*give a rank"):
        run(tmp_path / "out.safetensors", *sources)
    made = run(tmp_path / "out.safetensors", *sources, limit=Limit(rank=32))
    (found,) = changes(made.path).values()
    wanted = sum(next(iter(changes(path).values())) for path, _ in sources)
    assert isinstance(wanted, Tensor)
    assert close(found, wanted, 1e-6)


def test_a_narrow_type_states_its_error(tmp_path: Path) -> None:
    source = z_file(tmp_path / "a.safetensors")
    limit = Limit(rank=4)
    exact = run(tmp_path / "b.safetensors", (source, 1.0), style="peft", limit=limit)
    made = run(
        tmp_path / "c.safetensors", (source, 1.0), style="peft", limit=limit, dtype=torch.bfloat16
    )
    assert exact.error < 1e-6
    assert 1e-4 < made.error < 1e-2
    wanted, found = changes(source), changes(made.path)
    lost = sum(float((wanted[key] - found[key]).norm() ** 2) for key in wanted)
    total = sum(float(change.norm() ** 2) for change in wanted.values())
    assert made.error == pytest.approx((lost / total) ** 0.5, rel=1e-6)


def test_metadata_says_what_was_made_of_what(tmp_path: Path) -> None:
    import hashlib

    source = z_file(tmp_path / "a.safetensors")
    made = run(tmp_path / "b.safetensors", (source, 0.5))
    with LoraFile(made.path) as file:
        metadata = file.header.metadata
    assert metadata["ss_base_model_version"] == "zimage"
    assert "ss_network_alpha" not in metadata
    (told,) = json.loads(metadata[MARK])["sources"]
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert told == {"file": "a.safetensors", "strength": 0.5, "sha256": digest}


def test_what_cannot_be_used_is_refused_or_named(tmp_path: Path) -> None:
    tensors = named("layers.0.feed_forward.w1", lora(48, H, torch.float32))
    tensors |= {"lora_te_a.alpha": random(1), "unheard.of.lora_A.weight": random(1)}
    source = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(LoraError, match=r"unheard\.of.*--partial"):
        run(tmp_path / "b.safetensors", (source, 1.0))
    assert list(tmp_path.iterdir()) == [source]
    made = run(tmp_path / "b.safetensors", (source, 1.0), partial=True)
    assert [text.split(" (")[0] for text in made.left_out] == [
        "a.safetensors: 1 tensors",
        "a.safetensors: unheard.of.lora_A.weight",
    ]


def test_loras_of_two_models_are_not_merged(tmp_path: Path) -> None:
    one = z_file(tmp_path / "z.safetensors")
    stem = "transformer_blocks.0.attn.to_q"
    two = write(tmp_path / "q.safetensors", named(stem, lora(H, H, torch.float32)))
    with pytest.raises(LoraError, match=r"q\.safetensors: is for Qwen-Image, but z\.safetensors"):
        run(tmp_path / "out.safetensors", (one, 1.0), (two, 1.0))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", TINY, ids=lambda model: model.name)
def test_every_module_has_names_that_are_read_as_it(style: str, model: object) -> None:
    from vivace.lora.mapping.module_names import find, spellings
    from vivace.lora.mapping.suffixes import split_suffix
    from vivace.lora.tools.name_styles import names, parts

    assert model in (QWEN, Z_IMAGE)
    table = spellings(TINY)
    for module in model.modules:  # type: ignore[attr-defined]
        for part in parts(style, model, module):  # type: ignore[arg-type]
            suffix = split_suffix(names(style, model, module, part).of("diff"))  # type: ignore
            assert suffix is not None
            owners = find(suffix.stem, table)
            assert owners is not None
            (target,) = (o.target for o in owners if o.architecture is model)
            assert (target.module, target.part) == (module, part)
