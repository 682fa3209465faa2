"""Variables and alternatives: what they give, that they are deterministic, how they fail."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit.prompt_template import MAX_DEPTH, TemplateError, expand, variable_names


def outcomes(text: str, seeds: int = 300, **variables: str) -> set[str]:
    return {expand(text, variables, seed) for seed in range(seeds)}


def test_plain_text_is_left_alone() -> None:
    for text in ("", "a cat, 50% off\nsecond | line", "tabs\t\\n and \\ alone \\"):
        assert expand(text) == text


def test_variables() -> None:
    values = {"animal": "cat", "größe": "big", "a1": "{x|y}"}
    assert expand("a {größe} { animal }, {animal}: {a1}", values) == "a big cat, cat: {x|y}"
    assert variable_names("{b} {a|{c} {b}|{a|b}} {d}") == ["b", "c", "d"]


def test_alternatives_all_come() -> None:
    assert outcomes("a {red|green||{dark|light} blue} hat") == {
        "a red hat",
        "a green hat",
        "a  hat",
        "a dark blue hat",
        "a light blue hat",
    }
    assert outcomes("{{a|b}{c|d}|{n}}", n="N") == {"ac", "ad", "bc", "bd", "N"}


def test_escapes() -> None:
    assert expand(r"\{name\} \| \\ {a\|b\}|a\|b\}}") == r"{name} | \ a|b}"
    assert expand(r"\\{x}", {"x": "1"}) == r"\1"


def test_these_seeds_give_these_texts_for_ever() -> None:
    text = "{a|b|c|d|e|f|g|h} {1|2|3|4|5|6|7|8}"
    texts = [expand(text, seed=seed) for seed in (0, 1, 2, -1, 2**64 - 1)]
    assert texts == ["e 3", "h 4", "e 5", "h 2", "a 5"]


def test_choices_are_even_and_independent() -> None:
    counts = Counter(expand("{a|b|c}{a|b|c}", seed=seed) for seed in range(9000))
    assert len(counts) == 9
    assert all(850 < count < 1150 for count in counts.values())


def test_a_choice_does_not_depend_on_the_others() -> None:
    for seed in range(50):
        alone = expand("{x|y} {1|2|3|4}", seed=seed).split()[1]
        assert expand("{long|list|of|others} {1|2|3|4} {more|still}", seed=seed).split()[1] == alone
        assert expand("{x|y} {v} {1|2|3|4}", {"v": "-"}, seed).split()[2] == alone


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a {b", "line 1, column 3: an opening brace without a closing one"),
        ("a\n b} c", "line 2, column 3: a closing brace without an opening one"),
        ("{a|{b}", "line 1, column 1: an opening brace without"),
        ("{}", r"column 1: \{\} is neither a variable"),
        ("{two words}", r"\{two words\} is neither a variable nor has it alternatives"),
        ("{{a|b}}", "is neither a variable"),
        ("{1x}", "is neither a variable"),
        ("{name}", r"the variable \{name\} has no value; given are: other"),
        ("{" * 100_000, f"nested more than {MAX_DEPTH} deep"),
    ],
)
def test_errors_say_where_and_what(text: str, problem: str) -> None:
    with pytest.raises(TemplateError, match=problem):
        expand(text, {"other": "1"})


def test_a_variable_in_an_option_not_chosen_needs_no_value() -> None:
    seen = set()
    for seed in range(50):
        try:
            seen.add(expand("{plain|{missing}}", seed=seed))
        except TemplateError:
            seen.add("error")
    assert seen == {"plain", "error"}


PIECES = st.sampled_from(["{", "}", "|", "\\", "a", "b c", "{x}", "{a|b}", "\n"])


@given(st.lists(PIECES, max_size=15).map("".join), st.integers())
def test_any_text_expands_or_is_refused_and_always_the_same(text: str, seed: int) -> None:
    def attempt() -> str:
        try:
            return "ok: " + expand(text, {"x": "X", "a": "A"}, seed)
        except TemplateError as error:
            return f"refused: {error}"

    assert attempt() == attempt()


@given(st.text())
def test_escaped_text_comes_out_as_it_was(text: str) -> None:
    escaped = text
    for character in "\\{}|":
        escaped = escaped.replace(character, "\\" + character)
    assert expand(escaped) == text
