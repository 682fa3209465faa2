"""Loading: faults stay with their module, files are read once, models are told apart."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path

import pytest
import torch
from support.lora_samples import (
    FAMILIES,
    QWEN,
    TINY,
    Z_IMAGE,
    close,
    load,
    lora,
    named,
    random,
    total,
    write,
)
from vivace.lora import examine, loader
from vivace.lora.cache import ByteLru
from vivace.lora.compose import Composer
from vivace.lora.errors import LoraError, LoraFileError, LoraModelError
from vivace.lora.examine import inspect
from vivace.lora.file import LoraFile
from vivace.lora.loader import Lora, load_lora
from vivace.lora.stack import LoraStack

GOOD = "transformer_blocks.0.attn.to_k"
BAD = "transformer_blocks.0.attn.to_q"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[LoraFile]:
    """Every LoraFile that is opened."""
    found: list[LoraFile] = []

    class Recorded(LoraFile):
        def __init__(self, path: str | os.PathLike[str]) -> None:
            found.append(self)
            super().__init__(path)

    monkeypatch.setattr(loader, "LoraFile", Recorded)
    monkeypatch.setattr(examine, "LoraFile", Recorded)
    return found


def both(bad: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**named(GOOD, lora(32, 32, torch.float32)), **bad}


def plain(**changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    tensors = {"lora_down.weight": random(4, 32), "lora_up.weight": random(32, 4)}
    tensors["alpha"] = torch.tensor(2.0)
    tensors |= {name.replace("__", "."): t for name, t in changes.items() if t is not None}
    for name, value in changes.items():
        if value is None:
            del tensors[name.replace("__", ".")]
    return {f"{BAD}.{name}": t for name, t in tensors.items()}


def poisoned(value: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = random(32, 4).to(dtype)
    tensor.view(torch.uint8 if dtype.itemsize == 1 else dtype)[3, 2] = (
        0x7F if dtype.itemsize == 1 else value
    )
    return tensor


FAULTS: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "NaN": (plain(lora_up__weight=poisoned(float("nan"))), "NaN or infinity"),
    "infinity": (plain(lora_up__weight=poisoned(float("inf"))), "NaN or infinity"),
    "minus infinity bf16": (
        plain(lora_up__weight=poisoned(float("-inf"), torch.bfloat16)),
        "NaN or infinity",
    ),
    "NaN fp16": (plain(lora_up__weight=poisoned(float("nan"), torch.float16)), "NaN or infinity"),
    "NaN fp8": (plain(lora_up__weight=poisoned(0, torch.float8_e4m3fn)), "NaN or infinity"),
    "NaN alpha": (plain(alpha=torch.tensor(float("nan"))), "NaN or infinity"),
    "no up": (plain(lora_up__weight=None), "up is missing"),
    "no down": (plain(lora_down__weight=None), "down is missing"),
    "alpha alone": (plain(lora_up__weight=None, lora_down__weight=None), "only alpha"),
    "alpha of two": (plain(alpha=torch.ones(2)), "alpha has shape [2]"),
    "rank mismatch": (plain(lora_up__weight=random(32, 5)), "rank 5"),
    "rank 0": (plain(lora_up__weight=random(32, 0), lora_down__weight=random(0, 32)), "rank 0"),
    "wrong input": (plain(lora_down__weight=random(4, 33)), "32x33 weight"),
    "wrong output": (plain(lora_up__weight=random(31, 4)), "31x32 weight"),
    "one-dimensional": (plain(lora_up__weight=random(32)), "two dimensions"),
    "convolution": (plain(lora_down__weight=random(4, 32, 3, 3)), "convolution"),
    "integers": (plain(lora_up__weight=torch.ones(32, 4, dtype=torch.int8)), "I8"),
    "wide core": (plain(lora_mid__weight=random(4, 4, 3, 3)), "convolution"),
    "odd core": (plain(lora_mid__weight=random(4, 5)), "cannot be folded"),
    "alpha of an odd type": (
        plain(alpha=torch.ones(1, dtype=torch.uint16)),
        "alpha is stored as U16",
    ),
    "full change with a magnitude": (
        {f"{BAD}.diff": random(32, 32), f"{BAD}.dora_scale": torch.ones(32, 1)},
        "magnitude without",
    ),
    "two families": (plain(lokr_w1=random(4, 4), lokr_w2=random(8, 8)), "ambiguous"),
    "two magnitudes": (plain(dora_scale=torch.ones(32), magnitude=torch.ones(32)), "two DoRA"),
    "wrong magnitude": (plain(dora_scale=torch.ones(31)), "magnitude of shape [31]"),
    "column magnitude by a row name": (plain(magnitude=torch.ones(1, 32)), "magnitude of shape"),
    "kronecker sizes": (
        {f"{BAD}.lokr_w1": random(4, 4), f"{BAD}.lokr_w2": random(9, 8)},
        "36x32 weight",
    ),
    "kronecker half": ({f"{BAD}.lokr_w1": random(4, 4)}, "lokr_w2_a is missing"),
    "kronecker twice": (
        {
            f"{BAD}.lokr_w1": random(4, 4),
            f"{BAD}.lokr_w1_a": random(4, 4),
            f"{BAD}.lokr_w2": random(8, 8),
        },
        "both whole and as factors",
    ),
    "kronecker vector": (
        {f"{BAD}.lokr_w1": random(4), f"{BAD}.lokr_w2": random(8, 8)},
        "shape [4]",
    ),
    "half a LoHa": ({f"{BAD}.hada_w1_a": random(32, 2)}, "hada_w1_b is missing"),
    "uneven LoHa": (
        {
            f"{BAD}.hada_w1_a": random(32, 2),
            f"{BAD}.hada_w1_b": random(2, 32),
            f"{BAD}.hada_w2_a": random(32, 2),
            f"{BAD}.hada_w2_b": random(2, 31),
        },
        "differ in shape",
    ),
    "full change of wrong shape": ({f"{BAD}.diff": random(32, 31)}, "diff has shape"),
    "bias change of wrong shape": ({f"{BAD}.diff_b": random(31)}, "diff_b has shape"),
    "LoRA on a norm": (
        {
            "transformer_blocks.0.attn.norm_q.lora_A.weight": random(1, 8),
            "transformer_blocks.0.attn.norm_q.lora_B.weight": random(8, 1),
        },
        "weights of shape [8]",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_drops_its_module_only(case: str, tmp_path: Path) -> None:
    bad, reason = FAULTS[case]
    found = load(write(tmp_path / "a.safetensors", both(bad)))
    assert set(found.deltas) == {GOOD}
    (fault,) = found.report.faults
    assert reason in fault.reason
    assert (found.report.modules_matched, found.report.modules_total) == (1, 2)
    assert close(total(found, GOOD, (32, 32)), lora(32, 32, torch.float32).change)
    assert reason in found.report.line()


def test_huge_finite_values_are_not_taken_for_infinity(tmp_path: Path) -> None:
    a = torch.full((4, 32), 3e38)
    tensors = {f"{GOOD}.lora_A.weight": a, f"{GOOD}.lora_B.weight": torch.full((32, 4), 1e-38)}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert not found.report.faults
    assert set(found.deltas) == {GOOD}


def test_unused_alpha_of_a_whole_lokr_may_be_anything(
    tmp_path: Path, opened: list[LoraFile]
) -> None:
    sample = FAMILIES["lokr whole, whole, sentinel alpha"](32, 32, torch.float32)
    tensors = {**named(GOOD, sample), f"{GOOD}.alpha": torch.tensor(float("inf"))}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(total(found, GOOD, (32, 32)), sample.change)
    assert opened[0].tensors_read == 2


def test_bias_without_place_leaves_the_weight_change(tmp_path: Path) -> None:
    stem = "layers.0.attention.to_out.0"
    sample = lora(32, 32, torch.float32)
    tensors = {**named(stem, sample), f"{stem}.diff_b": random(32)}
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert close(total(found, "layers.0.attention.out", (32, 32)), sample.change)
    assert "no bias" in found.report.faults[0].reason


def test_bias_of_a_missing_projection(tmp_path: Path) -> None:
    tensors = both({f"{BAD}.lora_B.bias": random(32)})
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert set(found.deltas) == {GOOD}
    assert len(found.report.faults) == 1


def test_column_magnitude_cannot_be_cut(tmp_path: Path) -> None:
    stem = "layers.0.feed_forward.net.0.proj"
    tensors = named(stem, lora(96, 32, torch.float32)) | {f"{stem}.dora_scale": torch.ones(1, 32)}
    tensors |= named("layers.0.attention.out", lora(32, 32, torch.float32))
    found = load(write(tmp_path / "a.safetensors", tensors))
    assert set(found.deltas) == {"layers.0.attention.out"}
    assert "cannot be split" in found.report.faults[0].reason


def test_nothing_usable_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", plain(lora_up__weight=None))
    with pytest.raises(LoraModelError, match=r"none of its 1 modules.*up is missing"):
        load(path)
    oft = {f"{BAD}.oft_blocks": random(2, 4, 4), f"{BAD}.alpha": torch.tensor(1.0)}
    with pytest.raises(LoraModelError, match="OFT"):
        load(write(tmp_path / "b.safetensors", oft))


# Other models


def shapes_file(path: Path, shapes: dict[str, tuple[int, ...]], **metadata: str) -> Path:
    tensors = {name: torch.zeros(shape, dtype=torch.float16) for name, shape in shapes.items()}
    return write(path, tensors, {k.replace("__", "."): v for k, v in metadata.items()} or None)


def pair(stem: str, out: int, inp: int) -> dict[str, tuple[int, ...]]:
    return {f"{stem}.lora_A.weight": (2, inp), f"{stem}.lora_B.weight": (out, 2)}


FOREIGN = {
    "Lumina 2": (
        pair("layers.0.attention.qkv", 4608, 2304) | pair("layers.0.feed_forward.w1", 6144, 2304),
        {},
        "Lumina-Image 2",
    ),
    "Lumina 2 LoKr": (
        {"layers.0.attention.out.lokr_w1": (48, 48), "layers.0.attention.out.lokr_w2": (48, 48)},
        {},
        "Lumina-Image 2",
    ),
    "Ideogram by width": (pair("layers.0.feed_forward.w1", 12288, 4608), {}, "Ideogram 4"),
    "Ideogram by name": (
        pair("layers.0.attention.qkv", 9, 9) | pair("layers.0.attention.o", 9, 9),
        {},
        "Ideogram 4",
    ),
    "Qwen-Image-2.1": (
        pair("transformer_blocks.0.attn.to_q", 3072, 3072)
        | pair("transformer_blocks.0.img_mlp.gate_layer", 9216, 3072),
        {},
        "Qwen-Image-2.1",
    ),
    "Mage Flow by metadata": (
        pair("transformer_blocks.0.attn.to_q", 3072, 3072),
        {"ss_base_model_version": "mageflow"},
        "Mage Flow",
    ),
    "Mage Flow by rows": (
        pair("transformer_blocks.0.attn.to_q", 3072, 3072) | pair("proj_out", 128, 3072),
        {},
        "Mage Flow",
    ),
    "Mage Flow by inputs": (pair("txt_in", 3072, 2560), {}, "Mage Flow"),
    "FLUX": (
        pair("transformer.transformer_blocks.0.attn.to_q", 3072, 3072)
        | pair("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072),
        {},
        "FLUX",
    ),
    "SD3": (pair("transformer_blocks.0.attn.to_q", 1536, 1536), {}, "Stable Diffusion 3"),
    "SDXL": (
        pair("lora_unet_down_blocks_1_attentions_0_proj_in", 640, 640),
        {},
        "no supported model",
    ),
    "text encoder": (pair("text_encoder.layers.0.mlp", 8, 8), {}, "text encoder"),
    "no tensors": ({}, {}, "no module"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_lora_for_another_model(case: str, tmp_path: Path) -> None:
    shapes, metadata, reason = FOREIGN[case]
    path = shapes_file(tmp_path / "a.safetensors", shapes, **metadata)
    report = inspect(path)
    assert report.architecture is None
    assert report.refusal is not None
    assert reason in report.refusal
    assert {entry.status for entry in report.keys} <= {"unmatched", "ignored"}
    assert all(entry.reason for entry in report.keys)
    with pytest.raises(LoraModelError, match=reason):
        load_lora(path, cache=ByteLru(2**20))


@pytest.mark.parametrize(
    ("shapes", "metadata", "architecture"),
    [
        (pair("transformer_blocks.0.attn.to_q", 3072, 3072), {}, "qwen_image"),
        (
            pair("transformer_blocks.0.img_mod.1", 18432, 3072)
            | pair("transformer_blocks.0.img_mlp.gate_up", 8, 8),
            {"modelspec__architecture": "Qwen-Image-Edit-2511/lora"},
            "qwen_image",
        ),
        (
            pair("layers.0.attention.to_q", 3840, 3840) | pair("layers.0.attention.o", 8, 8),
            {"ss_base_model_version": "zimage"},
            "z_image",
        ),
        (pair("layers.0.adaLN_modulation.0", 15360, 256), {}, "z_image"),
        (pair("time_text_embed.addition_t_embedding", 2, 3072), {}, "qwen_image"),
    ],
)
def test_supported_models_are_not_refused(
    shapes: dict, metadata: dict, architecture: str, tmp_path: Path
) -> None:
    if "layers.0.attention.o.lora_A.weight" in shapes:
        shapes = shapes | pair("layers.0.attention.to_out.0", 3840, 3840)
    if "transformer_blocks.0.img_mlp.gate_up.lora_A.weight" in shapes:
        shapes = shapes | pair("transformer_blocks.0.txt_mlp.net.2", 3072, 12288)
    path = shapes_file(tmp_path / "a.safetensors", shapes, **metadata)
    report = inspect(path)
    assert (report.architecture, report.refusal) == (architecture, None)
    assert load_lora(path, cache=ByteLru(2**24)).architecture.name == architecture


# Once


def test_one_open_one_read_and_nothing_unmapped(tmp_path: Path, opened: list[LoraFile]) -> None:
    tensors = named(GOOD, lora(32, 32, torch.float32))
    stray = {"lora_te_x.lora_up.weight": random(50, 50), "mystery": random(50, 50)}
    path = write(tmp_path / "a.safetensors", {**tensors, **stray})
    cache: ByteLru[Lora] = ByteLru(2**20)
    first = load(path, cache=cache)
    (only,) = opened
    assert (only.opens, only.tensors_read) == (1, 3)
    assert only.bytes_read == sum(t.nbytes for t in tensors.values())
    assert load(path, cache=cache) is first
    assert first.report.names("unmatched") == ["mystery"]
    assert first.report.names("ignored") == ["lora_te_x.lora_up.weight"]
    assert len(opened) == 1
    assert (cache.hits, cache.misses) == (1, 1)


def test_changed_file_is_read_again(tmp_path: Path, opened: list[LoraFile]) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = tmp_path / "a.safetensors"
    keys = set()
    for alpha in (1.0, 2.0):
        sample = lora(32, 32, torch.float32, alpha=alpha)
        write(path, named(GOOD, sample))
        os.utime(path, ns=(0, int(alpha) * 10**9))
        found = load(path, cache=cache)
        assert close(total(found, GOOD, (32, 32)), sample.change)
        keys.add(found.key)
    assert len(opened) == len(keys) == 2


def test_file_that_changes_while_being_read_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    read = LoraFile.read

    def slow(self: LoraFile, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
        found = read(self, *args, **kwargs)  # type: ignore[arg-type]
        os.utime(path, ns=(5, 5))
        return found

    with monkeypatch.context() as patch:
        patch.setattr(LoraFile, "read", slow)
        with pytest.raises(LoraFileError, match="changed while"):
            load(path, cache=cache)
    assert len(cache) == 0
    assert set(load(path, cache=cache).deltas) == {GOOD}


def test_deleted_file_is_an_error_even_if_cached(tmp_path: Path) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    load(path, cache=cache)
    path.unlink()
    with pytest.raises(LoraFileError, match="no such file"):
        load(path, cache=cache)


def test_concurrent_requests_read_once(tmp_path: Path, opened: list[LoraFile]) -> None:
    cache: ByteLru[Lora] = ByteLru(2**20)
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    barrier, found = threading.Barrier(8), []

    def ask() -> None:
        barrier.wait()
        found.append(load(path, cache=cache))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_loading_is_logged_on_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.safetensors", named(GOOD, lora(32, 32, torch.float32)))
    with caplog.at_level(logging.DEBUG, logger="vivace.lora.loader"):
        load(path)
    (record,) = caplog.records
    assert "qwen_image LoRA rank 4; 1 of 1 modules" in record.getMessage()
    assert record.getMessage().endswith(" ms")


def test_pickled_lora_is_the_same(tmp_path: Path) -> None:
    sample = lora(32, 32, torch.float32)
    torch.save(named(GOOD, sample), tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert close(total(found, GOOD, (32, 32)), sample.change)


def test_refused_file_message_is_one_sentence_with_the_name(tmp_path: Path) -> None:
    path = shapes_file(tmp_path / "a.safetensors", FOREIGN["SD3"][0])
    with pytest.raises(LoraError) as caught:
        load_lora(path)
    assert str(caught.value).startswith(str(path))
    json.dumps(str(caught.value))


def test_tiny_models_share_names_only() -> None:
    assert [a.name for a in TINY] == ["qwen_image", "z_image"]
    assert QWEN.hidden == Z_IMAGE.hidden == 32


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.float64])
def test_alpha_of_any_number_type(dtype: torch.dtype, tmp_path: Path) -> None:
    found = load(write(tmp_path / "a.safetensors", plain(alpha=torch.tensor(2).to(dtype))))
    expected = random(32, 4).double() @ random(4, 32).double() * 2 / 4
    assert close(total(found, BAD, (32, 32)), expected)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
def test_sparse_tensors_of_a_pickle_are_dropped(tmp_path: Path) -> None:
    torch.save(both(plain(lora_up__weight=random(32, 4).to_sparse())), tmp_path / "a.pt")
    found = load(tmp_path / "a.pt")
    assert set(found.deltas) == {GOOD}
    assert "sparse" in found.report.faults[0].reason


def test_inspection_after_inspection_or_loading_opens_nothing(
    tmp_path: Path, opened: list[LoraFile]
) -> None:
    tensors = both(FAULTS["NaN"][0])
    path = write(tmp_path / "a.safetensors", tensors)
    first = inspect(path, TINY)
    assert inspect(path, TINY) == first
    assert (len(opened), first.faults) == (1, ())
    found = load(path)
    assert len(opened) == 2
    assert inspect(path, TINY) == found.report
    assert len(found.report.faults) == 1
    assert len(opened) == 2
    os.utime(path, ns=(0, 0))
    inspect(path, TINY)
    assert len(opened) == 3


def test_only_the_latest_reports_are_kept(tmp_path: Path) -> None:
    for i in range(examine._REMEMBERED + 5):
        inspect(write(tmp_path / f"{i}.safetensors", plain()), TINY)
    assert len(examine._reports) == examine._REMEMBERED


def test_file_replaced_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.safetensors", plain())
    cache: ByteLru[Lora] = ByteLru(2**20)
    examine_ = loader.examine

    def late(file: LoraFile, *args: object) -> object:
        object.__setattr__(file, "stamp", file.stamp._replace(mtime_ns=1))
        return examine_(file, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(loader, "examine", late)
    with pytest.raises(LoraFileError, match="changed while"):
        load(path, cache=cache)
    assert len(cache) == 0


def test_fitting_width_outweighs_a_lumina_label(tmp_path: Path) -> None:
    shapes = pair("layers.0.attention.out", 3840, 3840)
    labelled = shapes_file(
        tmp_path / "a.safetensors", shapes, modelspec__architecture="lumina2/lora"
    )
    assert inspect(labelled).architecture == "z_image"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_device(device: str, tmp_path: Path) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    one, kron = lora(32, 32, torch.bfloat16), FAMILIES["lokr whole, low"](32, 32, torch.bfloat16)
    tensors = named(GOOD, one) | named(BAD, kron) | {f"{GOOD}.diff_b": random(32)}
    path = write(tmp_path / "a.safetensors", tensors)
    found = load_lora(path, device, TINY, ByteLru(2**20))
    branches = Composer(QWEN).compose(LoraStack([(found, 0.5)]))
    for stem, change in ((GOOD, one.change), (BAD, kron.change)):
        matrix = branches[stem].matrix()
        assert matrix.device.type == device
        assert close(matrix.cpu(), change * 0.5)
        x = torch.ones(2, 32, device=device)
        assert branches[stem].apply(x).device.type == device
