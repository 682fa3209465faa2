"""Stacks of LoRAs as commands take them: files with strengths, or those of a workflow."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..lora.files.file_names import LoraNameError, lora_files_below, resolve
from ..lora.rows import RowError, parse_rows
from .errors import CliError, UsageError
from .lora_sources import source
from .parser import did_you_mean
from .workflow.convert import Prompt
from .workflow.read import read_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .output import Output
    from .server.http import Server

Stack = list[tuple[str, float]]
_STACK, _LOADER = "VivaceLoraStack", "VivaceLoraLoader"
_WORKFLOWS = (".json", ".png")


def read_stack(
    words: Sequence[str], node: str | None, server: Callable[[], Server], out: Output
) -> Stack:
    """The LoRAs that words of the command line name, each with its strength.

    Args:
        words: LoRA files with their strengths, or one workflow.
        node: id or title of the workflow's node that has the stack, if it has several.
        server: asked about its nodes if a workflow comes from the editor.

    Raises:
        UsageError: words of both kinds, or a strength that is no number.
        CliError: the workflow has no stack, or one that is only known when it runs.
    """
    workflows = [word for word in words if word.lower().endswith(_WORKFLOWS)]
    if not workflows:
        if node is not None:
            raise UsageError("--node goes with a workflow", "Leave it out")
        return [(str(path), strength) for path, strength in map(source, words)]
    if len(words) > 1:
        problem = "A workflow stands for the whole stack"
        raise UsageError(problem, "Give one workflow, or LoRA files")
    prompt, _, remarks = read_prompt(Path(words[0]).expanduser(), server())
    for remark in remarks:
        out.note(remark)
    return _of_workflow(prompt, node, words[0])


def _of_workflow(prompt: Prompt, wanted: str | None, name: str) -> Stack:
    titles = {
        id_: str((node.get("_meta") or {}).get("title") or node["class_type"])
        for id_, node in prompt.items()
        if node["class_type"] in (_STACK, _LOADER)
    }
    if not titles:
        raise CliError(f"{name} has no LoRA Stack", "Name the LoRA files instead")
    shown = ", ".join(f"{id_} ({title})" for id_, title in titles.items())
    found = list(titles)
    if wanted is not None:
        found = [wanted] if wanted in titles else [i for i in titles if titles[i] == wanted]
        if not found:
            hint = did_you_mean(wanted, [*titles, *titles.values()])
            raise UsageError(f"{name} has no LoRA Stack '{wanted}'{hint}", f"It has {shown}")
    if len(found) > 1:
        raise UsageError(f"{name} has several LoRA Stacks", f"Choose with --node: {shown}")
    return _rows(prompt[found[0]], f"{name}, {titles[found[0]]} ({found[0]})")


def _rows(node: dict[str, object], place: str) -> Stack:
    inputs = node["inputs"]
    if not isinstance(inputs, dict):
        raise CliError(f"{place} is damaged", "Save the workflow again")
    linked = [name for name in ("lora_stack", "text") if inputs.get(name)]
    if linked:
        problem = f"{place} gets LoRAs by its input {linked[0]} when it runs"
        raise CliError(problem, "Put them into its rows, or name the LoRA files instead")
    if node["class_type"] == _LOADER:
        return [(str(inputs.get("lora")), _strength(inputs.get("strength", 1.0), place))]
    try:
        rows = parse_rows(inputs.get("rows"))
    except RowError as error:
        raise CliError(f"{place}: {error}") from None
    stack = [(row.lora, row.strength) for row in rows if row.on and row.strength]
    if not stack:
        raise CliError(f"{place} has no LoRA that is on", "Switch one on")
    return stack


def _strength(value: object, place: str) -> float:
    if isinstance(value, int | float):
        return float(value)
    problem = f"{place} gets its strength from another node when it runs"
    raise CliError(problem, "Name the LoRA file with its strength instead")


def local_files(stack: Stack, folders: Sequence[Path]) -> list[tuple[Path, float]]:
    """The files of a stack on this machine: as they are named, or in folders of LoRAs.

    Raises:
        CliError: one is nowhere.
    """
    found = []
    for name, strength in stack:
        path = Path(name).expanduser()
        if not path.is_file():
            path = next(_below(folders, name), None)
        if path is None:
            where = " and ".join(map(str, folders))
            problem = f"There is no LoRA {name}{f' here, nor in {where}' if where else ''}"
            raise CliError(problem, "Name the file with its folder, or ComfyUI's with --models")
        found.append((path, strength))
    return found


def _below(folders: Sequence[Path], name: str) -> Iterator[Path]:
    """What a name means in each of the folders, where it means one file."""
    for folder in folders:
        with suppress(LoraNameError):
            yield folder / resolve(name, lora_files_below(folder))
