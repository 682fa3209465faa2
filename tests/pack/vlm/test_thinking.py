"""Telling thinking from answer: by token ids and by text, whole and in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.vlm.text.thinking import (
    Piece,
    TextSplitter,
    ThinkingBudget,
    TokenSplitter,
    prompt_opens_thinking,
)

OPEN, CLOSE = 100, 101
WRAP_UP = (7, 8, CLOSE, 9)


def split(text: str, opened: bool) -> tuple[str, str]:
    """Thinking and answer of a text that comes in one piece."""
    splitter = TextSplitter(opened)
    splitter.push(text)
    splitter.finish()
    return splitter.thinking, splitter.answer


@pytest.mark.parametrize(
    ("tokens", "opened", "thinking", "answer"),
    [
        ([OPEN, 1, 2, CLOSE, 3, 4], False, [1, 2], [3, 4]),
        ([1, 2, CLOSE, 3, 4], True, [1, 2], [3, 4]),
        ([3, 4], False, [], [3, 4]),
        ([OPEN, CLOSE, 3], False, [], [3]),
        ([OPEN, 1, 2], False, [1, 2], []),  # the limit came first
        ([1, 2], True, [1, 2], []),
        ([], True, [], []),
        ([OPEN, 1, CLOSE, 3, OPEN, 2, CLOSE, 4], False, [1, 2], [3, 4]),
    ],
)
def test_tokens_are_split(
    tokens: list[int], opened: bool, thinking: list[int], answer: list[int]
) -> None:
    splitter = TokenSplitter(OPEN, CLOSE, opened)
    for token in tokens:
        splitter.push(token)
    assert (splitter.thinking, splitter.answer) == (thinking, answer)


def test_tokens_are_named_as_they_come() -> None:
    splitter = TokenSplitter(OPEN, CLOSE)
    kinds = [splitter.push(token) for token in (OPEN, 1, CLOSE, 2)]
    assert kinds == ["tag", "thinking", "tag", "answer"]
    assert not splitter.inside


@pytest.mark.parametrize(
    ("prompt", "opens"),
    [([], False), ([1, OPEN], True), ([OPEN, 1, CLOSE, 2], False), ([CLOSE, OPEN, 5], True)],
)
def test_the_prompt_tells_whether_it_opens_the_thinking(prompt: list[int], opens: bool) -> None:
    assert prompt_opens_thinking(prompt, OPEN, CLOSE) is opens


def generate(budget: ThinkingBudget, wanted: list[int]) -> list[int]:
    """What comes out of a model that wants these tokens, under the budget."""
    tokens: list[int] = []
    for token in wanted:
        while (forced := budget.forced()) is not None:
            budget.push(forced)
            tokens.append(forced)
        budget.push(token)
        tokens.append(token)
    return tokens


@pytest.mark.parametrize(
    ("limit", "opened", "wanted", "tokens"),
    [
        (2, False, [OPEN, 1, 2, 3, 4], [OPEN, 1, 2, *WRAP_UP, 3, 4]),
        (2, True, [1, 2, 3, 4], [1, 2, *WRAP_UP, 3, 4]),
        (0, True, [1, 2], [*WRAP_UP, 1, 2]),
        (0, False, [1, OPEN, 2], [1, OPEN, *WRAP_UP, 2]),
        (2, False, [OPEN, 1, CLOSE, 3, 4, 5], [OPEN, 1, CLOSE, 3, 4, 5]),
        (2, False, [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
    ],
)
def test_the_budget_closes_the_thinking(
    limit: int, opened: bool, wanted: list[int], tokens: list[int]
) -> None:
    budget = ThinkingBudget(limit, OPEN, CLOSE, WRAP_UP, opened)
    assert generate(budget, wanted) == tokens
    assert budget.exhausted is (len(tokens) > len(wanted))
    assert budget.used <= limit + WRAP_UP.index(CLOSE)


def test_a_budget_is_not_passed_over() -> None:
    budget = ThinkingBudget(1, OPEN, CLOSE, (CLOSE,), opened=True)
    budget.push(1)
    with pytest.raises(ValueError, match="token 2 was taken where 101 is forced"):
        budget.push(2)


def test_impossible_budgets_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 tokens; give 0 or more"):
        ThinkingBudget(-1, OPEN, CLOSE, (CLOSE,))
    with pytest.raises(ValueError, match="lack the closing tag 101"):
        ThinkingBudget(1, OPEN, CLOSE, (7, 8))


@pytest.mark.parametrize(
    ("text", "opened", "thinking", "answer"),
    [
        ("<think>\nwhy\n</think>\n\nso", False, "why", "so"),
        ("  <think>why</think>so", False, "why", "so"),
        ("why\n</think>\n\nso", True, "why", "so"),
        ("why\n</think>\n\nso", False, "why", "so"),
        ("</think>so", False, "", "so"),
        ("<think></think>so\n", False, "", "so\n"),
        ("  so it is\n", False, "", "  so it is\n"),
        ("<think>why", False, "why", ""),
        ("why </thi", True, "why </thi", ""),
        ("so </thi", False, "", "so </thi"),
        ("<thi", False, "", "<thi"),
        ("<thin air>", False, "", "<thin air>"),
        ("the <think> tag", False, "", "the <think> tag"),
        ("<think>a</think>the </think> tag", False, "a", "the </think> tag"),
        ("<think>a < b </think>c", False, "a < b", "c"),
        ("<think>a</think><think>\nb</think>c", False, "a\nb", "c"),
        ("", False, "", ""),
        (" \n", True, "", ""),
    ],
)
def test_text_is_split(text: str, opened: bool, thinking: str, answer: str) -> None:
    assert split(text, opened) == (thinking, answer)


PARTS = st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "bc"])


@given(st.lists(PARTS, max_size=12).map("".join), st.booleans(), st.data())
def test_cuts_do_not_matter(text: str, opened: bool, data: st.DataObject) -> None:
    """However the text is cut, the pieces add up to the same parts, and nothing gets lost."""
    splitter = TextSplitter(opened)
    pieces: list[Piece] = []
    rest = text
    while rest:
        length = data.draw(st.integers(1, len(rest)))
        pieces += splitter.push(rest[:length])
        rest = rest[length:]
    pieces += splitter.finish()
    shown = {"thinking": "", "answer": ""}
    for kind, piece in pieces:
        if kind == "retract":
            shown = {"thinking": piece, "answer": ""}
        else:
            assert piece
            shown[kind] += piece
    assert (shown["thinking"], shown["answer"]) == split(text, opened)
    assert (splitter.thinking, splitter.answer) == split(text, opened)
    letters = [c for c in shown["thinking"] + shown["answer"] if c in "abc"]
    assert letters == [c for c in text if c in "abc"]


def test_sure_text_is_not_held_back() -> None:
    splitter = TextSplitter()
    assert splitter.push("Hello <") == [Piece("answer", "Hello ")]
    assert splitter.push("b") == [Piece("answer", "<b")]
    inside = TextSplitter(opened=True)
    assert inside.push("Let me ") == [Piece("thinking", "Let me")]
    assert inside.push("see") == [Piece("thinking", " see")]
