"""What loading and composing read, write and compute: each byte no more often than it must."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.lora_samples import QWEN, TINY, Z_IMAGE, close, load, loha, lora, named, random, write
from support.moved_bytes import MovedBytes, storage
from vivace.byte_lru import ByteLru
from vivace.lora import loader
from vivace.lora.composer import Composer
from vivace.lora.factors.dora import Dora
from vivace.lora.factors.finite import FiniteCheck
from vivace.lora.files import tensor_run
from vivace.lora.files.open_file import LoraFile
from vivace.lora.lora_set import LoraSet

STEMS = [f"transformer_blocks.{n}.attn.to_{x}" for n in (0, 1) for x in "qkv"]
SCALES = 16  # bytes written for each rank: its scale, in the types it is worked out in


def plain(rank: int = 64, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    one = lora(32, 32, dtype, rank)
    return {name: tensor for stem in STEMS for name, tensor in named(stem, one).items()}


def test_a_single_file_is_not_copied(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", plain())
    composer = Composer(QWEN, device="cpu", dtype=torch.bfloat16)
    with MovedBytes() as moved:
        found = load(path)
        branches = composer.compose(LoraSet([(found, 0.5)]))
    assert set(branches) == set(STEMS)
    assert moved.written < len(STEMS) * 64 * SCALES < found.nbytes / 4
    for stem, branch in branches.items():
        (entry,) = found.deltas[stem]
        assert branch.A is entry.delta.A  # type: ignore[union-attr]
        assert branch.B is entry.delta.B  # type: ignore[union-attr]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_second_file_is_all_that_is_read_and_each_factor_is_written_once(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[LoraFile] = []

    class Recorded(LoraFile):
        def __init__(self, path: Path) -> None:
            read.append(self)
            super().__init__(path)

    monkeypatch.setattr(loader, "LoraFile", Recorded)
    one = write(tmp_path / "a.safetensors", plain())
    other = {k: v for k, v in plain(96, dtype).items() if k.startswith(STEMS[0])}
    two = write(tmp_path / "b.safetensors", other)
    composer = Composer(QWEN, device="cpu", dtype=torch.bfloat16)
    cache: ByteLru[loader.Lora] = ByteLru(2**30)

    def stack(*paths: Path) -> LoraSet:
        return LoraSet([(load(path, cache=cache), 1.0) for path in paths])

    before = composer.compose(stack(one))
    assert [file.path for file in read] == [one]
    with MovedBytes() as moved:
        after = composer.compose(stack(one, two))
    assert [file.path for file in read] == [one, two]
    assert read[1].bytes_read == sum(tensor.nbytes for tensor in other.values())
    assert composer.recomposed == len(STEMS) + 1
    assert all(after[stem] is before[stem] for stem in STEMS[1:])
    joined = after[STEMS[0]]
    assert joined.rank == 64 + 96
    assert joined.A is not None
    assert joined.B is not None
    size = joined.A.nbytes + joined.B.nbytes
    assert size <= moved.written < size + (len(STEMS) * 64 + 96) * SCALES


def test_a_fused_target_is_written_once(tmp_path: Path) -> None:
    stems = [f"layers.0.attention.to_{x}" for x in "qkv"]
    parts = {stem: lora(32, 32, torch.float32, 4 + i) for i, stem in enumerate(stems)}
    tensors = {}
    for i, (stem, part) in enumerate(parts.items()):
        tensors |= named(stem, part)
        tensors[f"{stem}.lora_down.weight"] = random(4 + i, 32, seed=40 + i)
    found = load(write(tmp_path / "a.safetensors", tensors))
    composer = Composer(Z_IMAGE, device="cpu", dtype=torch.bfloat16)
    with MovedBytes() as moved:
        (branch,) = composer.compose(LoraSet([(found, 1.0)])).values()
    assert branch.A is not None
    assert branch.B is not None
    assert (branch.rank, branch.A.dtype) == (4 + 5 + 6, torch.bfloat16)
    ups = sum(part.tensors["lora_up.weight"].numel() for part in parts.values())
    zeroed_and_filled = branch.B.nbytes + ups * 4
    scaled = ups * 4  # alpha over three ranks: in float32, one member at a time
    assert moved.written < branch.A.nbytes + zeroed_and_filled + scaled + 15 * SCALES
    rows = [
        up.tensors["lora_up.weight"].double()
        @ tensors[f"{stem}.lora_down.weight"].double()
        * (3.0 / (4 + i))
        for i, (stem, up) in enumerate(parts.items())
    ]
    assert close(branch.matrix(), torch.cat(rows), 0.01)


def test_a_good_file_is_looked_at_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_run, "PIECE_BYTES", 4096)
    tensors = {**plain(), "x.alpha": torch.tensor(2.0), "n": torch.tensor([3, 4])}
    path = write(tmp_path / "a.safetensors", tensors)
    check, shown = FiniteCheck(), []

    def watch(values: torch.Tensor, names: tuple[str, ...]) -> None:
        shown.append((values, names))
        check.watch(values, names)

    with LoraFile(path) as file:
        found = file.read(file.header.tensors, watch=watch)
    assert check.non_finite(found) == set()
    assert check.looked_at == 0
    assert sorted(name for _, names in shown for name in names) == sorted(tensors)
    assert 3 < len(shown) < len(tensors)
    for values, names in shown:
        assert {found[name].dtype for name in names} == {values.dtype}
        total = sum(found[name].double().sum() for name in names)
        assert float(values.double().sum()) == pytest.approx(float(total), rel=1e-9)
        assert {storage(found[name]) for name in names} == {storage(values)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_is_found_in_its_tensor(
    value: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    tensors = {f"t{i}": random(33, 7, seed=i).to(dtype) for i in range(5)}
    tensors["t3"][20, 5] = value
    check = FiniteCheck()
    with LoraFile(write(tmp_path / "a.safetensors", tensors)) as file:
        found = file.read(tensors, watch=check.watch)
    assert check.non_finite(found) == {"t3"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_sum_that_overflows_costs_a_second_look_only(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {"a": torch.full((40, 40), torch.finfo(dtype).max, dtype=dtype), "b": torch.ones(3)}
    check = FiniteCheck()
    with LoraFile(write(tmp_path / "a.safetensors", tensors)) as file:
        found = file.read(tensors, watch=check.watch)
    assert check.non_finite(found) == set()
    assert check.looked_at >= 1


def dora_file(path: Path, stems: list[str], seed: int) -> Path:
    tensors: dict[str, torch.Tensor] = {}
    for i, stem in enumerate(stems):
        tensors |= named(stem, lora(32, 32, torch.float32, 2 + seed))
        tensors[f"{stem}.dora_scale"] = random(32, 1, seed=seed + i).abs() + 0.5
    return write(path, tensors)


def test_all_that_needs_a_weight_shares_one(tmp_path: Path) -> None:
    stems = STEMS[:3]
    loras = [load(dora_file(tmp_path / f"{i}.safetensors", stems, i)) for i in range(2)]
    weight, asked = random(96, 32, seed=7), []

    def weights(target: str) -> torch.Tensor:
        asked.append(target)
        return weight

    fused = "transformer_blocks.0.attn.to_qkv"
    composer = Composer(QWEN, [fused], weights=weights)
    branch = composer.compose(LoraSet([(one, 0.5) for one in loras]))[fused]
    assert asked == [fused], "once for three projections of two files"
    expected = torch.zeros(96, 32, dtype=torch.float64)
    for one in loras:
        for i, stem in enumerate(stems):
            rows = slice(32 * i, 32 * i + 32)
            (entry,) = one.deltas[stem]
            assert isinstance(entry.delta, Dora)
            merged = weight[rows].double() + entry.delta.inner.matrix(torch.float64)
            gain = entry.delta.magnitude.double() / merged.norm(dim=1, keepdim=True)
            expected[rows] += (gain * merged - weight[rows].double()) * 0.5
    assert close(branch.matrix(weight), expected, 2e-6)


def test_products_are_computed_where_the_composer_is_told(tmp_path: Path) -> None:
    product = load(write(tmp_path / "a.safetensors", named(STEMS[0], loha(32, 32, torch.float32))))
    copied = load(write(tmp_path / "b.safetensors", plain()))
    norms = load(dora_file(tmp_path / "c.safetensors", STEMS[:1], 0))
    composer = Composer(QWEN, device="cpu", compute="meta", weights=lambda _: random(32, 32))
    assert len(composer.compose(LoraSet([(copied, 1.0)]))) == len(STEMS)
    for one in (product, norms):  # whose results cannot be fetched from a device without memory
        with pytest.raises(NotImplementedError, match="meta"):
            composer.compose(LoraSet([(one, 1.0)]))
    with pytest.raises(ValueError, match="needs `device`"):
        Composer(QWEN, compute="cpu")


def test_norms_do_not_depend_on_the_size_of_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vivace.lora.factors import dora

    (entry,) = load(dora_file(tmp_path / "a.safetensors", STEMS[:1], 1), TINY).deltas[STEMS[0]]
    assert isinstance(entry.delta, Dora)
    columns = Dora(entry.delta.inner, random(1, 32, seed=5).abs())
    weight = random(32, 32, seed=9)
    whole = [change.resolve(weight).gain for change in (entry.delta, columns)]
    monkeypatch.setattr(dora, "BLOCK_BYTES", 5 * 32 * 4)
    for change, gain, dim in zip((entry.delta, columns), whole, (1, 0), strict=True):
        again = change.resolve(weight).gain
        merged = weight.double() + change.inner.matrix(torch.float64)
        expected = change.magnitude.double() / merged.norm(dim=dim, keepdim=True)
        assert close(gain, expected)
        assert close(again, expected)
