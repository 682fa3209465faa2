"""LoRAs of Qwen-Image-2.1 on a running model, with the input of its MLPs in one layer or in two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.applying import D, apply, lora_file, random, relative_error, untouched
from vivace.devkit.doubles import tiny_models as tiny

pytestmark = pytest.mark.usefixtures("comfyui")

SWIGLU = {"gate_layer": slice(0, 3 * D), "proj": slice(3 * D, 6 * D)}
IN_BLOCK = {
    "attn.to_q": (D, D),
    "attn.to_k": (D, D),
    "attn.to_v": (D, D),
    "attn.to_out.0": (D, D),
    "img_mlp.out": (D, 3 * D),
}
SPLIT = {"img_mlp.gate_layer": (3 * D, D), "img_mlp.proj": (3 * D, D)}
FUSED = {"img_mlp.gate_up": (6 * D, D)}
SHARED = {
    "img_in": (D, 64),
    "txt_in.in_layer": (D, tiny.TEXT),
    "txt_in.out_layer": (D, D),
    "modulation.1": (4 * D, D),
    "time_text_embed.timestep_embedder.linear_1": (D, 256),
    "time_text_embed.timestep_embedder.linear_2": (D, D),
    "norm_out.linear": (D, D),
    "proj_out": (64, D),
}


def everything(fused_file: bool) -> dict[str, tuple[int, int]]:
    """All linear layers, as a file names them."""
    inner = {**IN_BLOCK, **(FUSED if fused_file else SPLIT)}
    blocks = {
        f"transformer_blocks.{block}.{name}": shape
        for block in range(2)
        for name, shape in inner.items()
    }
    return {**blocks, **SHARED}


def rows_of(network: Any, path: str) -> Iterator[tuple[Any, slice, slice]]:
    """The layers that a module of a file is in a network: the layer, its rows, and those of the
    file's."""
    head, _, name = path.rpartition(".")
    mlp = network.get_submodule(head) if "img_mlp" in path else None
    if mlp is None or hasattr(mlp, name):
        yield network.get_submodule(path), slice(None), slice(None)
    elif name == "gate_up":
        for part, rows in SWIGLU.items():
            yield mlp.get_submodule(part), slice(None), rows
    else:
        yield mlp.gate_up, SWIGLU[name], slice(None)


def changed(deltas: dict[str, torch.Tensor], fused: bool, strength: float = 1.0) -> Any:
    """A fresh model whose weights have the changes written in, each sum in float64."""
    model = tiny.qwen_image_21(fused=fused)
    for path, delta in deltas.items():
        for layer, mine, theirs in rows_of(model.model.diffusion_model, path):
            weight = layer.weight.data
            weight[mine] = (weight[mine].double() + strength * delta[theirs]).float()
    return model


