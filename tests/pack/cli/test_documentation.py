"""The examples of docs/cli.md and of the help, read by the real parser."""

from __future__ import annotations

import re
import shlex

import pytest
from vivace.cli.parser import parse
from vivace.cli.settings import SETTINGS
from vivace.cli.table import COMMANDS, load, split
from vivace.devkit.rig.layout import ROOT

TEXT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(
    part.split("\n", 1) for part in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:] if "\n" in part
)


def commands_in(text: str) -> list[list[str]]:
    """The words of each `vivace` in lines of a shell, without variables, pipes and quotes."""
    found: list[list[str]] = []
    for line in text.splitlines():
        inner = re.search(r"\$\((vivace [^)]*)\)", line)
        words = shlex.split(inner[1] if inner else line.removeprefix("$ "))
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words[:1] == ["vivace"]:
            end = words.index("|") if "|" in words else len(words)
            found.append(words[1:end])
    return found


def examples(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("$ ")]
    return commands_in("\n".join(lines))


def parsed(words: list[str]) -> str:
    """The command that the words call; an error of usage fails the test."""
    name, rest = split(words)
    assert name in COMMANDS, words
    parse(name, load(name).COMMAND, rest)
    return name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name: str) -> None:
    found = examples(SECTIONS[name])
    assert found
    assert {parsed(words) for words in found} == {name}


def test_no_section_is_of_a_command_that_is_gone() -> None:
    assert set(SECTIONS) - {"Starting it"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_of_the_help_parse(name: str) -> None:
    for line, _ in load(name).COMMAND.examples:
        (words,) = commands_in(line)
        assert parsed(words) == name


def test_the_settings_of_the_example_are_settings() -> None:
    block = SECTIONS["config show"].partition("```yaml\n")[2].partition("```")[0]
    names = [line.partition(":")[0] for line in block.splitlines()]
    assert names
    assert set(names) <= set(SETTINGS)
