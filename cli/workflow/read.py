"""A workflow from a file, as a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...migrate.files import read_workflow
from ..errors import CliError
from ..server.http import Server
from .convert import Prompt, is_prompt, to_prompt


def read_prompt(path: Path, server: Server) -> tuple[Prompt, dict[str, Any], list[str]]:
    """The prompt in a file: JSON of either format, or a picture that ComfyUI made.

    Returns:
        The prompt; what to embed in new pictures beside it (the workflow, where there is one);
        remarks for people.

    Raises:
        JsonFileError: the file is missing or damaged.
        CliError: it is no workflow, or the server lacks its nodes.
    """
    # A picture's prompt is exactly what made it.
    data = read_workflow(path, ("prompt", "workflow"))
    if isinstance(data.get("prompt"), dict) and is_prompt(data["prompt"]):
        data = data["prompt"]  # the body of a request to /prompt
    if isinstance(data.get("nodes"), list):
        prompt, remarks = to_prompt(data, server.object_info())
        return prompt, {"workflow": data}, remarks
    if not is_prompt(data):
        problem = f"{path} is neither a workflow of the editor nor a prompt for the server"
        raise CliError(problem, "Save it with Workflow > Save, or > Export (API)")
    return data, {}, []
