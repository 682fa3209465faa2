"""One resolver of LoRA names, whoever asks: ComfyUI's nodes, migration or the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from vivace.cli.errors import UsageError
from vivace.cli.stack_words import local_files
from vivace.cli.workflow.build import named_lora
from vivace.lora.files.file_names import LoraNameError, lora_files_below, resolve
from vivace.lora.files.file_types import by_slashes
from vivace.migrate.rules import find_name

LISTED = ["a/ink.sft", "styles\\Oil.safetensors", "twins/one.pt", "others/one.pt"]


def migrated(name: str) -> str:
    return find_name(name, LISTED, [])


def on_command_line(name: str) -> str:
    return by_slashes([named_lora(name, LISTED, "--lora")]).popitem()[0]


def in_nodes(name: str) -> str:
    return resolve(name, by_slashes(LISTED))


@pytest.mark.parametrize("ask", [migrated, on_command_line, in_nodes])
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ink", "a/ink.sft"),
        ("ink.sft", "a/ink.sft"),
        ("a\\ink", "a/ink.sft"),
        ("styles/oil", "styles/Oil.safetensors"),
        ("others/one", "others/one.pt"),
    ],
)
def test_everybody_finds_the_same_file(ask: Callable[[str], str], name: str, meant: str) -> None:
    assert ask(name) == meant


@pytest.mark.parametrize("ask", [migrated, on_command_line])
def test_a_name_of_another_machine_means_its_namesake(ask: Callable[[str], str]) -> None:
    assert ask("elsewhere/ink.safetensors") == "a/ink.sft"
    with pytest.raises(LoraNameError, match=r"Did you mean a/ink\.sft"):
        in_nodes("elsewhere/ink.safetensors")


def test_of_several_none_is_chosen() -> None:
    notes: list[str] = []
    assert find_name("one", LISTED, notes) == "one"
    assert notes == ["several files here have the name 'one'; choose the right one"]
    with pytest.raises(UsageError, match=r"any of others/one\.pt or twins/one\.pt"):
        named_lora("one", LISTED, "--lora")


def test_a_workflows_names_are_found_below_a_folder(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles/ink.sft").touch()
    (tmp_path / "styles/notes.txt").touch()
    assert lora_files_below(tmp_path) == ["styles/ink.sft"]
    assert local_files([("styles\\ink", 0.5)], [tmp_path]) == [(tmp_path / "styles/ink.sft", 0.5)]
