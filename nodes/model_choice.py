"""Model folders to choose from, below ComfyUI's model folders of some names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import folder_paths


@dataclass(frozen=True)
class ModelChoice:
    """The models that a node offers.

    Attributes:
        what: a word for one of them, for errors.
        folders: ComfyUI's names of the folders that they lie below.
        find: from folders to `FoundModels`; imports what it needs when it is called.
    """

    what: str
    folders: tuple[str, ...]
    find: Callable[[list[str]], Any]

    def roots(self) -> list[str]:
        """The folders that models are looked for in."""
        # Other packs and extra_model_paths.yaml may have given the names more folders.
        for name in self.folders:
            folder_paths.add_model_folder_path(name, str(Path(folder_paths.models_dir) / name))
        return [root for name in self.folders for root in folder_paths.get_folder_paths(name)]

    def names(self) -> list[str]:
        """Names of the model folders, complete or not."""
        return list(self.find(self.roots()).models)

    def path(self, name: str) -> Path:
        """The folder of a model.

        Raises:
            ValueError: there is none of the name.
        """
        roots = self.roots()
        found = self.find(roots)
        if name in found.models:
            return found.models[name].path
        problems = "".join(f" {problem}." for problem in found.problems[:3])
        raise ValueError(
            f"There is no {self.what} '{name}' in {', '.join(roots)}.{problems} Put a model folder"
            " there, or fetch one with QwenVL Download."
        )
