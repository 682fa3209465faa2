"""Everything of the pack that writes files, each with what its folder holds before and after."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from support.faults import Points, each_point
from support.file_faults import disk_full, kill, writes
from vivace.cli.contact_sheet import write_sheet
from vivace.cli.training.curve import write_curve
from vivace.lora.rows import LoraRow
from vivace.svdquant.save import write_converted
from vivace.toolkit.json_files import JsonFileError, write_object
from vivace.toolkit.prompt_bundle import bundle_of, import_bundle
from vivace.toolkit.prompt_library import PromptLibrary, Run, SavedPrompt
from vivace.toolkit.stack_presets import StackPresets
from vivace.vlm.caption_folder import CaptionError, write_caption

OLD, NEW = SavedPrompt("old text", tags=("a",)), SavedPrompt("new text", "negative")
TENSORS = {"a": torch.arange(1000.0), "b": torch.ones(3, 3)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def restore(folder: Path, files: dict[str, bytes]) -> None:
    for path in list(folder.rglob("*")):
        if path.is_file() and path.name != ".lock":
            path.unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


class Written:
    """Checks one writer, of what its folder holds before and after.

    Args:
        folder: all of its files.
        write: what is to be done.
        errors: what it may raise; the message must name a file and the reason.
        several: whether it writes several files, which take their places one after the other.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[], object],
        errors: type[Exception] | None,
        several: bool = False,
    ) -> None:
        self.folder, self.errors, self.several = folder, errors, several
        self.before = contents(folder)
        write()
        self.wanted = contents(folder)
        assert self.wanted != self.before, "it writes nothing"
        self.write = write
        self._met: str | None = None

    def check(self, lasting: bool) -> list[str]:
        return each_point(
            self._writes,
            disk_full,
            self.write,
            self._after,
            before=lambda: restore(self.folder, self.before),
            lasting=lasting,
        )

    @contextmanager
    def _writes(self, points: Points) -> Iterator[None]:
        with writes(points, self.folder):
            try:
                yield
            finally:
                self._met = points.met

    def _after(self, error: BaseException | None) -> None:
        found = contents(self.folder)
        for name, content in found.items():
            assert content in (self.before.get(name), self.wanted.get(name)), f"half of {name}"
        placing = self.several and self._met is not None and self._met.startswith("replace ")
        assert placing or found in (self.before, self.wanted)
        if self.errors is None:
            assert error is None
        elif error is not None:
            assert isinstance(error, self.errors)
            assert "No space left on device" in str(error)
        else:
            assert found == self.wanted
        self.write()
        assert contents(self.folder) == self.wanted


def killed(written: Written) -> int:
    """Kill the process that writes at every step; the number of steps."""
    counted = Points(None, kill)
    restore(written.folder, written.before)
    with writes(counted, written.folder):
        written.write()
    for at in range(len(counted.passed)):
        restore(written.folder, written.before)
        _die_at(at, written)
        known = {**written.before, **written.wanted}
        for name, content in contents(written.folder).items():
            if name in known:
                whole = content in (written.before.get(name), written.wanted.get(name))
                assert whole, f"half of {name} after a kill at {counted.passed[at]}"
            else:
                assert Path(name).name.startswith(".") or name.endswith(".part"), name
        written.write()
        found = contents(written.folder)
        assert {name: found.get(name) for name in written.wanted} == written.wanted
    return len(counted.passed)


def _die_at(at: int, written: Written) -> None:
    process = os.fork()
    if process == 0:
        try:
            with writes(Points(at, kill), written.folder):
                written.write()
        finally:
            os._exit(1)  # it should not have come here
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def library(folder: Path) -> PromptLibrary:
    made = PromptLibrary(folder)
    made.save("cat", OLD)
    made.record(Run("cat", "a", "", 1, when="2026-01-01T00:00:00+00:00"))
    return made


def save(folder: Path) -> Written:
    prompts = library(folder)
    return Written(folder, lambda: prompts.save("cat", NEW), JsonFileError)


def save_deep(folder: Path) -> Written:
    prompts = library(folder)
    return Written(folder, lambda: prompts.save("a/b/dog", NEW), JsonFileError)


def record(folder: Path) -> Written:
    prompts = library(folder)
    made = Run("cat", "b", "", 2, when="2026-01-01T00:00:00+00:00")

    def write() -> None:
        if len(prompts.history()) == 1:
            prompts.record(made)

    return Written(folder, write, JsonFileError)


def forget(folder: Path) -> Written:
    return Written(folder, library(folder).forget_history, JsonFileError)


def rename(folder: Path) -> Written:
    prompts = library(folder)

    def write() -> None:
        if "cat" in prompts.list().values:
            prompts.rename("cat", "animals/cat")

    return Written(folder, write, JsonFileError)


def bring(folder: Path) -> Written:
    prompts = library(folder)
    bundle = {"vivace_prompts": {"cat": {"positive": "x"}, "b/dog": {"positive": "y"}}}
    return Written(
        folder,
        lambda: import_bundle(prompts, bundle, Path("bundle.json"), "replace"),
        JsonFileError,
        several=True,
    )


def export(folder: Path) -> Written:
    prompts = library(folder / "library")
    return Written(
        folder,
        lambda: write_object(folder / "out" / "cat.json", bundle_of(prompts, ["cat"])),
        JsonFileError,
    )


def stack(folder: Path) -> Written:
    presets = StackPresets(folder)
    presets.save("one", [LoraRow("a.safetensors", 1.0)])
    return Written(
        folder, lambda: presets.save("one", [LoraRow("b.safetensors", 0.5)]), JsonFileError
    )


def stacks(folder: Path) -> Written:
    presets = StackPresets(folder)
    bundle = {"vivace_stacks": {name: [{"on": True, "lora": "a", "strength": 1}] for name in "abc"}}
    return Written(
        folder, lambda: presets.import_bundle(bundle, overwrite=True), JsonFileError, several=True
    )


def caption(folder: Path) -> Written:
    (folder / "0.txt").write_text("old\n")
    image = folder / "0.png"
    return Written(folder, lambda: write_caption(image, "a cat", "append"), CaptionError)


def conversion(folder: Path) -> Written:
    path = folder / "model.kitchen.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    return Written(folder, lambda: write_converted(path, TENSORS, {"format": "pt"}), OSError)


def curve(folder: Path) -> Written:
    return Written(folder, lambda: write_curve(folder / "loss.png", [3.0, 2.0, 1.0]), OSError)


def sheet(folder: Path) -> Written:
    from PIL import Image

    Image.new("RGB", (8, 8), "red").save(folder / "0.png")
    return Written(
        folder, lambda: write_sheet(folder / "all.png", [("one", folder / "0.png")]), OSError
    )


WRITERS = {
    made.__name__: made
    for made in (
        *(save, save_deep, record, forget, rename, bring, export, stack, stacks),
        *(caption, conversion, curve, sheet),
    )
}
