"""Texts of prompts: LoRAs written as tags, and templates with variables and alternatives."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ....lora.prompt_tags import parse_text
from ....lora.rows import LoraRow, RowError
from ....toolkit.prompt_template import TemplateError, expand, variable_names
from ..mutations import bytes_of
from ..refusals import may_refuse

_PARTS = (
    b"<lora:", b"<LORA:a b/c:0.5>", b":", b">", b"<", b"0.8", b"-.5e3", b"1e400", b"nan", b"a",
    b", ", b"\n", b"{", b"}", b"|", b"\\", b"\\{", b"{name}", b"{a|b|{c|d}}", b"{" * 40,
    b"\xc3\xa9", b"\xe2\x80\x83", b"{ name }", b"{1a}", b"\\\\",
)  # fmt: skip


def target(data: bytes) -> None:
    """Take out the tags and write them again; expand the template twice."""
    text = data.decode("utf-8", "surrogateescape")
    with may_refuse(RowError):
        rows, rest = parse_text(text)
        assert len(rest) <= len(text)
        assert parse_text(rest) == ((), rest)
        assert parse_text(" ".join(map(_tag, rows))) == (rows, "")
    with may_refuse(TemplateError):
        names = variable_names(text)
        values = dict.fromkeys(names, "{x|y}")
        found = expand(text, values, 7)
        assert found == expand(text, values, 7)
        if not set(text) & set("{}|\\"):
            assert found == text


def _tag(row: LoraRow) -> str:
    numbers = [row.strength, *([] if row.strength_clip is None else [row.strength_clip])]
    return f"<lora:{row.lora}:{':'.join(map(repr, numbers))}>"


def seeds() -> Sequence[bytes]:
    """Tags and templates."""
    return [
        b"a cat, <lora:ink:0.8>, <lora:style/soft light:1:0.5> in the rain",
        b"<lora:a>\n<lora:b:-1>",
        b"a {red|green|{dark|light} blue} {name} \\{ \\| \\} {other_name}",
        b"plain",
    ]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Put in, exchange or leave out parts of the syntax."""
    if chance.random() < 0.2:
        return bytes_of(data, chance)
    for _ in range(chance.randint(1, 3)):
        start = chance.randrange(len(data) + 1)
        stop = start + chance.choice((0, 0, 1, 5))
        data = data[:start] + chance.choice(_PARTS) + data[stop:]
    return data
