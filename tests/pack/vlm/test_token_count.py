"""Tokens and what they cost: added up, and never guessed."""

from __future__ import annotations

import json

import pytest
from vivace.vlm.remote.openai_reply import Reply, Usage
from vivace.vlm.remote.token_count import Prices, TokenCount


def reply(*counts: int, counted: bool = True) -> Reply:
    return Reply("", "", "stop", Usage(*counts), "model", counted=counted)


def test_tokens_are_added_up_and_priced() -> None:
    count = TokenCount.of([reply(1000, 200, 150, 10), reply(3000, 300)], Prices(0.5, 2.0))
    assert json.loads(count.json()) == {
        "requests": 2,
        "prompt_tokens": 4000,
        "answer_tokens": 500,
        "thinking_tokens": 150,
        "kept_tokens": 10,
        "cost": 0.003,
    }
    assert "4000 of prompts, 500 of answers, in 2 requests, cost 0.003" in count.markdown()


def test_what_is_not_known_is_not_guessed() -> None:
    without_prices = TokenCount.of([reply(1000, 200)], Prices())
    assert without_prices.cost is None
    assert "cost" not in without_prices.markdown()
    count = TokenCount.of([reply(1000, 200), reply(counted=False)], Prices(0.5, 2.0))
    assert json.loads(count.json()) == {
        "requests": 2,
        **dict.fromkeys(("prompt_tokens", "answer_tokens", "thinking_tokens", "kept_tokens")),
        "cost": None,
    }
    assert "not all were counted" in count.markdown()
    with pytest.raises(ValueError, match="below 0"):
        Prices(-1)
