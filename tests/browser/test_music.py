"""Generate Music in the real editor, with a small model."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page
from support.editor import prompt_of, shoot


def test_the_editor_runs_and_plays_it(editor: Page, renderer: str) -> None:
    editor.evaluate(
        """() => {
            const music = LiteGraph.createNode("VivaceGenerateMusic");
            const player = LiteGraph.createNode("PreviewAudio");
            app.graph.add(music);
            app.graph.add(player);
            [music.pos, player.pos] = [[100, 100], [700, 100]];
            const set = (name, value) => {
                music.widgets.find(widget => widget.name === name).value = value;
            };
            set("model", "small-stereo");
            set("prompt", "warm piano");
            set("duration", 0.4);
            music.connect(0, player, 0);
            app.canvas.ds.scale = 1;
            app.canvas.ds.offset = [0, 60];
        }"""
    )
    inputs = next(
        item["inputs"]
        for item in prompt_of(editor).values()
        if item["class_type"] == "VivaceGenerateMusic"
    )
    assert (inputs["duration"], inputs["overlap"], inputs["include_given"]) == (0.4, 12, True)
    editor.evaluate("() => app.queuePrompt(0)")
    # In one go: the player may be made anew.
    lasts = editor.wait_for_function(
        "() => [...document.querySelectorAll('audio')].map(a => a.duration).find(s => s > 0.39)",
        timeout=60_000,
    ).json_value()
    assert lasts == pytest.approx(0.4, abs=1e-3)
    shoot(editor, f"generate-music-{renderer}")
