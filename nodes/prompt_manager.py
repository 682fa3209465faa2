"""Prompt Manager: a prompt of the library or of one's own, with variables and alternatives."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..defaults import DEFAULTS

FOLDER = "vivace/prompts"  # below the folder of a ComfyUI user
USER = "user"  # in a prompt, whose library is meant; `prompt_queue.py` writes it there
DEFAULT_USER = "default"

log = logging.getLogger(__name__)
_DEFAULTS = DEFAULTS["VivacePromptManager"]


class PromptManager(io.ComfyNode):
    """A positive and a negative text."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="VivacePromptManager",
            display_name="Prompt Manager",
            category="Vivace/Text",
            description=(
                "A positive and a negative prompt, kept by name in a library with folders, tags and"
                " a history of what was run. Variables and alternatives in them are filled in by"
                " the seed: the same text, values and seed give the same prompt everywhere."
            ),
            search_aliases=[
                "prompt library",
                "prompt",
                "wildcard",
                "dynamic prompt",
                "styles",
                "saved prompts",
                "vivace",
            ],
            inputs=[
                io.String.Input(
                    "prompt",
                    default=_DEFAULTS["prompt"],
                    optional=True,
                    tooltip=(
                        "Name of a saved prompt, with its folders: portraits/soft light. Its texts"
                        " are taken if both texts below are empty; else it only names them."
                    ),
                ),
                _text_input(
                    "positive",
                    "What the image shall show. A word in braces is a variable; texts in braces,"
                    " with bars between them, are alternatives. Write a backslash before a brace or"
                    " bar that is meant as it is.",
                ),
                _text_input("negative", "What it shall not show, in the same way."),
                _text_input(
                    "variables",
                    "Values of the variables, one a line, as name = value; or a JSON object.",
                ),
                io.Int.Input(
                    "seed",
                    default=_DEFAULTS["seed"],
                    min=0,
                    max=2**64 - 1,
                    optional=True,
                    control_after_generate=True,
                    tooltip="Chooses among alternatives; the same seed always chooses the same.",
                ),
            ],
            outputs=[
                io.String.Output(display_name="positive", tooltip="The text as it is to be used."),
                io.String.Output(display_name="negative", tooltip="The negative text, likewise."),
                io.String.Output(display_name="name", tooltip="Of the prompt; empty without one."),
                io.Int.Output(display_name="seed", tooltip="The seed that chose."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(
        cls, prompt: Any = None, positive: Any = None, negative: Any = None, variables: Any = None
    ) -> bool | str:
        from ..toolkit.prompt_names import check_name
        from ..toolkit.prompt_template import variable_names
        from ..toolkit.prompt_variables import parse_variables

        given = {
            "prompt": (prompt, check_name),
            "positive": (positive, variable_names),
            "negative": (negative, variable_names),
            "variables": (variables, parse_variables),
        }
        for name, (value, check) in given.items():
            if value is None or value == "":  # a link, or nothing
                continue
            if not isinstance(value, str):
                return f"{name} must be a text"
            try:
                check(value)
            except ValueError as error:
                return f"{name}: {error}"
        return True

    @classmethod
    def fingerprint_inputs(
        cls, prompt: Any = "", positive: Any = "", negative: Any = "", **_: Any
    ) -> Any:
        # What the library has for the name may have changed; links are None here.
        return float("nan") if prompt != "" and positive == negative == "" else ""

    @classmethod
    def execute(
        cls,
        prompt: str = _DEFAULTS["prompt"],
        positive: str = _DEFAULTS["positive"],
        negative: str = _DEFAULTS["negative"],
        variables: str = _DEFAULTS["variables"],
        seed: int = _DEFAULTS["seed"],
    ) -> io.NodeOutput:
        from ..toolkit.prompt_library import PromptLibrary, Run, SavedPrompt, expand_prompt
        from ..toolkit.prompt_variables import parse_variables

        library = PromptLibrary(library_path(_user(cls.hidden)))
        chosen = SavedPrompt(positive, negative)
        if prompt and not positive and not negative:
            chosen = library.load(prompt)
        values = parse_variables(variables)
        texts = expand_prompt(chosen, values, seed)
        try:
            library.record(Run(prompt, *texts, seed, values))
        except ValueError as error:
            log.warning("Vivace: the history of prompts was not kept: %s", error)
        shown = {"positive": texts[:1], "negative": texts[1:]}
        return io.NodeOutput(*texts, prompt, seed, ui=shown)


def library_path(user: str) -> Path:
    """The folder of a ComfyUI user's prompts.

    Raises:
        ValueError: there can be no such user.
    """
    folder = folder_paths.get_public_user_directory(user)
    # The name may come from a prompt that did not pass the server's check of users.
    if folder is None or Path(user).name != user or user == "..":
        raise ValueError("this user has no folder for prompts")
    return Path(folder) / FOLDER


def _text_input(name: str, tooltip: str) -> Any:
    return io.String.Input(
        name,
        multiline=True,
        default=_DEFAULTS[name],
        optional=True,
        dynamic_prompts=False,  # or the editor would choose among alternatives, at random
        tooltip=tooltip,
    )


def _user(hidden: Any) -> str:
    node = (hidden.prompt or {}).get(str(hidden.unique_id)) or {}
    return node.get("inputs", {}).get(USER, DEFAULT_USER)
