"""The files of a prompt library: prompts, the history, and exported prompts.

The first line of the input says which it is, the rest is the file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ....toolkit.json_files import JsonFileError, read_object
from ....toolkit.prompt_bundle import Existing, bundle_of, import_bundle
from ....toolkit.prompt_library import (
    PromptConflictError,
    PromptLibrary,
    PromptLibraryError,
    Run,
    SavedPrompt,
    expand_prompt,
)
from ....toolkit.prompt_template import TemplateError
from .. import scratch
from ..mutations import json_of
from ..refusals import may_refuse

_WORDS = (
    "positive", "negative", "tags", "note", "runs", "name", "seed", "variables", "when",
    "vivace_prompts", "there", "There", "a", "A", "a/b", "A/b", "a.json/b", "con", "x" * 250, "..",
    "{red|green}", "{name}", "portraits/soft light",
)  # fmt: skip
_THERE = SavedPrompt("a {red|green} cat", "rain", ("animal",), "mine")


def target(data: bytes) -> None:
    """Put the file where it belongs, and use the library."""
    kind, _, content = data.partition(b"\n")
    use = _USES.get(kind)
    if use is None:
        return
    with scratch.folder() as folder:
        library = PromptLibrary(folder / "library")
        library.save("there", _THERE)
        use(library, folder, content)


def _prompt(library: PromptLibrary, folder: Path, content: bytes) -> None:
    """A file among the prompts is one, or is reported and stays as it is."""
    path = folder / "library" / "new.json"
    path.write_bytes(content)
    listing = library.list()
    assert len(listing.values) + len(listing.problems) == 2
    assert "there" in listing.values
    new = SavedPrompt("another")
    if "new" not in listing.values:
        for action in (lambda: library.load("new"), lambda: library.save("new", new)):
            with may_refuse(JsonFileError):
                action()
                raise AssertionError("a damaged prompt was taken")
        assert path.read_bytes() == content
        return
    prompt = library.load("new")
    json.dumps(asdict(prompt), allow_nan=False)
    with may_refuse(TemplateError):
        expand_prompt(prompt, {"name": "x"}, 3)
    with may_refuse(PromptConflictError):
        library.save("new", new, overwrite=False)
        raise AssertionError("a prompt was replaced")
    library.save("copy", prompt, revision=None)
    library.save("copy", new, revision=library.load("copy").revision)
    assert library.load("copy") == new


def _history(library: PromptLibrary, folder: Path, content: bytes) -> None:
    """A history is read and added to, or reported and stays as it is."""
    path = folder / "library" / ".history.json"
    path.write_bytes(content)
    runs = None
    with may_refuse(JsonFileError):
        runs = library.history()
        json.dumps([asdict(run) for run in runs], allow_nan=False).encode()
    with may_refuse(JsonFileError):
        library.record(Run("there", "x", "", 1))
        assert runs is not None
        assert library.history()[-1].positive == "x"
        return
    assert path.read_bytes() == content


def _exported(library: PromptLibrary, folder: Path, content: bytes) -> None:
    """All prompts of a file are saved, or none."""
    path = folder / "bundle.json"
    path.write_bytes(content)
    kinds: tuple[Existing, ...] = ("keep", "rename", "replace")
    for existing in kinds:
        before = scratch.contents(folder)
        try:
            done = import_bundle(library, read_object(path) or {}, path, existing)
        except (JsonFileError, PromptLibraryError):
            assert scratch.contents(folder) == before, "some prompts were saved"
            with may_refuse(JsonFileError, PromptConflictError):
                raise
            continue
        listing = library.list()
        assert not listing.problems
        assert set(done.saved) <= listing.values.keys()
    json.dumps(bundle_of(library, library.list().values), allow_nan=False)


_USES: dict[bytes, Callable[[PromptLibrary, Path, bytes], None]] = {
    b"prompt": _prompt,
    b"history": _history,
    b"exported": _exported,
}


def seeds() -> Sequence[bytes]:
    """A file of each kind."""
    prompt = {**asdict(_THERE), "tags": ["animal"]}
    run = asdict(Run("there", "a red cat", "rain", 7, {"name": "x"}, "2026-01-02T03:04:05+00:00"))
    bundle = {"there": prompt, "a": {"positive": "{name}"}, "portraits/b": {"positive": ""}}
    contents = {
        "prompt": prompt, "history": {"runs": [run, run]}, "exported": {"vivace_prompts": bundle},
    }  # fmt: skip
    return [f"{kind}\n{json.dumps(value)}".encode() for kind, value in contents.items()]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change the file; its kind stays."""
    kind, line, content = data.partition(b"\n")
    return kind + line + json_of(content, chance, _WORDS)