@pytest.mark.parametrize("mode", ["branch", "merge"])
@pytest.mark.parametrize("fused_file", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_every_layer_is_as_with_the_change_written_in(
    fused: bool, fused_file: bool, mode: str, tmp_path: Path
) -> None:
    path, deltas = lora_file(tmp_path / "a.safetensors", everything(fused_file))
    model = tiny.qwen_image_21(fused=fused)
    base = tiny.sample(model)
    patched = apply(model, (path, 0.6), mode=mode, strict=True)
    wanted = tiny.sample(changed(deltas, fused, 0.6))
    assert relative_error(base, wanted) > 0.1
    assert relative_error(tiny.sample(patched), wanted) < 2e-5
    assert torch.equal(tiny.sample(model), base)
    assert untouched(model)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("module", everything(fused_file=False))
def test_each_layer_alone(module: str, fused: bool, tmp_path: Path) -> None:
    shape = everything(fused_file=False)[module]
    path, deltas = lora_file(tmp_path / "a.safetensors", {module: shape}, rank=8, alpha=64.0)
    model = tiny.qwen_image_21(fused=fused)
    wanted = tiny.sample(changed(deltas, fused))
    effect = relative_error(tiny.sample(model), wanted)
    assert effect > 2e-4
    assert relative_error(tiny.sample(apply(model, (path, 1.0))), wanted) < effect / 50


def test_the_last_layer_of_an_mlp_is_called_where_it_has_a_branch(
    tmp_path: Path, said: list[str]
) -> None:
    from vivace.devkit.doubles.qwen_image_21.layers import Computed

    blocks = {"transformer_blocks.0.img_mlp.out": (D, 3 * D)}
    path, _ = lora_file(tmp_path / "a.safetensors", blocks)
    model = tiny.qwen_image_21()
    before = Computed.count
    tiny.sample(model)
    computed = Computed.count - before
    assert computed == 2 * (2 + 1)  # blocks, times steps and the tokens before the picture
    tiny.sample(apply(model, (path, 1.0)))
    assert Computed.count - before == computed + computed // 2
    tiny.sample(model)
    assert Computed.count - before == 2 * computed + computed // 2
    assert not said


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("cached", [False, True])
def test_a_branch_keeps_nothing_that_it_allocates_in_a_block(
    fused: bool, cached: bool, tmp_path: Path
) -> None:
    path, _ = lora_file(tmp_path / "a.safetensors", everything(fused_file=False))
    patched = apply(tiny.qwen_image_21(fused=fused), (path, 1.0))
    if not cached:
        without_cache(patched)
    tiny.sample(patched)
    scopes = patched.model.diffusion_model.scopes
    assert (scopes.blocks, scopes.outlived) == (2 * 2, [])


def test_scopes_see_what_outlives_a_block() -> None:
    """The measure of the test above: a hook that keeps a tensor of each block."""
    model = tiny.qwen_image_21()
    kept: list[torch.Tensor] = []
    layer = model.model.diffusion_model.transformer_blocks[0].attn.to_q
    layer.register_forward_hook(lambda *call: kept.append(call[-1] + 1))
    tiny.sample(without_cache(model))
    tokens = 6 + 8 * 8
    assert model.model.diffusion_model.scopes.outlived == [(1, tokens, D)] * 2


def without_cache(model: Any) -> Any:
    """Have ComfyUI's code compute the tokens before the picture in every step."""
    model.set_model_patch(lambda args: args, "single_block")
    return model


# Keys and values of the tokens before the picture


class Kept:
    """What runs keep: the number of hits, and keys with values in the order of the blocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from vivace.devkit.doubles.qwen_image_21 import network
        from vivace.devkit.doubles.qwen_image_21.prefix_cache import PrefixCache

        self.put: list[torch.Tensor] = []
        self.hits = 0
        kept = self

        class Spy(PrefixCache):
            def put(self, block: int, keys: torch.Tensor, values: torch.Tensor) -> None:
                kept.put.append(torch.stack([keys, values]))
                super().put(block, keys, values)

            def select(self, key: torch.Tensor, blocks: int) -> bool:
                filled = super().select(key, blocks)
                kept.hits += filled
                return filled

        monkeypatch.setattr(network, "PrefixCache", Spy)

    def take(self) -> tuple[torch.Tensor, int]:
        """What the last run has kept, and its hits."""
        found = torch.stack(self.put), self.hits
        self.put, self.hits = [], 0
        return found


def references() -> list[torch.Tensor]:
    """Two pictures to look at, of different sizes."""
    return [random(1, 64, 2, 3, seed=11), random(1, 64, 4, 2, seed=12)]


def sample_edit(model: Any, steps: int = 3) -> torch.Tensor:
    """A latent made with two references within the text."""
    import comfy.sample

    noise = random(1, 64, 4, 4, seed=1)
    more = {"reference_latents": references(), "image_slots": [2, 4]}
    cond = [[random(1, 6, tiny.TEXT, seed=2), more]]
    return comfy.sample.sample(
        model, noise, steps, 1.0, "euler", "simple", cond, cond, torch.zeros_like(noise),
        disable_pbar=True, seed=1,
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["branch", "merge"])
@pytest.mark.parametrize("fused", [False, True])
def test_kept_keys_and_values_are_those_of_the_stack(
    fused: bool, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(monkeypatch)
    path, deltas = lora_file(tmp_path / "a.safetensors", everything(fused_file=True))
    model = tiny.qwen_image_21(fused=fused)
    wanted = sample_edit(without_cache(changed(deltas, fused)))
    assert not kept.put
    sample_edit(changed(deltas, fused))
    right, hits = kept.take()
    assert hits == 2
    assert right.shape == (2, 2, 1, 6 + 6 + 8, 2, D // 2)
    got = sample_edit(apply(model, (path, 1.0), mode=mode))
    keys, hits = kept.take()
    assert hits == 2
    assert relative_error(keys, right) < 2e-5
    assert relative_error(got, wanted) < 2e-5


def test_another_stack_finds_no_keys_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same prompt and references on one model, with strengths that come and go."""
    kept = Kept(monkeypatch)
    path, deltas = lora_file(tmp_path / "a.safetensors", everything(fused_file=False))
    model = tiny.qwen_image_21()
    for strength in (1.0, 0.0, 0.3, 1.0, -0.5, 0.0):
        got = sample_edit(apply(model, (path, strength)) if strength else model)
        keys, hits = kept.take()
        wanted = sample_edit(changed(deltas, fused=True, strength=strength))
        right, _ = kept.take()
        assert hits == 2
        assert relative_error(keys, right) < 2e-5
        assert relative_error(got, wanted) < 2e-5
    assert model.model.diffusion_model.prefix_cache is None
