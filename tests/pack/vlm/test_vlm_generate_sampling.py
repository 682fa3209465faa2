"""Choosing tokens: as transformers does, and repeatable."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import text_model
from vivace.vlm.decode.answer_reader import GenerationSettings
from vivace.vlm.decode.sampling import Sampler, Sampling
from vivace.vlm.local_engine import LocalEngine, LocalRequest
from vivace.vlm.text.chat_prompt import Turn

CPU = torch.device("cpu")


def request(sampling: Sampling) -> LocalRequest:
    return LocalRequest((Turn("user", ("Go.",)),), GenerationSettings(12, sampling=sampling))


def test_a_seed_repeats_and_the_global_state_is_untouched() -> None:
    engine = LocalEngine(text_model())
    before = torch.get_rng_state()

    def tokens(seed: int) -> tuple[int, ...]:
        sampling = Sampling(temperature=2.0, seed=seed)
        return engine.answer(request(sampling)).tokens

    first = tokens(1)
    torch.rand(5)  # shall not matter
    torch.set_rng_state(before)
    assert tokens(1) == first
    assert tokens(2) != first
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "warpers"),
    [
        ({"temperature": 0.7}, ["TemperatureLogitsWarper(0.7)"]),
        ({"top_k": 5}, ["TopKLogitsWarper(5)"]),
        ({"top_p": 0.6}, ["TopPLogitsWarper(0.6)"]),
        ({"min_p": 0.2}, ["MinPLogitsWarper(0.2)"]),
        ({"repetition_penalty": 1.7}, ["RepetitionPenaltyLogitsProcessor(1.7)"]),
        (
            {"temperature": 1.3, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
            [
                *("TemperatureLogitsWarper(1.3)", "TopKLogitsWarper(30)"),
                *("TopPLogitsWarper(0.9)", "MinPLogitsWarper(0.05)"),
            ],
        ),
    ],
)
def test_probabilities_are_those_of_transformers(
    settings: dict[str, Any], warpers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.generation import logits_process

    prompt, written = [1, 5, 5, 9], [7, 40]
    logits = torch.randn(50, generator=torch.Generator().manual_seed(4)) * 3
    expected = logits[None]
    for warper in warpers:
        name, value = warper.rstrip(")").split("(")
        number = int(value) if value.isdigit() else float(value)
        expected = getattr(logits_process, name)(number)(torch.tensor([prompt + written]), expected)
    seen: list[torch.Tensor] = []

    def multinomial(probabilities: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        seen.append(probabilities / probabilities.sum())
        return torch.tensor([0])

    monkeypatch.setattr(torch, "multinomial", multinomial)
    sampler = Sampler(Sampling(**{"temperature": 1.0, **settings}), prompt, CPU)
    for token in written:
        sampler.push(token)
    kept = logits.clone()
    sampler.choose(logits)
    assert torch.equal(logits, kept)
    torch.testing.assert_close(seen[0], expected[0].softmax(-1))
    assert not torch.allclose(seen[0], logits.softmax(-1))


def test_greedy_heeds_the_penalty() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0])
    assert int(Sampler(Sampling(), [1], CPU).choose(logits)) == 1
    assert int(Sampler(Sampling(repetition_penalty=2.0), [1], CPU).choose(logits)) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
    ],
)
def test_numbers_out_of_range_are_named(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is "):
        Sampling(**settings)
