"""Stacks: exact, independent of order, and recomposed no more than a change needs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.lora_samples import (
    FAMILIES,
    QWEN,
    Z_IMAGE,
    Sample,
    close,
    load,
    lora,
    named,
    random,
    write,
)
from vivace.lora.compose import Composer
from vivace.lora.factors.branch import Branch
from vivace.lora.factors.fusion import interleave_rows
from vivace.lora.loader import Lora
from vivace.lora.mapping.supported_models import qwen_image
from vivace.lora.stack import LoraSet

Q, K, OUT = (f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_out.0"))
Make = Callable[..., Lora]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Make a loaded LoRA from samples by module."""
    count = 0

    def made(**samples: Sample) -> Lora:
        nonlocal count
        count += 1
        tensors: dict[str, torch.Tensor] = {}
        for name, sample in samples.items():
            tensors |= named(f"transformer_blocks.0.attn.{name}", sample)
        return load(write(tmp_path_factory.mktemp("loras") / f"{count}.safetensors", tensors))

    return made


def sample(rank: int = 4, alpha: float | None = 3.0, seed: int = 0, family: str = "lora") -> Sample:
    if family != "lora":
        return FAMILIES[family](32, 32, torch.float32)
    a, b = random(rank, 32, seed=100 + seed), random(32, rank, seed=200 + seed)
    tensors = {"lora_A.weight": a, "lora_B.weight": b}
    scale = 1.0 if alpha is None else alpha / rank
    if alpha is not None:
        tensors["alpha"] = torch.tensor(alpha)
    return Sample(tensors, (b.double() @ a.double()) * scale)


@pytest.fixture(scope="module")
def many(make: Make) -> list[tuple[Lora, torch.Tensor]]:
    """Twenty LoRAs of mixed families on to_q, with their changes."""
    families = ["lora", "loha", "lokr whole, low", "lora", "diff"]
    found = []
    for i in range(20):
        one = sample(1 + i % 5, 0.5 + i, i, families[i % 5])
        found.append((make(to_q=one), one.change))
    return found


def factor(branch: Branch) -> torch.Tensor:
    """The A of a branch that must have one."""
    assert branch.A is not None
    return branch.A


STRENGTHS = st.floats(-4, 4).filter(lambda s: abs(s) > 1e-9) | st.sampled_from(
    [0.0, -1.0, 1e-6, 1e12, -1e20]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), STRENGTHS), min_size=1, max_size=20), st.data())
def test_stack_equals_the_sum(
    many: list[tuple[Lora, torch.Tensor]], rows: list[tuple[int, float]], data: st.DataObject
) -> None:
    expected = torch.zeros(32, 32, dtype=torch.float64)
    size = 0.0
    for index, strength in rows:
        expected += many[index][1] * strength
        size += float(many[index][1].norm()) * abs(strength)
    stack = LoraSet([(many[i][0], s) for i, s in rows])
    branches = Composer(QWEN).compose(stack)
    shuffled = data.draw(st.permutations(rows))
    again = Composer(QWEN).compose(LoraSet([(many[i][0], s) for i, s in shuffled]))
    if not stack.strengths:
        assert branches == again == {}
        return
    x = random(2, 32, seed=3)
    actual = branches[Q].matrix()
    assert (actual.double() - expected).norm() <= 1e-6 * max(size, 1e-300)
    applied = branches[Q].apply(x).double() - x.double() @ expected.T
    assert applied.norm() <= 2e-6 * max(size, 1e-300) * float(x.norm())
    assert torch.equal(actual, again[Q].matrix()), "bit-equal in any order"


def test_order_and_history_do_not_matter(make: Make) -> None:
    loras = [make(to_q=sample(2 + i, 1.0, i), to_k=sample(3, None, 9 + i)) for i in range(3)]
    rows = list(zip(loras, (1.0, -0.5, 2.0), strict=True))
    fresh = Composer(QWEN).compose(LoraSet(rows))
    for order in permutations(rows):
        composer = Composer(QWEN)
        for end in range(1, 4):
            composer.compose(LoraSet(order[:end]))
        composer.compose(LoraSet([]))
        assert composer.branches == {}
        composer.compose(LoraSet(order[::-1]))
        for target, branch in composer.branches.items():
            assert torch.equal(branch.matrix(), fresh[target].matrix())
            assert torch.equal(factor(branch), factor(fresh[target]))


def test_reordering_does_nothing(make: Make) -> None:
    rows = [(make(to_q=sample(seed=i)), 1.0 + i) for i in range(3)]
    composer = Composer(QWEN)
    before = composer.compose(LoraSet(rows))
    assert (composer.recomposed, composer.rescaled) == (1, 0)
    after = composer.compose(LoraSet(rows[::-1]))
    assert (composer.recomposed, composer.rescaled) == (1, 0)
    assert after[Q] is before[Q]
    assert LoraSet(rows) == LoraSet(rows[::-1])


