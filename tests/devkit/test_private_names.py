"""Tests and development tools use what is public of the pack: the rest may change at any time."""

from __future__ import annotations

import pytest
from support.private_names import THIRD_PARTY, private_uses
from vivace.devkit.rig.layout import ROOT

SOURCES = [
    path
    for folder in ("tests", "devkit")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name not in ("private_names.py", "test_private_names.py")  # they name some
]


def test_no_private_name_of_the_pack_is_used() -> None:
    assert len(SOURCES) > 300
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{use.line}: {use.name}"
        for path in SOURCES
        for use in private_uses(path.read_text(encoding="utf-8"))
    ]
    assert found == [], "test through what is public, or give it a public name"


@pytest.mark.parametrize(
    "source",
    [
        "from vivace.lora.cache import _hidden",
        "from vivace.lora import _hidden",
        "from vivace._hidden import open",
        "import vivace.lora._hidden",
        "from .files import _hidden",
        "from support.graphs import _hidden",
        "from vivace.lora import cache\ncache._hidden()",
        "from vivace.lora import cache\ncache.Cache(3).entries[0]._hidden",
        "from vivace.lora import cache\ncache._hidden = 3",
        "import vivace.lora\nvivace.lora._hidden",
        "def test(cache):\n    assert cache._hidden == {}",
        "class Other(Base):\n    def items(self):\n        return self._hidden",
        "def test(monkeypatch, cache):\n    monkeypatch.setattr(cache, '_hidden', 3)",
        "def test(cache):\n    getattr(cache, '_hidden')",
        "import pytest\npytest.MonkeyPatch().setattr('vivace.lora.cache._hidden', 3)",
        "program = '''\n    import vivace.lora\n    vivace.lora._hidden\n'''",
        # The name of another file is not made one's own by one that happens to be the same.
        "from vivace.lora import cache\n_hidden = cache._hidden",
    ],
)
def test_a_private_name_is_found(source: str) -> None:
    assert [use.name for use in private_uses(source)] == ["_hidden"]


@pytest.mark.parametrize(
    "source",
    [
        "from vivace.lora import cache\ncache.__name__",
        "import torch\ntorch._dynamo.reset()",
        "import _winapi",
        "def test(layer):\n    layer.weight._qdata",
        "class Own:\n    def __init__(self, other):\n        self._hidden = other._hidden",
        "def _hidden(): ...\n_hidden()",
        "names = {'_hidden': 'a.b._hidden'}",
        "from vivace.lora import cache\nwords = 'what vivace.lora has, do not import _hidden'",
    ],
)
def test_what_is_public_or_of_others_is_not(source: str) -> None:
    assert private_uses(source) == []


def test_no_name_of_others_is_listed_in_vain() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert {name for name in THIRD_PARTY if name not in text} == set()
