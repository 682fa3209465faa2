"""Suno's nodes of comfyui-llm-toolkit become Generate Music, Generate Text and Preview Outputs."""

from __future__ import annotations

from typing import Any

import pytest
from support.both_formats import Part
from support.toolkit_nodes import migrate, provider, show, stays
from vivace.migrate import Known

KNOWN = Known(models=["writer"], music_models=["band"])


def suno(**links: Any) -> Part:
    values = {"llm_model": "V4", "external_api_key": ""}
    return Part("SunoProviderSelector", values, links)


def settings(source: int, **values: Any) -> Part:
    given = {
        "prompt": "",
        "style": "slow jazz",
        "title": "",
        "custom_mode": False,
        "instrumental": False,
        "model": "V3_5",
        "negative_tags": "",
        **values,
    }
    return Part("ConfigGenerateMusic", given, {"context": (source, 0)})


def music(**links: Any) -> Part:
    return Part("GenerateMusic", {"prompt": "A walk", "save_name": ""}, links, ("*", "STRING"))


def preview(source: int) -> Part:
    outputs = ("*", "AUDIO", "IMAGE", "STRING")
    return Part("PreviewOutputs", {}, {"context": (source, 0)}, outputs)


def save(source: int, slot: int = 1) -> Part:
    return Part("SaveAudio", {"filename_prefix": "a"}, {"audio": (source, slot)}, ())


def test_music_is_played_and_shown() -> None:
    parts = {1: suno(), 2: settings(1), 3: music(context=(2, 0)), 4: preview(3), 5: save(4)}
    after, report = migrate(parts, KNOWN)
    assert sorted(after) == ["3", "4", "5"]
    assert after["3"]["class_type"] == "VivaceGenerateMusic"
    assert after["3"]["inputs"]["prompt"] == "A walk"
    assert after["3"]["inputs"]["model"] == "band"
    assert after["4"]["inputs"]["values.value0"] == ["3", 0]
    assert after["5"]["inputs"]["audio"] == ["3", 0]
    assert len(report.folded) == 2


def test_without_a_voice_the_style_is_what_counts() -> None:
    own = settings(1, custom_mode=True, instrumental=True, title="Walk")
    after, report = migrate({1: suno(), 2: own, 3: music(context=(2, 0))}, KNOWN)
    assert after["3"]["inputs"]["prompt"] == "slow jazz"
    assert "title = 'Walk' has no counterpart" in report.replaced[0].notes


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        (
            {1: settings(9, custom_mode=True), 3: music(context=(1, 0)), 9: suno()},
            "lyrics to be sung",
        ),
        ({3: music(), 4: show(3, 1)}, "its output 1 is connected to"),
        ({3: music(), 4: Part("TestAPIKeyContext", {}, {"context": (3, 0)})}, "TestAPIKeyContext"),
        ({3: music(), 4: preview(3), 5: show(4, 3)}, "takes Suno's cover, lyrics or answer"),
        (
            {1: provider(), 3: music(context=(1, 0)), 5: show(3, 0)},
            "its context goes to PreviewAny",
        ),
        ({1: provider(), 3: music(context=(1, 0))}, "that node asked Suno only"),
        ({1: Part("Other"), 4: preview(1), 5: save(4)}, "silence without music"),
    ],
)
def test_what_cannot_be_played_stays(parts: dict[int, Part], why: str) -> None:
    stays(parts, why, KNOWN)


def test_lyrics() -> None:
    values = {"prompt": "Rain"}
    lyrics = Part("GenerateLyrics", values, {"context": (1, 0)}, ("*", "STRING"))
    after, report = migrate({1: suno(), 2: lyrics, 3: show(2, 1)}, KNOWN)
    assert after["2"]["class_type"] == "VivaceGenerateText"
    assert after["2"]["inputs"]["engine.model"] == "writer"
    assert after["2"]["inputs"]["prompt"] == "Rain"
    assert after["3"]["inputs"]["source"] == ["2", 0]
    assert [item.node for item in report.folded] == ["1"]
    stays({1: provider(), 2: lyrics}, "that node asked Suno only")


def test_what_a_preview_shows_may_be_anything() -> None:
    after, _ = migrate({1: Part("Other"), 4: preview(1)})
    assert after["4"]["class_type"] == "VivacePreviewOutputs"
    assert after["4"]["inputs"]["values.value0"] == ["1", 0]
