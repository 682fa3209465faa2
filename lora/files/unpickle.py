"""State_dicts in torch's pickle format, of which nothing but tensors is taken."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import LoraFormatError

if TYPE_CHECKING:
    import torch


def unpickle(handle: IO[bytes], path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a state_dict, read with torch's restricted unpickler, which runs no
    code from the file.

    Raises:
        LoraFormatError: it holds more than tensors, or is damaged.
    """
    import torch

    handle.seek(0)
    try:
        content = torch.load(handle, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        problem = "the pickle holds more than tensors, so it could run code"
        raise LoraFormatError(path, problem, "Convert it to safetensors") from None
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError) as error:
        summary = str(error).partition("\n")[0]
        problem = f"not a readable PyTorch file ({summary})"
        raise LoraFormatError(path, problem, "Download the file again") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise LoraFormatError(path, "holds no table of tensors", "Choose a LoRA file")
    return {
        name: tensor
        for name, tensor in content.items()
        if isinstance(name, str) and isinstance(tensor, torch.Tensor)
    }
