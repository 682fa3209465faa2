"""LoRA files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from vivace.lora.errors import LoraError
from vivace.lora.files.open_file import LoraFile


def tensor(shape: list[int], begin: int, end: int, dtype: str = "F32") -> dict:
    """What a header says of a tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refused(path: Path) -> str:
    """The message with which the file is refused; it names the file and offers a remedy."""
    with pytest.raises(LoraError) as caught:
        LoraFile(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith(f". {caught.value.remedy}")
    assert caught.value.remedy
    return caught.value.problem


def raw_file(path: Path, content: bytes) -> Path:
    """Write a file of these bytes."""
    path.write_bytes(content)
    return path
