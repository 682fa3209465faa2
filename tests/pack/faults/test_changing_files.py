"""Files that others change, cut off or delete at any moment while they are read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.applying import QWEN_MODULES, lora_file
from support.faults import each_kind, each_point
from support.file_faults import reads
from vivace.devkit.doubles import tiny_models as tiny

Operation = Callable[[], Any]
OLD = 1_600_000_000  # when the files were made, in s; a change right after would look the same


def _age(path: Path, seconds: int = OLD) -> None:
    os.utime(path, (seconds, seconds))


def _replaced(path: Path, new: bytes) -> None:
    other = path.with_name("other.new")
    other.write_bytes(new)
    other.replace(path)


def _older(path: Path, new: bytes) -> None:
    """A backup put back has an older time than what it replaces."""
    _replaced(path, new)
    _age(path, OLD - 1000)


def _written_over(path: Path, new: bytes) -> None:
    with path.open("r+b") as file:
        file.write(new)
        file.truncate()


def _cut_off(path: Path, new: bytes) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _deleted(path: Path, new: bytes) -> None:
    path.unlink()


CHANGES = (_replaced, _older, _written_over, _cut_off, _deleted)


class Changing:
    """Reads one file while it changes.

    Whatever is read is the old or the new content, or a `ValueError` that names a file; and once
    the file rests, it is what a reader sees that has never seen another.

    Args:
        folder: in which reads are watched.
        path: the file that changes.
        new: what it changes to.
        read: what is done with it.
        fresh: the same by somebody who has read nothing before.
        same: whether two results are equal.
        every: 1 for a change before each look at the file, more where there are very many.
    """

    def __init__(
        self,
        folder: Path,
        path: Path,
        new: bytes,
        read: Operation,
        fresh: Operation | None = None,
        same: Callable[[Any, Any], bool] = lambda one, other: one == other,
        every: int = 1,
    ) -> None:
        self.every = every
        self.folder, self.path, self.read, self.same = folder, path, read, same
        self.fresh = fresh or read
        self.old, self.new = path.read_bytes(), new
        self.allowed: list[Any] = []
        for content in (self.new, self.old):
            path.write_bytes(content)
            _age(path)
            self.allowed.append(self.outcome(self.fresh))
        assert not self.same(*self.allowed), "the new content is no other"
        self.seen: list[Any] = []
        self.age = OLD

    @staticmethod
    def outcome(operation: Operation) -> Any:
        """What it returns, or its error if that is one for the user."""
        try:
            return operation()
        except ValueError as error:
            return f"{type(error).__name__}: {error}"

    def check(self, change: Callable[[Path, bytes], None]) -> list[str]:
        def restore() -> None:
            _replaced(self.path, self.old)
            self.age += 1  # so that nobody knows it yet
            _age(self.path, self.age)
            self.seen.clear()

        def operation() -> None:
            self.seen.append(self.outcome(self.read))

        def after(error: BaseException | None) -> None:
            if error is not None:
                raise error
            found = self.seen.pop()
            told = isinstance(found, str) and (self.path.name in found or "changed while" in found)
            rests = self.outcome(self.fresh)
            allowed = any(self.same(found, known) for known in (*self.allowed, rests))
            assert told or allowed, f"neither old nor new: {found}"
            assert self.same(self.outcome(self.read), rests), "it is stale"

        return each_point(
            lambda points: reads(points, self.folder),
            lambda _: change(self.path, self.new),
            operation,
            after,
            before=restore,
            chosen=lambda names: sorted({*each_kind(names), *range(0, len(names), self.every)}),
        )


def lora(folder: Path) -> Changing:
    from vivace.byte_lru import ByteLru
    from vivace.lora.loader import Lora, load_lora
    from vivace.wrappers.lora.model_architecture import architecture_of

    path, _ = lora_file(folder / "a.safetensors", QWEN_MODULES)
    other, _ = lora_file(folder / "b.safetensors", QWEN_MODULES, seed=9)
    cache: ByteLru[Lora] = ByteLru(2**30)
    small = (architecture_of(tiny.qwen_image()),)

    def read(cache: ByteLru[Lora]) -> dict[str, torch.Tensor]:
        deltas: Any = load_lora(path, "cpu", small, cache).deltas
        return {name: entries[0].delta.matrix() for name, entries in deltas.items()}

    return Changing(
        folder, path, other.read_bytes(), lambda: read(cache), lambda: read(ByteLru(0)), equal
    )


def equal(one: Any, other: Any) -> bool:
    """Whether two tables of tensors, or two errors, are the same."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lora_report(folder: Path) -> Changing:
    from vivace.lora.examine import inspect

    path, _ = lora_file(folder / "a.safetensors", QWEN_MODULES)
    other, _ = lora_file(folder / "b.safetensors", dict(list(QWEN_MODULES.items())[:2]))
    return Changing(folder, path, other.read_bytes(), lambda: str(inspect(path)))


def sidecar(folder: Path) -> Changing:
    from vivace.lora.info import lora_info

    path, _ = lora_file(folder / "a.safetensors", QWEN_MODULES)
    notes = folder / "a.json"
    notes.write_text(json.dumps({"notes": "old", "activation text": "a, b"}))
    return Changing(
        folder, notes, json.dumps({"notes": "new"}).encode(), lambda: lora_info(path).as_dict(),
        same=lambda one, other: one == other or "a.json is ignored" in str(one),
    )  # fmt: skip


