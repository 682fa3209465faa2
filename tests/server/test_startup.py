"""What the pack costs at start-up, as `dev.py startup --json` reports it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from vivace.cli.startup import measure as startup
from vivace.devkit.rig.layout import OUT, ROOT


def work() -> Path:
    """A folder for the servers that are started here."""
    folder = OUT / "startup"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def report(comfyui_folder: Path) -> dict[str, Any]:
    return startup.measure(Path(sys.executable), comfyui_folder, ROOT, work())


def own(stage: dict[str, Any]) -> set[str]:
    """Modules of ours, relative to the pack."""
    return {name.rpartition("ComfyUI-Vivace")[2].lstrip(".") for name in stage["own"]}


def test_import_is_three_modules_of_ours_and_none_of_others(report: dict[str, Any]) -> None:
    assert own(report["import"]) == {"", "lazy_registry", "http_api"}
    assert report["import"]["third_party"] == []


def test_object_info_imports_schemas_only(report: dict[str, Any]) -> None:
    assert own(report["object_info"]) == {
        "defaults",
        "hub",
        "hub.model_check",
        "hub.model_folders",
        "hub.musicgen_folders",
        "lora",
        "lora.files",
        "lora.files.file_types",
        "lora.rows",
        "nodes",
        "nodes.api_key",
        "nodes.choices",
        "nodes.generate_text",
        "nodes.generate_music",
        "nodes.image",
        "nodes.lora",
        "nodes.lora_files",
        "nodes.model_choice",
        "nodes.preview_if",
        "nodes.preview_outputs",
        "nodes.prompt_manager",
        "nodes.qwenvl",
        "nodes.qwenvl_batch",
        "nodes.qwenvl_cache",
        "nodes.qwenvl_download",
        "nodes.resample_audio",
        "nodes.settings",
        "nodes.svdquant",
        "nodes.vlm_inputs",
        "nodes.vlm_values",
        "vlm",
        "vlm.preset_prompts",
    }
    assert report["object_info"]["heavy"] == []
    assert report["object_info"]["third_party"] == []


def test_first_execution_imports_what_the_node_needs(report: dict[str, Any]) -> None:
    assert own(report["execution"]) == {"toolkit", "toolkit.color", "toolkit.images"}


def test_a_bare_interpreter_imports_the_package_alone(report: dict[str, Any]) -> None:
    assert report["bare_interpreter"]["modules"] == 2  # and `__future__`


def test_no_budget_is_broken(report: dict[str, Any]) -> None:
    # Time is `dev.py startup`'s to judge: here other tests run beside.
    counted = [budget for budget in report["broken_budgets"] if "seconds" not in budget]
    assert counted == []
    assert "Within every budget." in startup.as_text(report | {"broken_budgets": counted})


@pytest.mark.long
def test_a_slow_pack_is_found_out(comfyui_folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "slow_pack"
    pack.mkdir()
    (pack / "__init__.py").write_text(
        "import playwright.sync_api\nfrom . import part\nNODE_CLASS_MAPPINGS = {}\n"
    )
    (pack / "part.py").write_text("import time\ntime.sleep(0.3)\n")
    report = startup.measure(Path(sys.executable), comfyui_folder, pack, work())
    assert report["loaded"]
    assert "playwright" in report["import"]["third_party_packages"]
    heaviest = [item["module"] for item in report["import"]["heaviest"]]
    assert any(name.endswith("slow_pack.part") for name in heaviest)
    broken = " ".join(report["broken_budgets"])
    assert "import_third_party_modules" in broken
    assert "import_seconds_as_printed" in broken
    assert "OVER BUDGET" in startup.as_text(report)


def test_a_pack_that_fails_to_import_is_said_to(comfyui_folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "failing_pack"
    pack.mkdir()
    (pack / "__init__.py").write_text("raise RuntimeError('not today')\n")
    report = startup.measure(Path(sys.executable), comfyui_folder, pack, work())
    assert not report["loaded"]
    assert "not today" in report["bare_interpreter"]["error"]
    assert "IMPORT FAILED" in startup.as_text(report)
    assert report["broken_budgets"]
