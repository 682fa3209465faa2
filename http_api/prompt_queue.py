"""Completes Prompt Manager nodes in a `POST /prompt` before it is queued.

A node that has but the name of a saved prompt gets its texts. So the history and the images have
the texts themselves, and the prompt gives the same again when the library has changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..nodes.prompt_manager import DEFAULT_USER, USER, library_path
from ..toolkit.prompt_library import PromptLibrary


def complete(nodes: Iterable[dict[str, Any]], user: str) -> None:
    """Put texts and the user into the inputs of such nodes, in place.

    What cannot be loaded stays as it is: the node says why when it runs.
    """
    for inputs in nodes:
        inputs.pop(USER, None)  # whoever asks has no say in whose library it is
        if user != DEFAULT_USER:
            inputs[USER] = user
        name = inputs.get("prompt")
        if not isinstance(name, str) or not name:
            continue
        if inputs.get("positive", "") == "" and inputs.get("negative", "") == "":
            try:
                prompt = PromptLibrary(library_path(user)).load(name)
            except ValueError:
                continue
            inputs.update(positive=prompt.positive, negative=prompt.negative)
