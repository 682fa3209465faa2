"""The language model of any model of transformers: embeddings and positions in, logits out.

A vision-language model's own forward would run the vision tower, so the part behind it is called.
What a model can do is read from its attributes and signatures, which differ between versions of
transformers, not from the names of classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ..text.chat_prompt import IMAGE, VIDEO, Prompt

_MERGED_SIDE = 2  # tokens per side of the grids that probe a model


class LanguageModel:
    """The part of a model that reads and writes text.

    Args:
        model: with a head, as the Auto classes of transformers return it.

    Attributes:
        decoder: the language model inside a vision-language model; None where `model` itself is
            all language model.
        takes_deepstack: whether it takes deepstack features.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.model: Any = model
        base: Any = getattr(model, "model", model)
        self.decoder: Any = getattr(base, "language_model", None)
        self._rope_index: Callable[..., Any] | None = getattr(base, "get_rope_index", None)
        text: Any = model if self.decoder is None else self.decoder
        self._taken = frozenset(inspect.signature(text.forward).parameters)
        self.takes_deepstack = "deepstack_visual_embeds" in self._taken

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.get_input_embeddings().weight.dtype

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids `[..., tokens]` as `[..., tokens, dim]`."""
        return self.model.get_input_embeddings()(ids)

    def new_cache(self) -> Any:
        """An empty key-value cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self.decoder.config if self.decoder else self.model.config)

    def positions(self, prompt: Prompt) -> tuple[torch.Tensor, int]:
        """Return the positions of a prompt's tokens and that of the next token.

        Returns:
            `[3, tokens]` int64 on the CPU, the time, row and column that rotary embedding sees.
        """
        if self._rope_index is None or not prompt.grids:
            return torch.arange(len(prompt.ids)).expand(3, -1), len(prompt.ids)
        ids = torch.tensor([prompt.ids])
        available = {
            "input_ids": ids,
            "mm_token_type_ids": torch.tensor([prompt.types], dtype=torch.int32),
            "image_grid_thw": _grids(prompt, IMAGE),
            "video_grid_thw": _grids(prompt, VIDEO),
            "attention_mask": torch.ones_like(ids),
        }
        seconds = [s for s, kind in zip(prompt.seconds, prompt.kinds, strict=True) if kind == VIDEO]
        if seconds:
            available["second_per_grid_ts"] = torch.tensor(seconds)
        taken = inspect.signature(self._rope_index).parameters
        given = {name: value for name, value in available.items() if name in taken}
        positions, deltas = self._rope_index(**given)
        return positions[:, 0], len(prompt.ids) + int(deltas.flatten()[0])

    def splits_frames(self) -> bool:
        """Whether the frames of a video stand apart in the prompt, as in Qwen3-VL.

        Asked of the model itself, which fails to find the grid of a second frame otherwise.
        """
        if self._rope_index is None:
            return False
        config = self.model.config
        side = _MERGED_SIDE * config.vision_config.spatial_merge_size
        start = config.vision_start_token_id
        frame = [start] + [config.video_token_id] * _MERGED_SIDE**2
        types = [0] + [VIDEO] * _MERGED_SIDE**2
        prompt = Prompt(tuple(frame * 2), tuple(types * 2), ((2, side, side),), (VIDEO,), (1.0,))
        try:
            self.positions(prompt)
        except (IndexError, StopIteration, RuntimeError, ValueError):
            return False
        return True

    @torch.no_grad()
    def forward(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        text_positions: torch.Tensor,
        mask: torch.Tensor | None,
        cache: Any,
        visual: torch.Tensor | None = None,
        deepstack: list[torch.Tensor] | None = None,
        slots: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Continue the sequences of `cache`; return the logits of the last tokens.

        Args:
            embeddings: `[batch, tokens, dim]`.
            positions: `[3, batch, tokens]` int64, for rotary embedding.
            text_positions: `[batch, tokens]` int64, the place of each token in its sequence.
            mask: `[batch, tokens of the cache and new ones]` int64, 0 where there is padding; None
                where there is none; or what is added to attention, `[batch, 1, tokens, slots]`.
            visual: `[batch, tokens]` bool, where deepstack features are added.
            deepstack: features `[visual tokens, dim]` for the first layers.
            slots: `[tokens]` int64, where a static cache puts them; None for a cache that grows.

        Returns:
            `[batch, vocabulary]` float32.
        """
        given: dict[str, Any] = {
            "inputs_embeds": embeddings,
            "attention_mask": mask,
            "past_key_values": cache,
            "use_cache": True,
        }
        # Where transformers does not take it, static caches count for themselves.
        if slots is not None and "cache_position" in self._taken:
            given["cache_position"] = slots
        if self.decoder is None:
            if "logits_to_keep" in self._taken:
                given["logits_to_keep"] = 1
            return self.model(position_ids=text_positions, **given).logits[:, -1].float()
        if deepstack:
            given |= {"visual_pos_masks": visual, "deepstack_visual_embeds": deepstack}
        # The fourth row keeps transformers from taking equal image positions for the beginnings
        # of packed sequences.
        rows = torch.cat((text_positions[None], positions))
        hidden = self.decoder(position_ids=rows, **given).last_hidden_state
        return self.model.get_output_embeddings()(hidden[:, -1]).float()


def _grids(prompt: Prompt, wanted: int) -> torch.Tensor | None:
    pairs = zip(prompt.grids, prompt.kinds, strict=True)
    grids = [grid for grid, kind in pairs if kind == wanted]
    return torch.tensor(grids) if grids else None
