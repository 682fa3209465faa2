"""The encoder as an ONNX file: real exports, run by onnxruntime."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from vivace.devkit.doubles.small_vlm import FAMILIES, processor, stock_model, text_model, tokenizer
from vivace.vlm.onnx import onnx_export
from vivace.vlm.onnx.onnx_check import OutputError, Sample, check_errors, output_errors, samples_of
from vivace.vlm.onnx.onnx_export import OnnxError, export_encoder, output_names
from vivace.vlm.onnx_command import main
from vivace.vlm.vision.grid_tables import grid_tables
from vivace.vlm.vision.vision_tower import VisionTower

from .conftest import build_tower

GRID = (6, 10)  # windows are 8 patches wide, so that some are cut off
SIZE = ("--width", "140", "--height", "84")  # the same at 14 pixels a patch


def short_tower(family: str, seed: int = 0) -> VisionTower:
    """Two blocks, one of them with windows where there are any: exporting takes long."""
    module: Any = build_tower(family, seed).requires_grad_(False)
    module.blocks = module.blocks[:2]
    if family == "qwen3_vl":
        module.deepstack_visual_indexes = [0, 1]
        module.deepstack_merger_list = module.deepstack_merger_list[:2]
    return VisionTower(module, "off")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Makes the file of a family's tower, once."""

    @cache
    def export(family: str) -> Path:
        path = tmp_path_factory.mktemp("onnx") / f"{family}.onnx"
        export_encoder(short_tower(family), path, GRID, {"model": family})
        return path

    return export


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2.5-VL as it is stored."""
    path = tmp_path_factory.mktemp("models") / "small"
    stock_model("qwen2_5_vl").save_pretrained(path)
    processor("qwen2_5_vl").save_pretrained(path)
    return path


def metadata_of(path: Path) -> dict[str, str]:
    import onnxruntime

    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_computes_what_torch_computes(
    family: str, exported: Callable[[str], Path]
) -> None:
    tower = short_tower(family)
    samples = {*samples_of(tower, *GRID), Sample(5, *GRID)}
    if not tower.geometry.window:
        samples |= {Sample(1, 2, 2), Sample(2, 12, 4), Sample(1, 16, 24)}
    found = output_errors(exported(family), tower, samples)
    assert set(found) == samples
    for errors in found.values():
        assert [error.name for error in errors] == output_names(tower.geometry)
        assert len(errors) == 1 + len(tower.geometry.deepstack_layers)
        assert max(error.relative for error in errors) < 1e-5
        check_errors(errors, torch.float32)


@pytest.mark.parametrize("family", FAMILIES)
def test_other_weights_are_noticed(family: str, exported: Callable[[str], Path]) -> None:
    other = short_tower(family, seed=1)
    (errors,) = output_errors(exported(family), other, [Sample(1, *GRID)]).values()
    for error in errors:
        with pytest.raises(OnnxError, match=rf"Of {error.name}, .* differ from torch's by"):
            check_errors([error], torch.float16)
    with pytest.raises(OnnxError, match="nan"):
        check_errors([OutputError("features", float("nan"), float("nan"))], torch.float32)


def test_one_wrong_layer_shows_where_it_is_seen(exported: Callable[[str], Path]) -> None:
    tower = short_tower("qwen3_vl")
    module: Any = tower.module
    module.deepstack_merger_list[1].linear_fc2.bias.add_(1.0)
    (errors,) = output_errors(exported("qwen3_vl"), tower, [Sample(1, *GRID)]).values()
    assert [error.name for error in errors if error.relative > 1e-3] == ["deepstack_1"]


def test_the_metadata_tell_how_to_make_the_tables(exported: Callable[[str], Path]) -> None:
    said = metadata_of(exported("qwen3_vl"))
    tower = short_tower("qwen3_vl")
    frequencies = torch.tensor(json.loads(said["rotary_frequencies"]))
    merge, side = int(said["merge_size"]), int(said["position_side"])
    rebuilt = grid_tables(4, 6, merge, frequencies, position_side=side)
    names = json.loads(said["inputs"])
    assert names == ["pixel_values", "cos", "sin", "taps", "tap_weights"]
    for name in names[1:]:
        assert torch.equal(getattr(rebuilt, name), getattr(tower.tables(4, 6), name))
    assert (said["model"], said["grid"]) == ("qwen3_vl", "any")
    assert json.loads(said["outputs"]) == output_names(tower.geometry)
    assert said["torch_version"].split("+")[0] == torch.__version__.split("+")[0]
    said = metadata_of(exported("qwen2_5_vl"))
    assert json.loads(said["grid"]) == [6, 10]
    assert json.loads(said["inputs"]) == ["pixel_values"]


def test_the_command(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnx_export, "SINGLE_FILE_BYTES", 0)
    output = tmp_path / "encoder.onnx"
    assert main([str(folder), str(output), *SIZE, "--dtype", "float16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"{output}: written, for 140 x 84 pixels"
    assert [line.split(":")[0] for line in lines[:-1]] == [
        "1 x 6 x 10 patches, features",
        "3 x 6 x 10 patches, features",
    ]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "encoder.onnx",
        "encoder.onnx.data",
    ]
    assert output.stat().st_size < output.with_name("encoder.onnx.data").stat().st_size
    said = metadata_of(output)
    assert said["model"].startswith("small@#")
    assert (said["model_type"], said["dtype"]) == ("qwen2_5_vl", "float16")
    # The file beside a tower that was not loaded by the code that made it.
    tower = VisionTower(stock_model("qwen2_5_vl").model.visual, "off")
    frames = torch.randn(2, 60, 1176)
    session = onnxruntime.InferenceSession(output)
    (found,) = session.run(None, {"pixel_values": frames.half().numpy()})
    expected = tower.encode(frames.flatten(0, 1), (2, *GRID))[0, 0].view(2, 15, -1)
    error = (torch.from_numpy(found).float() - expected).abs().max() / expected.abs().max()
    assert error < 0.01


def test_a_wrong_graph_is_not_written(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    exported: Callable[[str], Path],
) -> None:
    def other_weights(tower: VisionTower, path: Path, *arguments: object) -> None:
        path.write_bytes(exported("qwen2_5_vl").read_bytes())

    monkeypatch.setattr(onnx_export, "export_encoder", other_weights)
    output = tmp_path / "encoder.onnx"
    output.write_bytes(b"the one before")
    assert main([str(folder), str(output), *SIZE, "--overwrite"]) == 1
    assert "differ from torch's by" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx"]
    assert output.read_bytes() == b"the one before"
    monkeypatch.setattr(onnx_export, "export_encoder", lambda tower, path, *_: path.write_text("?"))
    assert main([str(folder), str(tmp_path / "new.onnx"), *SIZE]) == 1
    assert "cannot run the exported graph" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["encoder.onnx"]


def test_outputs_that_cannot_be_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "encoder.onnx"
    (tmp_path / "encoder.onnx.data").write_bytes(b"weights")
    for path, message in (
        (output, "encoder.onnx.data: exists. Choose another name, or give --overwrite"),
        (tmp_path / "none" / "encoder.onnx", "none: there is no such folder"),
        (tmp_path, "is a folder. Choose another name"),
    ):
        assert main([str(folder), str(path), *SIZE]) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "encoder.onnx.data").read_bytes() == b"weights"
    with pytest.raises(SystemExit):
        main([str(folder), str(output), "--width", "140"])
    assert "belong together" in capsys.readouterr().err
    assert main([str(folder), str(tmp_path / "new.onnx"), "--width", "0", "--height", "84"]) == 1
    assert "image is empty (0x84 pixels)" in capsys.readouterr().err


def test_models_that_cannot_be_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stock: Any = text_model().model
    stock.save_pretrained(tmp_path / "text")
    tokenizer().save_pretrained(tmp_path / "text")
    output = str(tmp_path / "encoder.onnx")
    assert main([str(tmp_path / "text"), output]) == 1
    assert "takes no images. Choose a Qwen-VL model" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), output]) == 1
    assert "config.json is missing" in capsys.readouterr().err


@pytest.mark.parametrize("package", onnx_export.PACKAGES)
def test_missing_packages_are_named(
    package: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = onnx_export.find_spec
    monkeypatch.setattr(onnx_export, "find_spec", lambda n: None if n == package else real(n))
    assert main([str(folder), str(tmp_path / "encoder.onnx")]) == 1
    shown = capsys.readouterr().err
    assert f"Not installed: {package}. " in shown
    assert 'pip install ".[onnx]"' in shown


def test_what_torch_cannot_export(
    tmp_path: Path, make_tower: Callable[..., torch.nn.Module]
) -> None:
    class Sized(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            return hidden * float(hidden.sum())  # the graph would depend on what is in the image

    module: Any = make_tower("qwen2_5_vl")
    module.blocks[0].mlp = Sized()
    with pytest.raises(OnnxError, match="cannot export a Qwen2_5_VisionTransformer"):
        export_encoder(VisionTower(module, "off"), tmp_path / "encoder.onnx", GRID, {})
    assert not list(tmp_path.iterdir())


def test_help_is_shown_without_torch() -> None:
    code = (
        "import sys; from vivace.vlm.onnx_command import main\n"
        "try: main(['--help'])\n"
        "finally: print('heavy:', sorted({'torch', 'onnx', 'transformers'} & set(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "MODEL_FOLDER OUTPUT.onnx" in shown
    assert shown.endswith("heavy: []\n")