def test_strength_change_only_rescales_its_own_modules(make: Make) -> None:
    one, two = make(to_q=sample(seed=1)), make(to_q=sample(seed=2), to_k=sample(seed=3))
    composer = Composer(QWEN)
    before = composer.compose(LoraSet([(one, 1.0), (two, 1.0)]))
    assert composer.recomposed == 2
    after = composer.compose(LoraSet([(one, 0.25), (two, 1.0)]))
    assert (composer.recomposed, composer.rescaled) == (2, 1)
    assert after[K] is before[K]
    assert after[Q].A is before[Q].A
    assert after[Q].B is before[Q].B
    expected = sample(seed=1).change * 0.25 + sample(seed=2).change
    assert close(after[Q].matrix(), expected)
    old = sample(seed=1).change + sample(seed=2).change
    assert close(before[Q].matrix(), old), "branches are values: the old one still holds"


def test_adding_and_removing_touch_only_their_modules(make: Make) -> None:
    one, two = make(to_q=sample(seed=1)), make(to_k=sample(seed=2))
    both = make(to_q=sample(seed=4), **{"to_out.0": sample(seed=5)})
    composer = Composer(QWEN)
    first = composer.compose(LoraSet([(one, 1.0), (two, 1.0)]))
    second = composer.compose(LoraSet([(one, 1.0), (two, 1.0), (both, 1.0)]))
    assert composer.recomposed == 2 + 2
    assert second[K] is first[K]
    third = composer.compose(LoraSet([(one, 1.0), (two, 1.0)]))
    assert composer.recomposed == 4 + 2
    assert third[K] is first[K]
    assert OUT not in third
    assert torch.equal(third[Q].matrix(), first[Q].matrix())
    assert third[Q].rank == 4
    a = factor(third[Q])
    assert a.untyped_storage().nbytes() == a.nbytes, "nothing larger is kept alive"


def test_zero_strength_is_absence(make: Make) -> None:
    one, two = make(to_q=sample(seed=1)), make(to_q=sample(seed=2))
    with_zero = LoraSet([(one, 1.0), (two, 0.0)])
    assert with_zero == LoraSet([(one, 1.0)])
    assert LoraSet([(one, 0.5), (one, -0.5)]) == LoraSet()
    composer = Composer(QWEN)
    composer.compose(LoraSet([(one, 1.0), (two, 1.0)]))
    assert composer.compose(with_zero)[Q].rank == 4
    assert composer.compose(LoraSet()) == {}


def test_same_lora_twice_adds_up(make: Make) -> None:
    one = make(to_q=sample(seed=1))
    twice = LoraSet([(one, 0.5), (one, 0.25)])
    assert twice == LoraSet([(one, 0.75)])
    branch = Composer(QWEN).compose(twice)[Q]
    assert branch.rank == 4
    assert close(branch.matrix(), sample(seed=1).change * 0.75)


def test_identity_tells_files_and_strengths(make: Make) -> None:
    one, two = make(to_q=sample(seed=1)), make(to_q=sample(seed=2))
    base = LoraSet([(one, 1.0)])
    assert hash(base) == hash(LoraSet([(one, 1.0)]))
    stronger, other = LoraSet([(one, 2.0)]), LoraSet([(two, 1.0)])
    assert len({base.identity, stronger.identity, other.identity}) == 3
    assert base != "something else"


@pytest.mark.parametrize("strength", [float("nan"), float("inf")])
def test_strength_must_be_finite(strength: float, make: Make) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        LoraSet([(make(to_q=sample()), strength)])


def test_loras_of_different_models_do_not_mix(make: Make, tmp_path: Path) -> None:
    tensors = named("layers.0.attention.out", lora(32, 32, torch.float32))
    other = load(write(tmp_path / "z.safetensors", tensors))
    with pytest.raises(ValueError, match="different models"):
        LoraSet([(make(to_q=sample()), 1.0), (other, 1.0)])
    with pytest.raises(ValueError, match="is for Z-Image, not Qwen-Image"):
        Composer(QWEN).compose(LoraSet([(other, 1.0)]))


def test_failure_leaves_the_composer_as_it_was(make: Make) -> None:
    one = make(to_q=sample(seed=1))
    dora = sample(seed=2)
    needy = make(to_k=Sample({**dora.tensors, "magnitude": torch.ones(32)}, dora.change))
    composer = Composer(QWEN)
    before = composer.compose(LoraSet([(one, 1.0)]))
    with pytest.raises(ValueError, match="base weights"):
        composer.compose(LoraSet([(one, 0.5), (needy, 1.0)]))
    assert composer.branches is before
    assert composer.compose(LoraSet([(one, 1.0)]))[Q] is before[Q]


