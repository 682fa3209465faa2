"""Preview Outputs and Preview If in the real editor, in both renderers."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from playwright.sync_api import Page
from support.editor import prompt_of, shoot, stack_of
from support.graphs import KOHYA, PEFT, node, row
from support.steady import steady_box
from vivace.devkit.doubles.demo_models import MODEL_FILE, VAE_FILE

VALUES = ".vivace-values"
PLACE = """([kind, width, height]) => app.graph.nodes.forEach((node, place) => {
    const here = node.comfyClass === kind;
    node.pos = here ? [60, 100] : [width + 100 + (place % 2) * 420, 100 + (place >> 1) * 240];
    if (here) node.setSize([width, height]);
    app.canvas.ds.scale = 1;
    app.canvas.ds.offset = [20, 20];
    app.canvas.setDirty(true, true);
})"""


def open_prompt(page: Page, prompt: dict[str, Any], kind: str, width: int, height: int) -> None:
    page.evaluate("prompt => app.loadApiJson(prompt, 'toolkit')", prompt)
    page.wait_for_function("count => app.graph.nodes.length === count", arg=len(prompt))
    page.evaluate(PLACE, [kind, width, height])


def preview(*links: Any) -> dict[str, Any]:
    return node(
        "VivacePreviewOutputs", **{f"values.value{place}": link for place, link in enumerate(links)}
    )


def run(page: Page, kinds: list[str]) -> None:
    page.get_by_test_id("queue-button").click()
    page.wait_for_function(
        """kinds => JSON.stringify([...document.querySelectorAll(".vivace-value")]
            .map(item => item.dataset.kind)) === JSON.stringify(kinds)""",
        arg=kinds,
        timeout=120_000,
    )


def test_what_is_seen_and_heard(editor: Page, renderer: str) -> None:
    prompt = {
        "1": node(
            "VivaceBlankImage",
            width=192,
            height=96,
            batch_size=2,
            color="teal",
            pattern="checker",
        ),
        "2": node("VivaceTestAudio", seconds=0.5, channels=2, sample_rate=8000),
        "3": node("CreateVideo", images=["1", 0], fps=4.0),
        "4": preview(["1", 0], ["1", 1], ["2", 0], ["3", 0]),
    }
    open_prompt(editor, prompt, "VivacePreviewOutputs", 520, 760)
    assert prompt_of(editor)["4"]["inputs"] == {
        **{
            f"values.value{place}": link
            for place, link in enumerate(prompt["4"]["inputs"].values())
        },
        "summary_format": "Markdown",
    }
    run(editor, ["image", "mask", "audio", "video"])
    editor.wait_for_function(
        """() => [...document.querySelectorAll(".vivace-values img")].length === 4
            && [...document.querySelectorAll(".vivace-values img")]
                .every(image => image.naturalWidth === 192)
            && document.querySelector(".vivace-values audio").duration === 0.5
            && document.querySelector(".vivace-values video").videoWidth === 192""",
        timeout=30_000,
    )
    # What the editor would show in the node by itself is not there a second time.
    assert editor.evaluate("() => app.graph.getNodeById(4).imgs?.length ?? 0") == 0
    assert editor.locator(":is(.lg-node, .dom-widget) img[src*='vivace_']").count() == 4
    waveform = editor.locator(".vivace-waveform")
    waveform.hover()  # scrolls to it, and goes on when the editor puts the node elsewhere
    shoot(editor, f"preview-outputs-media-{renderer}")
    box = steady_box(waveform)
    assert box["width"] > 300
    waveform.click(position={"x": box["width"] / 2, "y": 10})
    editor.wait_for_function(
        "() => Math.abs(document.querySelector('.vivace-values audio').currentTime - 0.25) < 0.02"
    )
    editor.wait_for_function(
        "() => Math.abs(document.querySelector('.vivace-playing').getAttribute('x1') - 150) < 12"
    )
    editor.locator(f"{VALUES} video").hover()
    shoot(editor, f"preview-outputs-video-{renderer}")


def test_what_is_read(editor: Page, renderer: str) -> None:
    rows = [row(PEFT, 0.8), row(KOHYA, -0.5)]
    prompt = {
        "1": node("UNETLoader", unet_name=MODEL_FILE, weight_dtype="default"),
        "2": node("VivaceLoraStack", model=["1", 0], rows=rows),
        "3": node("VivaceTestConditioning", seed=1, tokens=12, width=64),
        "4": node("EmptyLatentImage", width=64, height=32, batch_size=2),
        "5": node("PrimitiveFloat", value=0.5),
        "6": node("PrimitiveStringMultiline", value='{"cats": ["Minka", "Tom"]}'),
        "7": node("VAELoader", vae_name=VAE_FILE),
        "8": preview(*([str(number), 0] for number in range(2, 8))),
    }
    open_prompt(editor, prompt, "VivacePreviewOutputs", 520, 760)
    # The editor takes lists in a prompt for links.
    find = "app.graph.getNodeById(2).widgets.find(widget => widget.name === 'rows')"
    editor.evaluate(f"rows => {{ {find}.value = rows; }}", rows)
    sent = stack_of(prompt_of(editor))["rows"]["__value__"]
    assert [item["lora"] for item in sent] == [PEFT, KOHYA]
    run(editor, ["model", "conditioning", "latent", "number", "text", "vae"])
    view = editor.locator(VALUES)
    view.get_by_text(f"{PEFT}, strength 0.8").wait_for()
    view.locator("pre", has_text='"Minka"').wait_for()
    assert view.get_by_text("Number: 0.5", exact=True).count() == 1
    shoot(editor, f"preview-outputs-text-{renderer}")
    view.get_by_text("VAE:").scroll_into_view_if_needed()
    shoot(editor, f"preview-outputs-text-end-{renderer}")


def test_it_grows_by_its_connections_and_keeps_what_it_showed(editor: Page) -> None:
    editor.evaluate(
        """() => {
            const make = (type) => {
                const node = LiteGraph.createNode(type);
                app.graph.add(node);
                return node;
            };
            const [image, show] = [make("VivaceBlankImage"), make("VivacePreviewOutputs")];
            image.pos = [600, 60];
            show.pos = [40, 60];
            image.connect(0, show, 0);
            image.connect(1, show, 1);
        }"""
    )
    editor.wait_for_function(
        "() => app.graph.nodes.at(-1).inputs.filter(i => i.name.startsWith('values.')).length === 3"
    )
    run(editor, ["image", "mask"])
    # Another tab and back: the editor keeps the result, and so does the view.
    editor.evaluate("async () => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    editor.wait_for_function("() => !document.querySelector('.vivace-value')")
    editor.evaluate(
        "async () => app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')"
    )
    editor.wait_for_function("() => document.querySelectorAll('.vivace-value').length === 2")


def test_preview_if_shows_and_names_files(editor: Page, renderer: str, server: Any) -> None:
    prompt = {
        "1": node("VivaceBlankImage", width=96, height=64, batch_size=1, color="teal"),
        "2": node(
            "VivacePreviewIf",
            condition=True,
            image=["1", 0],
            action="preview and save",
            filename_prefix=f"{renderer}/%date:yyyy-MM-dd%-%Wide.width%",
        ),
    }
    open_prompt(editor, prompt, "VivacePreviewIf", 320, 420)
    editor.evaluate("() => { app.graph.getNodeById(1).title = 'Wide'; }")
    named = prompt_of(editor)["2"]["inputs"]["filename_prefix"]
    assert named == f"{renderer}/{datetime.now().astimezone():%Y-%m-%d}-96"
    assert re.search(r"%date", editor.evaluate("() => JSON.stringify(app.graph.serialize())"))
    editor.get_by_test_id("queue-button").click()
    # On the canvas the image is no element.
    images = "[...document.images, ...(app.graph.getNodeById(2).imgs ?? [])]"
    shown = f"image.src.includes('subfolder={renderer}') && image.naturalWidth === 96"
    editor.wait_for_function(f"() => {images}.some(image => {shown})", timeout=60_000)
    editor.wait_for_timeout(500)
    shoot(editor, f"preview-if-{renderer}")
    files = [path.name for path in (server.work / "output" / renderer).iterdir()]
    assert files == [f"{named.rpartition('/')[2]}_00001_.png"]
