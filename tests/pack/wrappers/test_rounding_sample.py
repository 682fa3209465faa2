"""Which rows are looked at: always the same ones, of every kind of layer, all over the depth."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("comfyui")

KINDS = ("attn.to_q", "attn.to_k", "attn.to_v", "img_mlp.net.2")


def candidates(blocks: int = 60, **options: bool) -> dict[str, object]:
    from vivace.wrappers.lora.rounding_sample import Candidate

    found = {}
    for block in range(blocks):
        for kind in KINDS:
            columns = 12288 if "mlp" in kind else 3072
            name = f"transformer_blocks.{block}.{kind}"
            found[name] = Candidate(3072, columns, ((0, 3072),), **options)
    return found


def chosen(found: dict[str, object], **limits: int):
    from vivace.wrappers.lora.rounding_sample import Limits, choose

    return choose(found, Limits(**limits))  # pyright: ignore[reportArgumentType]


def test_it_is_spread_over_kinds_and_depth_and_always_the_same() -> None:
    places, sample = chosen(candidates())
    assert (len(places), sample.rows, sample.of) == (12, (32,) * 12, 240)
    assert str(sample) == "in a sample of 12 modules, 32 rows each"
    kinds = [place.module.split(".", 2)[2] for place in places]
    assert all(kinds.count(kind) == 3 for kind in KINDS)
    depths = sorted(int(place.module.split(".")[1]) for place in places)
    assert {depth // 15 for depth in depths} == {0, 1, 2, 3}, "each quarter of the depth"
    assert len({place.start for place in places}) == 12
    assert all(0 <= place.start < place.stop <= 3072 for place in places)
    assert chosen(candidates()) == (places, sample)


def test_rows_count_for_all_that_they_stand_for() -> None:
    places, _ = chosen(candidates())
    total = sum(place.weight * (place.stop - place.start) for place in places)
    assert total == pytest.approx(240 * 3072)


def test_weights_that_are_only_read_whole_are_fewer() -> None:
    places, sample = chosen(candidates(reads_rows=False))
    assert [place.stop - place.start for place in places] == list(sample.rows)
    # 12288 columns are more than the rest of the budget: the kind with them is the first.
    read = sum(3072 * (12288 if "mlp" in place.module else 3072) for place in places)
    assert read <= max(2**25, 3072 * 12288)
    assert 1 <= len(places) < 12


def test_one_module_is_looked_at_in_any_case() -> None:
    places, sample = chosen(candidates(blocks=1, by_rows=False), numbers=1)
    assert [(place.start, place.stop) for place in places] == [(0, 3072)]
    assert (sample.of, sample.complete) == (4, False)
    assert str(sample) == "in a sample of 1 module, 3072 rows"


def test_only_changed_rows_are_looked_at() -> None:
    from vivace.wrappers.lora.rounding_sample import Candidate

    found: dict[str, object] = {
        f"layers.{n}.attention.qkv": Candidate(768, 256, ((256, 320), (700, 768))) for n in range(8)
    }
    places, _ = chosen(found)
    assert len(places) == 8
    for place in places:
        rows = set(range(place.start, place.stop))
        assert len(rows) == 32
        assert rows & {*range(256, 320), *range(700, 768)}
    assert sum(place.weight * 32 for place in places) == pytest.approx(8 * 132)