def test_smaller_models_take_what_they_have(make: Make, tmp_path: Path) -> None:
    tensors = named(Q, sample(seed=1)) | named(Q.replace("0", "1", 1), sample(seed=2))
    both = load(write(tmp_path / "a.safetensors", tensors))
    shallow = qwen_image(depth=1, hidden=32, head=8, text=24, latent=16)
    stack = LoraSet([(both, 1.0)])
    composer = Composer(shallow)
    assert set(composer.compose(stack)) == {Q}
    assert composer.missing(stack) == {"a.safetensors": [Q.replace("0", "1", 1)]}
    assert Composer(QWEN).missing(stack) == {}


def test_fused_target_takes_its_members(make: Make) -> None:
    q, v = sample(2, 1.0, 1), sample(5, 4.0, 2)
    one = make(to_q=q, to_v=v)
    fused = "transformer_blocks.0.attn.to_qkv"
    branches = Composer(QWEN, [fused]).compose(LoraSet([(one, -2.0)]))
    assert set(branches) == {fused}
    zero = torch.zeros(32, 32, dtype=torch.float64)
    assert close(branches[fused].matrix(), torch.cat([q.change, zero, v.change]) * -2.0)


def test_fused_target_places_terms_and_biases(make: Make) -> None:
    full = FAMILIES["diff"](32, 32, torch.float32)
    bias = random(32, seed=4)
    k = Sample({**full.tensors, "diff_b": bias}, full.change)
    fused = "transformer_blocks.0.attn.to_qkv"
    branch = Composer(QWEN, [fused]).compose(LoraSet([(make(to_k=k), 0.5)]))[fused]
    assert branch.rank == 0
    assert branch.bias is not None
    x = random(3, 32, seed=1)
    expected = torch.zeros(3, 96, dtype=torch.float64)
    expected[:, 32:64] = (x.double() @ full.change.T + bias.double()) * 0.5
    assert close(branch.apply(x), expected)


def test_swiglu_fusion(tmp_path: Path) -> None:
    w1, w3 = lora(48, 32, torch.float32, 2), lora(48, 32, torch.float32, 3)
    stem = "layers.1.feed_forward"
    tensors = named(f"{stem}.w1", w1) | named(f"{stem}.w3", w3)
    found = load(write(tmp_path / "a.safetensors", tensors))
    branches = Composer(Z_IMAGE, [f"{stem}.w13"]).compose(LoraSet([(found, 1.0)]))
    assert close(branches[f"{stem}.w13"].matrix(), torch.cat([w3.change, w1.change]))
    lone = load(write(tmp_path / "b.safetensors", named(f"{stem}.w1", w1)))
    branches = Composer(Z_IMAGE, [f"{stem}.w13"]).compose(LoraSet([(lone, 1.0)]))
    assert close(branches[f"{stem}.w13"].matrix(), torch.cat([w3.change * 0, w1.change]))


def test_interleaved_modulation_equals_interleaved_output(tmp_path: Path) -> None:
    stem = "transformer_blocks.0.img_mod.1"
    one = lora(192, 32, torch.float32)
    found = load(write(tmp_path / "a.safetensors", named(stem, one)))
    branch = Composer(QWEN).compose(LoraSet([(found, 1.0)]))[stem]
    assert branch.A is not None
    assert branch.B is not None
    assert branch.s is not None
    x = random(1, 32, seed=2)
    interleaved = ((x @ branch.A.T) * branch.s) @ interleave_rows(branch.B).T
    planar = interleaved.view(1, 32, 6).transpose(1, 2).reshape(1, 192)
    assert close(planar, x.double() @ one.change.T)
    assert not close(interleaved, x.double() @ one.change.T, 0.5), "negative control"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_composed_dtype_and_sizes(dtype: torch.dtype, make: Make) -> None:
    one, two = make(to_q=sample(2, 1.0, 1)), make(to_q=sample(3, 1.0, 2))
    branch = Composer(QWEN, dtype=dtype).compose(LoraSet([(one, 1.0), (two, 0.5)]))[Q]
    assert branch.A is not None
    assert branch.B is not None
    assert branch.s is not None
    assert (branch.A.dtype, branch.B.dtype, branch.s.dtype) == (dtype, dtype, torch.float32)
    assert (branch.rank, branch.A.shape, branch.B.shape) == (5, (5, 32), (32, 5))
    assert branch.nbytes == (5 * 32 * 2) * 2 + 5 * 4
    expected = sample(2, 1.0, 1).change + sample(3, 1.0, 2).change * 0.5
    assert close(branch.matrix(), expected, 4 * torch.finfo(dtype).eps)
    assert branch.apply(random(2, 32).to(dtype)).dtype == dtype


def test_strength_change_after_a_removal(make: Make) -> None:
    one, two = make(to_q=sample(seed=1)), make(to_k=sample(seed=2))
    composer = Composer(QWEN)
    composer.compose(LoraSet([(one, 1.0), (two, 1.0)]))
    composer.compose(LoraSet([(one, 1.0)]))
    branches = composer.compose(LoraSet([(one, 0.5)]))
    assert set(branches) == {Q}
    assert close(branches[Q].matrix(), sample(seed=1).change * 0.5)
