"""The language models of all nodes, in ComfyUI's memory management."""

from __future__ import annotations

from pathlib import Path

import torch

from ...hub.model_check import check_model
from ...vlm.loading.load_options import LoadOptions
from ...vlm.local_model import LocalModel, load_model, model_key
from ..transformers_pool import PooledModelPatcher, TransformersPool

# What is in memory beside the files' size while a quantized model is loaded is not known.
_SHARE_OF_FILES = {"none": 1.0, "8-bit": 0.6, "4-bit": 0.4}


class ModelPool(TransformersPool[LocalModel]):
    """Language models: one copy for each `ModelKey`."""

    def load(
        self, path: Path, options: LoadOptions, headroom: int
    ) -> tuple[LocalModel, PooledModelPatcher[LocalModel]]:
        """Return the model on its device, with room for what it computes.

        Args:
            headroom: bytes beside the weights: keys and values, activations.

        Raises:
            ModelFolderError, LoadError, UnsupportedTowerError: as `load_model`.
        """
        checked = check_model(path)
        return self.obtain(
            model_key(checked, options),
            path,
            lambda: load_model(path, options),
            int(checked.nbytes * _SHARE_OF_FILES[options.quantization]),
            torch.device(options.device),
            headroom,
        )
