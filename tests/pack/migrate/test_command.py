"""`vivace migrate`, and workflows in pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin
from vivace.cli.main import main

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
V3 = json.loads((GOLDEN / "NunchakuQwenImageLoraStackV3.json").read_text())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    file = tmp_path / "flow.json"
    file.write_text(json.dumps(V3["ui"]["before"]))
    return file


def picture(path: Path, **texts: Any) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, value in texts.items():
        info.add_text(name, value if isinstance(value, str) else json.dumps(value))
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


def test_without_a_target_nothing_is_written(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved.read_bytes()
    assert main(["migrate", str(saved)]) == 0
    assert "2: NunchakuQwenImageLoraStackV3 -> VivaceLoraStack" in capsys.readouterr().out
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_a_new_file_is_written_and_never_over_another(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.json"
    assert main(["migrate", str(saved), "-o", str(out)]) == 0
    assert json.loads(out.read_text()) == V3["ui"]["after"]
    out.write_text("mine")
    assert main(["migrate", str(saved), "-o", str(out)]) == 1
    assert "there already" in capsys.readouterr().out
    assert out.read_text() == "mine"


def test_in_place(saved: Path, tmp_path: Path) -> None:
    assert main(["migrate", str(saved), "--in-place"]) == 0
    assert json.loads(saved.read_text()) == V3["ui"]["after"]
    stamp = saved.stat().st_mtime_ns
    assert main(["migrate", str(saved), "--in-place"]) == 0
    assert saved.stat().st_mtime_ns == stamp  # nothing left to replace, nothing written
    assert list(tmp_path.iterdir()) == [saved]


def test_several_files_go_into_a_folder(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shot = picture(tmp_path / "shot.png", workflow=V3["ui"]["before"], prompt={})
    out = tmp_path / "out"
    status = main(
        ["migrate", str(saved), str(shot), str(tmp_path / "none.json"), "-o", str(out), "--json"]
    )
    assert status == 1
    first, second, third = json.loads(capsys.readouterr().out)
    assert first["replaced"] == second["replaced"] == V3["ui"]["report"]["replaced"]
    assert "there is no such file" in third["error"]
    assert sorted(file.name for file in out.iterdir()) == ["flow.json", "shot.json"]
    assert json.loads((out / "shot.json").read_text()) == V3["ui"]["after"]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(V3["prompt"]["before"]),
        PngImagePlugin.iTXt(json.dumps(V3["prompt"]["before"])),
    ],
    ids=["tEXt", "iTXt"],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_the_prompt_of_a_picture(tmp_path: Path, text: Any, compressed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    add = info.add_itxt if isinstance(text, PngImagePlugin.iTXt) else info.add_text
    add("prompt", str(text), zip=compressed)
    file = tmp_path / "shot.png"
    Image.new("RGB", (4, 4)).save(file, pnginfo=info)
    out = tmp_path / "out.json"
    assert main(["migrate", str(file), "-o", str(out)]) == 0
    assert json.loads(out.read_text()) == V3["prompt"]["after"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a JSON object"),
        (b"[1]", "not a JSON object"),
        (b"\x89PNG\r\n\x1a\n", "no workflow in this picture"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\x09zTXtab\0\0oops!!!!", "a damaged PNG"),
    ],
)
def test_what_cannot_be_read_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, words: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert main(["migrate", str(file)]) == 1
    found = capsys.readouterr().out
    assert words in found
    assert str(file) in found


def test_a_picture_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shot = picture(tmp_path / "shot.png", workflow=V3["ui"]["before"])
    before = shot.read_bytes()
    assert main(["migrate", str(shot), "--in-place"]) == 1
    assert "-o" in capsys.readouterr().out
    assert shot.read_bytes() == before


def test_a_workflow_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file.json"
    file.write_text('{"a": 1}')
    assert main(["migrate", str(file)]) == 0
    assert "neither a workflow of the editor nor a prompt" in capsys.readouterr().out


def test_files_are_found_below_the_models_folder(tmp_path: Path) -> None:
    for name in ("loras/style/vivace-demo-peft.safetensors", "LLM/Qwen-VL/m/config.json"):
        file = tmp_path / "models" / name
        file.parent.mkdir(parents=True)
        file.touch()
    manager = json.loads((GOLDEN / "Lora_Loader_LoraManager.json").read_text())
    flow, out = tmp_path / "flow.json", tmp_path / "out.json"
    flow.write_text(json.dumps(manager["prompt"]["before"]))
    assert main(["migrate", str(flow), "-o", str(out), "--models", str(tmp_path / "models")]) == 0
    rows = json.loads(out.read_text())["2"]["inputs"]["rows"]
    assert rows[0]["lora"] == "style/vivace-demo-peft.safetensors"


def test_the_command_imports_the_standard_library_only() -> None:
    code = (
        "import sys, runpy; sys.argv = ['vivace', 'migrate', '--help']\n"
        "try: runpy.run_module('vivace', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "names = {name.partition('.')[0] for name in sys.modules} - {'vivace'}\n"
        "print(sorted(names & {'torch', 'numpy', 'PIL', 'aiohttp', 'transformers', 'comfy'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert "--in-place" in found.stdout
