"""Mutated files either load or are refused with a `LoraError`; nothing else may happen.

The number of cases and the seed come from VIVACE_FUZZ_CASES and VIVACE_FUZZ_SEED.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from support.lora_samples import FAMILIES, TINY, load, lora, named, write
from vivace.lora.compose import Composer
from vivace.lora.errors import LoraError
from vivace.lora.examine import inspect
from vivace.lora.file import LoraFile
from vivace.lora.loader import Lora
from vivace.lora.stack import LoraStack

CASES = int(os.environ.get("VIVACE_FUZZ_CASES", "1500"))
SEED = int(os.environ.get("VIVACE_FUZZ_SEED", "20"))


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Valid files to start from."""
    folder = tmp_path_factory.mktemp("seeds")
    stem = "transformer_blocks.0.attn.to_q"
    files = [
        write(folder / f"{i}.safetensors", named(stem, make(32, 32, torch.float32)))
        for i, make in enumerate(FAMILIES.values())
    ]
    tensors = named("layers.0.attention.qkv", lora(96, 32, torch.bfloat16))
    tensors |= named("layers.0.attention.to_k", lora(32, 32, torch.float16))
    tensors |= named("lora_te_x", lora(4, 4, torch.float32))
    files.append(write(folder / "mixed.safetensors", tensors, {"ss_base_model_version": "zimage"}))
    return [path.read_bytes() for path in files]


def mutate(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    header = 8 + int.from_bytes(data[:8], "little")
    for _ in range(chance.randint(1, 4)):
        where = chance.randrange(min(header, len(data)) if chance.random() < 0.7 else len(data))
        kind = chance.randrange(7)
        if kind == 0:
            data[where] = chance.randrange(256)
        elif kind == 1:
            data[where] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del data[where : where + chance.randint(1, 20)]
        elif kind == 3:
            data[where:where] = bytes(data[where : where + chance.randint(1, 20)])
        elif kind == 4:
            del data[where:]
        elif kind == 5:
            old, new = chance.choices(
                [b'"F32"', b'"BF16"', b'"U8"', b'"U16"', b'"C64"', b'"F8_E5M2"'], k=2
            )
            data = bytearray(data.replace(old, new, chance.randint(1, 3)))
        else:
            data[where : where + 1] = chance.choice(
                [b"9" * 30, b"-1", b"null", b"{", b"]", b'"', b""]
            )
        if len(data) < 9:
            break
    if chance.random() < 0.5 and len(data) >= 8:  # keep the length plausible, to get further in
        data[:8] = max(header - 8 + len(data) - len(content), 0).to_bytes(8, "little")
    return bytes(data)


def outcome(path: Path) -> str:
    found: Lora | LoraError
    try:
        inspect(path, TINY)
        found = load(path)
    except LoraError as error:
        found = error
    if isinstance(found, LoraError):
        assert str(found).startswith(str(path))
        return type(found).__name__
    assert found.deltas
    assert len(found.report.keys) > 0
    for branch in Composer(found.architecture).compose(LoraStack([(found, 1.0)])).values():
        assert branch.matrix().shape == branch.shape
    return "loaded"


def valid_for_safetensors(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except SafetensorError:
        return False


def valid_for_us(path: Path) -> bool:
    try:
        LoraFile(path).close()
    except LoraError as error:
        return "twice" in error.problem and valid_for_safetensors(path)
    return True


def test_mutated_files(seeds: list[bytes], tmp_path: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311
    path = tmp_path / "fuzz.safetensors"
    seen: set[str] = set()
    for _ in range(CASES):
        path.write_bytes(mutate(chance.choice(seeds), chance))
        seen.add(outcome(path))
        agreed = valid_for_us(path) == valid_for_safetensors(path)
        assert agreed, "the same files are valid, but for duplicate names"
    assert seen == {"loaded", "LoraFormatError", "LoraModelError"}
