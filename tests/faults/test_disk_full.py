"""A full disk at every step of everything that writes files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.faults import each_point
from support.file_faults import disk_full, writes
from vivace.cli.contact_sheet import write_sheet
from vivace.cli.training.curve import write_curve
from vivace.lora.rows import LoraRow
from vivace.svdquant.save import write_converted
from vivace.toolkit.json_files import JsonFileError
from vivace.toolkit.prompt_bundle import export_prompts, import_bundle
from vivace.toolkit.prompt_library import Prompt, PromptLibrary, Run
from vivace.toolkit.stack_presets import StackPresets
from vivace.vlm.caption_folder import CaptionError, write_caption
from vivace.vlm.disk_tier import DiskTier
from vivace.vlm.embedding_cache import EmbeddingCache, ImageEmbedding
from vivace.vlm.hashing import EmbeddingKey

OLD, NEW = Prompt("old text", tags=("a",)), Prompt("new text", "negative")
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
        steps: whether it may be done in part: several files, each of them whole.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[], object],
        errors: type[Exception] | None,
        steps: bool = False,
    ) -> None:
        self.folder, self.errors, self.steps = folder, errors, steps
        self.before = contents(folder)
        write()
        self.wanted = contents(folder)
        assert self.wanted != self.before, "it writes nothing"
        self.write = write

    def check(self, lasting: bool) -> list[str]:
        return each_point(
            lambda points: writes(points, self.folder),
            disk_full,
            self.write,
            self._after,
            before=lambda: restore(self.folder, self.before),
            lasting=lasting,
        )

    def _after(self, error: BaseException | None) -> None:
        found = contents(self.folder)
        for name, content in found.items():
            assert content in (self.before.get(name), self.wanted.get(name)), f"half of {name}"
        assert self.steps or found in (self.before, self.wanted)
        if self.errors is None:
            assert error is None
        elif error is not None:
            assert isinstance(error, self.errors)
            assert "No space left on device" in str(error)
        else:
            assert found == self.wanted
        self.write()
        assert contents(self.folder) == self.wanted


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
        if "cat" in prompts.list().prompts:
            prompts.rename("cat", "animals/cat")

    return Written(folder, write, JsonFileError)


def bring(folder: Path) -> Written:
    prompts = library(folder)
    bundle = {"vivace_prompts": {"cat": {"positive": "x"}, "b/dog": {"positive": "y"}}}
    return Written(
        folder,
        lambda: import_bundle(prompts, bundle, Path("bundle.json"), "replace"),
        JsonFileError,
        steps=True,
    )


def export(folder: Path) -> Written:
    prompts = library(folder / "library")
    return Written(
        folder, lambda: export_prompts(prompts, ["cat"], folder / "out" / "cat.json"), JsonFileError
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
        folder, lambda: presets.import_bundle(bundle, overwrite=True), JsonFileError, steps=True
    )


def caption(folder: Path) -> Written:
    (folder / "0.txt").write_text("old\n")
    image = folder / "0.png"
    return Written(folder, lambda: write_caption(image, "a cat", "append"), CaptionError)


def key(number: int) -> EmbeddingKey:
    return EmbeddingKey(f"{number:032x}", (1, 4, 4), "bicubic", "model", "main", "float32")


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


@pytest.mark.parametrize("lasting", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_nothing_is_written_by_half(writer: str, lasting: bool, tmp_path: Path) -> None:
    points = WRITERS[writer](tmp_path).check(lasting)
    assert len(points) >= 4, points


@pytest.mark.parametrize("lasting", [False, True])
def test_an_embedding_that_cannot_be_stored_is_still_of_use(tmp_path: Path, lasting: bool) -> None:
    one, two = (ImageEmbedding(torch.full((2, 4, 8), n), (1, 4, 4), 1.0) for n in (1.0, 2.0))
    DiskTier(tmp_path).put(key(1), one)
    cache = EmbeddingCache(tier=DiskTier(tmp_path))

    def before() -> None:
        (tmp_path / key(2).file_name).unlink(missing_ok=True)

    def check(error: BaseException | None) -> None:
        assert error is None
        names = {path.name for path in tmp_path.iterdir()}
        assert names in ({key(1).file_name}, {key(1).file_name, key(2).file_name})
        assert (cache.statistics.entries, cache.statistics.nbytes) == (1, two.nbytes)
        cache.put(key(2), two)
        for number, wanted in ((1, one), (2, two)):
            found = DiskTier(tmp_path).get(key(number))
            assert found is not None
            assert torch.equal(found.packed, wanted.packed)

    points = each_point(
        lambda points: writes(points, tmp_path),
        disk_full,
        lambda: cache.put(key(2), two),
        check,
        before=before,
        lasting=lasting,
    )
    assert len(points) >= 4


def test_a_full_disk_is_said_of_the_prompt_not_of_the_lock(tmp_path: Path) -> None:
    prompts = library(tmp_path)
    said: list[str] = []

    def rename() -> None:
        try:
            prompts.rename("cat", "animals/cat")
        except JsonFileError as error:
            said.append(error.path.name)
            raise

    def back(_: BaseException | None) -> None:
        if "animals/cat" in prompts.list().prompts:
            prompts.rename("animals/cat", "cat")

    points = each_point(
        lambda points: writes(points, tmp_path),
        disk_full,
        rename,
        back,
        before=lambda: back(None),
    )
    of_lock = sum(point == "make .lock" for point in points)
    assert of_lock > 0
    assert said == [".lock"] * of_lock + ["cat.json"]


def test_what_is_converted_is_whole(tmp_path: Path) -> None:
    conversion(tmp_path)
    found = load_file(tmp_path / "model.kitchen.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
