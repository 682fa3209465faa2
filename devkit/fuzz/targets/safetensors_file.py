"""Files by their bytes: whatever lies in a loras folder under the name of a LoRA.

Each is inspected, shown, loaded and composed, or refused. The same files are valid as for the
reference implementation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ....byte_lru import ByteLru
from ....lora.compose import Composer
from ....lora.errors import LoraError, LoraFileError, LoraFormatError, LoraModelError
from ....lora.examine import inspect
from ....lora.files.open_file import LoraFile
from ....lora.info import lora_info
from ....lora.loader import Lora, load_lora
from ....lora.mapping.architecture import Architecture
from ....lora.mapping.supported_models import qwen_image, z_image
from ....lora.report import Report, markdown
from ....lora.stack import LoraSet
from .. import scratch
from ..mutations import bytes_of, value_of
from ..refusals import may_refuse
from ..sketch import MAX_BYTES, file_of, size_of, with_header

TINY = (
    qwen_image(depth=2, hidden=32, head=8, text=24, latent=16),
    z_image(depth=2, refiners=1, hidden=32, ffn=48, head=8, text=24, latent=16),
)
_TO_Q = "transformer.transformer_blocks.0.attn.to_q"
_WORDS = (
    "__metadata__", "dtype", "shape", "data_offsets", "F64", "F32", "F16", "BF16", "F8_E4M3",
    "F8_E5M2", "I64", "I32", "U16", "U8", "BOOL", "C64", "F4", f"{_TO_Q}.lora_A.weight",
    f"{_TO_Q}.alpha", "lora_te_x.alpha", "ss_base_model_version", "lora_adapter_metadata",
)  # fmt: skip


def target(data: bytes) -> None:
    """Give a file to everything that reads LoRA files."""
    with scratch.file(data, "x.safetensors") as path:
        use(path)
        agree(path)


def use(path: Path, architectures: tuple[Architecture, ...] = TINY) -> Lora | None:
    """Inspect, show, load and compose a file; the LoRA, or None if it is refused."""
    report = _inspected(path, architectures)
    try:
        lora = load_lora(path, "cpu", architectures, ByteLru(2**24))
    except LoraError as error:
        _require_line(error, path)
        with may_refuse(LoraFileError, LoraFormatError, LoraModelError):
            raise
        return None
    assert report is not None
    assert [key.key for key in report.keys] == [key.key for key in lora.report.keys]
    assert 0 < lora.report.modules_matched <= lora.report.modules_total
    composer = Composer(lora.architecture, weights=lambda name: _weight(lora, name))
    for name, branch in composer.compose(LoraSet([(lora, 0.5)])).items():
        assert branch.matrix(_weight(lora, name)).shape == branch.shape
    return lora


def _require_line(error: LoraError, path: Path) -> None:
    """A refusal is one line that begins with the file."""
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert text.splitlines() == [text], "a refusal of several lines"


def _weight(lora: Lora, name: str) -> torch.Tensor:
    return torch.ones(lora.architecture.target(name).shape)


def _inspected(path: Path, architectures: tuple[Architecture, ...]) -> Report | None:
    report = None
    with may_refuse(LoraFileError, LoraFormatError):
        report = inspect(path, architectures)
        json.dumps([report.to_json(), lora_info(path).as_dict()], allow_nan=False)
        (report.line() + markdown([report])).encode()
    return report


def agree(path: Path) -> None:
    """Our reader and the reference implementation find the same files valid."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            valid = True
    except SafetensorError:
        valid = False
    problem = _problem(path)
    # Theirs takes the last of two tensors of a name, any text where it expects none, and dtypes
    # that no LoRA and no checkpoint of these models has.
    ours = ("twice", "surrogates", "unknown dtype")
    stricter = problem is not None and any(words in problem for words in ours)
    # And it reads, and may refuse, the values of fields that mean nothing, which we leave alone.
    laxer = problem is None and _has_unknown_fields(path)
    assert valid == (problem is None) or (stricter if valid else laxer), problem


def _has_unknown_fields(path: Path) -> bool:
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return any(info.keys() - {"dtype", "shape", "data_offsets"} for info in header.values())


def _problem(path: Path) -> str | None:
    try:
        LoraFile(path).close()
    except LoraError as error:
        return error.problem
    return None


def seeds() -> Sequence[bytes]:
    """A LoRA with alpha, one of fp8 tensors with metadata, a full change, and empty files."""
    down, up = ["F32", [4, 32]], ["F32", [32, 4]]
    peft = {f"{_TO_Q}.lora_A.weight": down, f"{_TO_Q}.lora_B.weight": up}
    descriptions: list[Any] = [
        {"metadata": None, "tensors": {**peft, f"{_TO_Q}.alpha": ["F32", []]}},
        {
            "metadata": {
                "ss_base_model_version": "zimage",
                "ss_tag_frequency": '{"a": {"ink": 3}}',
                "lora_adapter_metadata": '{"transformer.lora_alpha": 8}',
            },
            "tensors": {
                "layers.0.attention.qkv.lora_A.weight": ["F8_E4M3", [2, 32]],
                "layers.0.attention.qkv.lora_B.weight": ["BF16", [96, 2]],
                "lora_te_x.alpha": ["F32", []],
            },
        },
        {"metadata": {}, "tensors": {"lycoris_layers_0_feed_forward_w1.diff": ["F16", [48, 32]]}},
        {"metadata": {"format": "pt"}, "tensors": {}},
    ]
    return [file for one in descriptions if (file := file_of(one)) is not None]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change the header's values, mostly with a length and ranges that fit; else any bytes."""
    length = int.from_bytes(data[:8], "little")
    text, body = data[8 : 8 + length], data[8 + length :]
    kind = chance.randrange(10)
    if kind == 0:
        return bytes_of(data, chance)
    if kind == 1:
        return with_header(bytes_of(text, chance), body)
    if kind == 2:
        return with_header(text, bytes_of(body, chance))
    try:
        header = value_of(json.loads(text), chance, _WORDS)
        end = _place(header) if kind < 8 else None
        text = json.dumps(header).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return bytes_of(data, chance)
    if end is not None and end <= MAX_BYTES:
        body = (body + b"\x3c" * end)[:end]
    return with_header(text, body)


def _place(header: Any) -> int | None:
    """Lay the tensors out again, as far as the header is one; the size of the data."""
    end = 0
    for info in header.values() if isinstance(header, dict) else ():
        if isinstance(info, dict) and "dtype" in info:
            size = size_of(info["dtype"], info.get("shape"))
            if size is None:
                return None
            info["data_offsets"] = [end, end + size]
            end += size
    return end
