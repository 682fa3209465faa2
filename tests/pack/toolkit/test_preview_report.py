"""Summaries of several values as one text: nothing is lost, and no value breaks another's form."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit.preview_report import as_json, as_markdown
from vivace.toolkit.summary import Summary, summarize

TEXT = st.text(max_size=30)
SUMMARIES = st.builds(
    Summary, st.just("data"), TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple), TEXT
)


def test_a_value_is_a_heading_a_table_and_a_block() -> None:
    summary = Summary("text", "Text: 3", (("a|b", "1\n2"),), "code\n```\nend")
    assert as_markdown([("value0", summary), ("value1", Summary("number", "Integer: 7"))]) == (
        "### value0\n\nText: 3\n\n| figure | value |\n|---|---|\n| a&#124;b | 1 2 |\n\n"
        "````\ncode\n```\nend\n````\n\n### value1\n\nInteger: 7"
    )
    assert as_markdown([]) == ""


@given(st.lists(st.tuples(TEXT, SUMMARIES), max_size=4))
def test_json_says_all(values: list[tuple[str, Summary]]) -> None:
    found = json.loads(as_json(values))
    assert [(item["label"], item["title"], item["text"]) for item in found] == [
        (label, summary.title, summary.text) for label, summary in values
    ]
    assert [[tuple(pair) for pair in item["figures"]] for item in found] == [
        list(summary.figures) for _, summary in values
    ]


@given(st.text(alphabet="`#|\n a", min_size=1, max_size=40))
def test_a_text_stays_in_its_block(text: str) -> None:
    report = as_markdown([("one", summarize(text)), ("two", summarize(5))])
    fence = max(re.findall("^`{3,}$", report, flags=re.MULTILINE), key=len)
    before, inside, after = report.split(f"\n{fence}\n")
    assert inside == text
    assert [before[:8], after[:9]] == ["### one\n", "\n### two\n"]
