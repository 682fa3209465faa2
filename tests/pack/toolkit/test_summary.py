"""Summaries of any value: right figures, bounded text, and nothing that crashes or leaks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vivace.toolkit.outline import MAX_LINES, outline
from vivace.toolkit.summary import Summary, kind_of, summarize
from vivace.toolkit.tensor_figures import CHUNK, measure
from vivace.vlm.remote.secret import Secret

CANARY = "sk-canary-7f3a"


def figure(summary: Summary, label: str) -> str:
    return dict(summary.figures)[label]


@pytest.mark.parametrize(
    ("value", "kind", "title"),
    [
        (torch.zeros(2, 4, 6, 3), "image", "Image: 2 images of 6 x 4 pixels, RGB"),
        (torch.zeros(1, 4, 6, 4), "image", "Image: 1 image of 6 x 4 pixels, RGB with alpha"),
        (torch.zeros(1, 4, 6), "mask", "Mask: 1 mask of 6 x 4 pixels"),
        (torch.zeros(5, dtype=torch.int64), "tensor", "Tensor: int64 [5]"),
        (
            {"samples": torch.zeros(2, 16, 8, 4)},
            "latent",
            "Latent: 2 samples of 4 x 8, 16 channels",
        ),
        (
            {"waveform": torch.zeros(1, 2, 22050), "sample_rate": 44100},
            "audio",
            "Audio: 0.50 s at 44100 Hz, stereo",
        ),
        ([[torch.zeros(1, 77, 768), {}]], "conditioning", "Conditioning: 1 entry"),
        ("two words", "text", "Text: 9 characters, 2 words, 1 line"),
        ("", "text", "Text: 0 characters, 0 words, 0 lines"),
        ('{"a": 1}', "text", "Text: 8 characters, 2 words, 1 line, JSON"),
        (True, "number", "Boolean: true"),
        (7, "number", "Integer: 7"),
        (0.5, "number", "Number: 0.5"),
        (math.inf, "number", "Number: inf"),
        (2**16609, "number", "Integer: <integer of 16610 bits>"),
        (None, "nothing", "Nothing (None)"),
        ({"a": 1, "b": 2}, "data", "Mapping of 2 entries"),
        ([], "data", "List of 0 entries"),
        ({3}, "data", "set of 1 entry"),
        (object(), "object", "Object: <object>"),
        (b"\x89PNG", "object", "Object: <4 bytes: 89 50 4e 47>"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_kinds_and_titles(value: Any, kind: str, title: str) -> None:
    assert kind_of(value) == kind
    assert summarize(value).title == title


def test_figures_of_a_latent_and_of_conditioning() -> None:
    latent = summarize(
        {"samples": torch.tensor([[[[1.0, 3.0]]]]), "noise_mask": torch.ones(1, 8, 8)}
    )
    assert figure(latent, "mean") == "2"
    assert figure(latent, "standard deviation") == "1"
    assert figure(latent, "noise_mask") == "<tensor float32 [1, 8, 8]>"
    options = {"pooled_output": torch.zeros(1, 768), "strength": 0.5, "area": (8, 8, 0, 0)}
    entry = summarize([[torch.zeros(1, 77, 768), options]] * 30)
    assert entry.title == "Conditioning: 30 entries"
    assert figure(entry, "entry 3") == "float32 [1, 77, 768]"
    assert figure(entry, "entry 3 strength") == "0.5"
    assert figure(entry, "entry 3 area") == "tuple of 4"
    assert figure(entry, "more") == "10"


def test_levels_of_a_sound() -> None:
    wave = torch.sin(torch.arange(44100) * 2 * math.pi * 100 / 44100) * 0.5
    found = summarize({"waveform": wave.reshape(1, 1, -1), "sample_rate": 44100})
    assert figure(found, "peak") == "0.5000 (-6.0 dB)"
    assert figure(found, "RMS") == "0.3536 (-9.0 dB)"
    silent = summarize({"waveform": torch.zeros(3, 1, 10), "sample_rate": 10})
    assert silent.title == "Audio: 1.00 s at 10 Hz, mono, 3 sounds"
    assert figure(silent, "peak") == "0.0000 (-inf dB)"


@pytest.mark.parametrize("rate", [0, -1, math.nan, math.inf, "44100", None, True, 1.5])
def test_a_bad_sample_rate_is_said(rate: Any) -> None:
    found = summarize({"waveform": torch.zeros(1, 1, 8), "sample_rate": rate})
    assert "the sample rate is" in found.title


VALUES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=50)


@given(VALUES, st.integers(0, 3), st.integers(0, 2))
def test_statistics_are_those_of_the_finite_elements(
    values: list[float], nan: int, infinite: int
) -> None:
    plain = torch.tensor(values, dtype=torch.float64)
    mixed = torch.tensor([*values, *[math.nan] * nan, *[-math.inf] * infinite])
    found = measure(mixed.expand(3, 2, len(mixed)))
    assert found is not None
    assert (found.count, found.nan, found.infinite) == (6 * len(mixed), 6 * nan, 6 * infinite)
    assert (found.minimum, found.maximum) == (float(plain.min()), float(plain.max()))
    assert found.mean == pytest.approx(float(plain.mean()), abs=1e-6)
    assert found.deviation == pytest.approx(float(plain.std(correction=0)), abs=1e-6)


def test_statistics_go_over_more_than_one_chunk() -> None:
    values = torch.full((CHUNK + 10,), 1000.0)
    values[-10:] = 1001.0
    found = measure(values)
    assert found is not None
    share = 10 / (CHUNK + 10)
    assert found.mean == pytest.approx(1000 + share, abs=1e-9)
    assert found.deviation == pytest.approx(math.sqrt(share * (1 - share)), rel=1e-6)


@pytest.mark.parametrize(
    "value",
    [
        torch.full((1, 8, 8, 3), math.nan),
        torch.empty(0),
        torch.empty(0, 8, 8, 3),
        torch.zeros(1).expand(10**6, 10**6),
        torch.zeros(4, 4).to_sparse(),
        torch.zeros(4, device="meta"),
        torch.zeros(4, dtype=torch.complex64),
        torch.zeros(4, dtype=torch.bool),
        torch.zeros(2, 4, 4).to(torch.float8_e4m3fn),
        torch.zeros(4, dtype=torch.bfloat16),
        torch.tensor(3.0),
        {"samples": torch.zeros(())},
        {"samples": None},
        {"waveform": None, "sample_rate": None},
        {"waveform": torch.zeros(0, 0, 0), "sample_rate": 1},
        list(range(10**6)),
        {str(n): n for n in range(10**5)},
        "x" * 10**7,
        "[" * 10**5,
        "\ud800",
        b"\0" * 10**6,
        {b"k": {1, 2}, (1, 2): frozenset(), None: ...},
        range(5),
        Path("/a/b"),
        print,
        int,
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_value_is_too_odd_or_too_large(value: Any) -> None:
    found = summarize(value)
    text = found.plain()
    assert len(text) < 120_000
    text.encode()
    assert "cannot be examined" not in text


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise KeyError(name)

    def __repr__(self) -> str:
        raise OSError


class HostileMap(dict[Any, Any]):
    def items(self) -> Any:
        raise MemoryError

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("make", [Hostile, HostileMap, lambda: [Hostile()]])
def test_objects_that_raise_do_not_crash(make: Callable[[], Any]) -> None:
    assert "cannot be examined" in summarize(make()).title


def test_values_in_themselves_are_marked() -> None:
    cyclic: dict[str, Any] = {"a": [1]}
    cyclic["a"].append(cyclic)
    cyclic["b"] = cyclic["a"][0]
    assert outline(cyclic).splitlines() == [
        "{",
        '  "a": [',
        "    1",
        "    <contains itself>",
        "  ]",
        '  "b": 1',
        "}",
    ]
    shared = [1]
    assert "itself" not in outline([shared, shared])


def test_depth_and_length_are_bounded() -> None:
    deep: Any = 1
    for _ in range(10**4):
        deep = [deep]
    assert len(outline(deep).splitlines()) < 30
    long = outline([["x"] * 50] * 10**5).splitlines()
    assert len(long) == MAX_LINES + 1
    assert long[-1] == "<more is not shown>"


class Color(Enum):
    RED = CANARY


@dataclass
class Handle:
    name: str
    key: str

    def __repr__(self) -> str:
        return self.key


def test_secrets_show_only_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    secret = Secret.from_environment("SOME_API_KEY")
    handle = Handle("mine", CANARY)
    for value in (secret, handle, {"deep": [secret, handle]}, {handle.name: Color.RED}):
        assert CANARY not in summarize(value).plain()
    assert summarize(secret).title == "Object: <Secret 'SOME_API_KEY'>"
    assert summarize(handle).title == "Object: <Handle 'mine'>"
    assert "<Color.RED>" in outline([Color.RED])


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=60,
)


@given(PLAIN)
def test_any_plain_value_has_a_summary(value: Any) -> None:
    found = summarize(value)
    assert "cannot be examined" not in found.title
    found.plain().encode()
