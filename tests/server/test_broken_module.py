"""One module of ours that cannot be imported, in a real server: everything else works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.graphs import PEFT, SOME_WEIGHT, node, row, stack_prompt
from support.published import server_with
from vivace.devkit.rig.client import ComfyClient, PromptFailedError, PromptRejectedError
from vivace.devkit.rig.layout import OUT
from vivace.devkit.rig.published import copy_pack
from vivace.devkit.rig.server import ComfyServer

PACK = "Vivace-broken"


@pytest.fixture(scope="module")
def broken(comfyui_folder: Path, models: Path) -> Iterator[ComfyServer]:
    """A server with a copy of the pack whose `nodes/image.py` needs a package that is not there."""
    work = OUT / "tests" / "broken"
    shutil.rmtree(work, ignore_errors=True)
    pack = work / "custom_nodes" / PACK
    copy_pack(pack)
    image = pack / "nodes" / "image.py"
    imports = "from comfy_api.latest import io"
    source = image.read_text()
    assert imports in source
    image.write_text(source.replace(imports, f"import frobnicate_not_installed\n{imports}"))
    with server_with(pack, work, comfyui_folder) as server:
        server.wait_until_ready()
        yield server


def test_the_node_is_shown_and_says_why(broken: ComfyServer) -> None:
    info = ComfyClient(broken.url).get_json("/object_info")
    blank = info["VivaceBlankImage"]
    assert blank["display_name"] == "Blank Image"
    assert blank["output"] == ["IMAGE", "MASK"]
    assert "No module named 'frobnicate_not_installed'" in blank["description"]
    assert "pip install frobnicate_not_installed" in blank["description"]
    assert info["VivaceLoraStack"]["description"].startswith("Applies any number")


def test_the_log_has_the_real_traceback(broken: ComfyServer) -> None:
    ComfyClient(broken.url).get_json("/object_info")
    assert broken.log is not None
    log = broken.log.read_text()
    assert "import frobnicate_not_installed" in log
    assert "(IMPORT FAILED)" not in log


def test_queueing_or_running_it_raises_the_message(broken: ComfyServer) -> None:
    client = ComfyClient(broken.url)
    blank = node("VivaceBlankImage", width=8, height=8, batch_size=1, color="red")
    with pytest.raises(PromptRejectedError, match="frobnicate_not_installed") as refusal:
        client.queue({"1": blank, "2": node("PreviewImage", images=["1", 0])})
    assert "pip install" in refusal.value.messages("1")
    prompt = {"1": node("VivaceImageIsEmpty"), "2": node("PreviewAny", source=["1", 2])}
    with pytest.raises(PromptFailedError, match="pip install frobnicate_not_installed"):
        client.run(prompt)


def test_every_other_node_works(broken: ComfyServer) -> None:
    outputs = ComfyClient(broken.url).run(stack_prompt([row(PEFT, 0.5)]))
    assert outputs["weights"]["patched"] == [4]
    assert outputs["weights"]["files"], SOME_WEIGHT