def checkpoint(folder: Path) -> Changing:
    from vivace.devkit.doubles import svdquant_models as small
    from vivace.svdquant.reader import CheckpointFile

    built = small.checkpoint("qwen_image")
    tensors = {name: tensor.contiguous().clone() for name, tensor in built.tensors.items()}
    save_file(tensors, folder / "a.safetensors", built.metadata)
    for tensor in tensors.values():
        if tensor.is_floating_point():
            tensor.mul_(2)
    save_file(tensors, folder / "b.safetensors", built.metadata)

    def read() -> dict[str, torch.Tensor]:
        with CheckpointFile(folder / "a.safetensors") as file:
            return {name: tensor for piece in file.pieces() for name, tensor in piece.items()}

    return Changing(
        folder, folder / "a.safetensors", (folder / "b.safetensors").read_bytes(), read,
        same=equal, every=9,
    )  # fmt: skip


def prompt(folder: Path) -> Changing:
    from vivace.toolkit.prompt_library import PromptLibrary, SavedPrompt

    library = PromptLibrary(folder)
    library.save("cat", SavedPrompt("old text"))
    return Changing(
        folder, folder / "cat.json", b'{"positive": "new"}', lambda: library.load("cat")
    )


def prompts(folder: Path) -> Changing:
    from vivace.toolkit.prompt_library import PromptLibrary, SavedPrompt

    library = PromptLibrary(folder)
    library.save("cat", SavedPrompt("old text"))
    library.save("dog", SavedPrompt("dog"))

    def read() -> str:
        listing = library.list()
        return f"{listing.values} {[str(error) for error in listing.problems]}"

    return Changing(
        folder, folder / "cat.json", b'{"positive": "new"}', read,
        same=lambda one, other: one == other or "cat" not in one.replace("cat.json", ""),
    )  # fmt: skip


def stack(folder: Path) -> Changing:
    from vivace.toolkit.stack_presets import StackPresets

    presets = StackPresets(folder)
    path = folder / "one.json"
    path.write_text('{"rows": [{"on": true, "lora": "a", "strength": 1}]}')
    new = b'{"rows": [{"on": true, "lora": "b", "strength": 1}]}'
    return Changing(folder, path, new, lambda: presets.load("one"))


def picture(folder: Path) -> Changing:
    from PIL import Image
    from vivace.vlm.vision.image_file import read_image

    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (64, 64), color).save(folder / name)
    return Changing(
        folder, folder / "a.png", (folder / "b.png").read_bytes(),
        lambda: {"pixels": read_image(folder / "a.png")}, same=equal,
    )  # fmt: skip


def pending(folder: Path) -> Changing:
    from vivace.vlm.caption_folder import ImageFolder

    (folder / "a.png").write_bytes(b"")
    (folder / "a.txt").write_text("a cat")
    return Changing(folder, folder / "a.txt", b"", lambda: ImageFolder(str(folder)).pending())


def stored_embedding(folder: Path) -> Changing:
    from vivace.vlm.vision.disk_tier import DiskTier
    from vivace.vlm.vision.embedding_cache import ImageEmbedding
    from vivace.vlm.vision.hashing import EmbeddingKey

    key = EmbeddingKey("1" * 32, (1, 4, 4), "bicubic", "model", "main", "float32")
    tier = DiskTier(folder)
    for value in (2.0, 1.0):
        tier.put(key, ImageEmbedding(torch.full((2, 4, 8), value), (1, 4, 4), 1.0))
        (folder / f"{value}").write_bytes((folder / key.file_name).read_bytes())

    def read() -> dict[str, torch.Tensor]:
        found = tier.get(key)
        return {} if found is None else {"packed": found.packed}

    return Changing(
        folder, folder / key.file_name, (folder / "2.0").read_bytes(), read,
        same=lambda one, other: not one or not other or equal(one, other),
    )  # fmt: skip


def model_folder(folder: Path) -> Changing:
    from vivace.devkit.doubles.small_vlm import save_text_model
    from vivace.hub.model_check import check_model

    path = save_text_model("Qwen2", folder / "model") / "model.safetensors"
    save_file(load_file(path), folder / "b.safetensors", {"format": "pt", "note": "another"})
    new = (folder / "b.safetensors").read_bytes()
    return Changing(folder, path, new, lambda: check_model(path.parent).nbytes)


READERS = {
    made.__name__: made
    for made in (
        *(lora, lora_report, sidecar, checkpoint, prompt, prompts, stack, picture, pending),
        *(stored_embedding, model_folder),
    )
}


@pytest.mark.usefixtures("comfyui")
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("reader", READERS)
def test_what_is_read_is_one_file(
    reader: str, change: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    points = READERS[reader](tmp_path).check(change)
    assert len(points) >= 2, points


def test_a_model_that_changes_while_it_is_loaded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights might be those of two models; nothing is lost by loading them again."""
    from transformers import AutoModelForCausalLM
    from vivace.devkit.doubles.small_vlm import save_text_model
    from vivace.vlm import local_model
    from vivace.vlm.loading.load_options import LoadError, LoadOptions

    folder = save_text_model("Qwen2", tmp_path / "model")
    load = AutoModelForCausalLM.from_pretrained

    def change(*given: Any, **options: Any) -> Any:
        found = load(*given, **options)
        _age(folder / "model.safetensors")
        return found

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", change)
    with pytest.raises(LoadError, match="a file changed while the model was being loaded"):
        local_model.load_model(folder, LoadOptions(dtype="float32"))
    assert local_model.load_model(folder, LoadOptions(dtype="float32")).nbytes > 0
