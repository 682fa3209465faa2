"""The transformer, with the structure and the names of ``comfy/ldm/qwen_image21/model.py``.

After commit 08f68f0919d2 of ComfyUI, in other words and without what concerns other devices than
the CPU: one stream of text, references and picture in which text sees what is before it; one
modulation for all blocks, with the time 0 for all but the picture; keys and values of what is
before the picture computed once in a run (`prefix_cache`). What a LoRA beside a layer can be lost
by is as there: norms of queries and keys are read by a fused kernel, and the last layer of an MLP
is computed from its weight (`fused_output`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import comfy.patcher_extension
import torch
from comfy.ldm.flux.layers import EmbedND
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor, nn

from .block_scopes import BlockScopes
from .layers import Attend, BlockLayers, LastLayers, TextLayers, TimeLayers
from .prefix_cache import PrefixCache, cache_key

Span = tuple[int, int, Tensor | None]


class QwenImage21Double(nn.Module):
    """The network.

    Attributes:
        prefix_cache, prefix_cache_enabled: keys and values of the run, and whether to keep them.
        scopes: what the blocks have allocated.
    """

    def __init__(
        self,
        in_channels: int = 64,
        num_layers: int = 32,
        attention_head_dim: int = 128,
        num_attention_heads: int = 32,
        context_in_dim: int = 4096,
        mlp_ratio: int = 3,
        axes_dims_rope: Sequence[int] = (16, 56, 56),
        fused_mlp: bool = True,
        image_model: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        operations: Any = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"dtype": dtype, "device": device}
        heads, hidden = num_attention_heads, num_attention_heads * attention_head_dim
        self.dtype, self.heads = dtype, heads
        self.pe_embedder = EmbedND(attention_head_dim, 10000, list(axes_dims_rope))
        self.time_text_embed = TimeLayers(hidden, operations, **made)
        self.txt_in = TextLayers(context_in_dim, hidden, operations, **made)
        self.img_in = operations.Linear(in_channels, hidden, bias=False, **made)
        shared = operations.Linear(hidden, 4 * hidden, bias=False, **made)
        self.modulation = nn.Sequential(nn.SiLU(), shared)
        inner = hidden * mlp_ratio
        self.transformer_blocks = nn.ModuleList(
            BlockLayers(hidden, heads, inner, fused_mlp, operations, **made)
            for _ in range(num_layers)
        )
        self.norm_out = LastLayers(hidden, operations, **made)
        self.proj_out = operations.Linear(hidden, in_channels, bias=False, **made)
        self.prefix_cache: PrefixCache | None = None
        self.prefix_cache_enabled = False
        self.scopes = BlockScopes()

    def reset_prefix_cache(self, enabled: bool) -> None:
        """Forget all keys and values, and say whether new ones are kept."""
        self.prefix_cache = PrefixCache() if enabled else None
        self.prefix_cache_enabled = enabled

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        ref_latents: Sequence[Tensor] | None = None,
        image_slots: Sequence[int] | None = None,
        transformer_options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """The prediction `[B, C, H, W]` for `x` of that shape."""
        options = {} if transformer_options is None else transformer_options
        kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
        wrappers = comfy.patcher_extension.get_all_wrappers(kind, options)
        run = comfy.patcher_extension.WrapperExecutor.new_class_executor(self._run, self, wrappers)
        return run.execute(x, timestep, context, ref_latents, image_slots, options, **kwargs)

    def _run(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        ref_latents: Sequence[Tensor] | None,
        image_slots: Sequence[int] | None,
        options: dict[str, Any],
        **_: Any,
    ) -> Tensor:
        references, slots = list(ref_latents or ()), list(image_slots or ())
        tokens, pe, spans = self._sequence(x, context, references, slots)
        prefix = tokens.shape[1] - x.shape[2] * x.shape[3]
        time = self.time_text_embed(torch.cat([timestep, timestep.new_zeros(1)]).to(x.dtype))
        scale1, gate1, scale2, gate2 = self.modulation(time).chunk(4, dim=-1)
        modulation = (scale1, gate1.tanh(), scale2, gate2.tanh())
        cache = None
        if self.prefix_cache_enabled and not _hooked(options):
            cache = self.prefix_cache
        if cache is None:
            with self.scopes.around():
                for block in self.transformer_blocks:
                    tokens = block(tokens, modulation, pe, self._attend(spans), prefix)
                    self.scopes.turn(tokens)
            tokens = tokens[:, prefix:]
        else:
            filled = cache.select(cache_key(x, context, references, slots), self.depth)
            before, tokens = tokens[:, :prefix], tokens[:, prefix:]
            with self.scopes.around():
                known = None if filled else before
                tokens = self._run_cached(tokens, known, modulation, pe, spans, cache)
        tokens = self.proj_out(self.norm_out(tokens, time[:-1]))
        return tokens.transpose(1, 2).reshape(x.shape)

    @property
    def depth(self) -> int:
        """How many blocks there are."""
        return len(self.transformer_blocks)

    def _run_cached(
        self,
        tokens: Tensor,
        before: Tensor | None,
        modulation: Sequence[Tensor],
        pe: Tensor,
        spans: Sequence[Span],
        cache: PrefixCache,
    ) -> Tensor:
        """The tokens of the picture alone; those `before` it run too where the cache has not got
        their keys and values."""
        prefix = pe.shape[1] - tokens.shape[1]
        for i, block in enumerate(self.transformer_blocks):
            if before is not None:
                with self.scopes.pause():
                    attend = partial(_keeping, self._attend(spans[:-1]), cache, i)
                    before = block(before, modulation, pe[:, :prefix], attend, prefix)
            keys, values = cache.take(i)
            attend = partial(self._attend_all, keys, values)
            tokens = block(tokens, modulation, pe[:, prefix:], attend, 0)
            del keys, values, attend
            self.scopes.turn(tokens)
        return tokens

    def _sequence(
        self, x: Tensor, context: Tensor, references: list[Tensor], slots: list[int]
    ) -> tuple[Tensor, Tensor, list[Span]]:
        """Tokens `[B, n, hidden]`, positions `[1, n, 1, ...]`, and who sees what: the text with
        each reference at its place, and the picture behind all."""
        text = self.txt_in(context)
        slots = (slots + [text.shape[1]] * len(references))[: len(references)]
        edges = [0, *slots, text.shape[1]]
        parts: list[Tensor] = []
        places: list[Tensor] = []
        spans: list[Span] = []
        at, length = 0, 0
        for start, stop, image in zip(edges[:-1], edges[1:], [*references, x], strict=True):
            if count := stop - start:
                parts.append(text[:, start:stop])
                places.append(torch.arange(at, at + count).unsqueeze(1).expand(count, 3).float())
                seen = torch.ones(count, length + count, dtype=torch.bool).tril(length)
                spans.append((length, length + count, seen.to(x.device)))
                at, length = at + count, length + count
            parts.append(self.img_in(image.flatten(2).transpose(1, 2)))
            height, width = image.shape[-2:]
            places.append(_grid(at, height, width, x))
            spans.append((length, length + height * width, None))
            at, length = at + max(height, width), length + height * width
        ids = torch.cat(places).to(x.device)
        pe = self.pe_embedder(ids.unsqueeze(0)).transpose(1, 2).contiguous()
        return torch.cat(parts, dim=1), pe, spans

    def _attend(self, spans: Sequence[Span]) -> Attend:
        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            parts = [
                optimized_attention(
                    q[:, start:stop].flatten(2), k[:, :stop].flatten(2), v[:, :stop].flatten(2),
                    self.heads, mask=mask,
                )
                for start, stop, mask in spans
            ]  # fmt: skip
            return torch.cat(parts, dim=1)

        return attend

    def _attend_all(self, keys: Tensor, values: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = torch.cat([keys, k], dim=1), torch.cat([values, v], dim=1)
        return optimized_attention(q.flatten(2), k.flatten(2), v.flatten(2), self.heads)


def _keeping(
    attend: Attend, cache: PrefixCache, block: int, q: Tensor, k: Tensor, v: Tensor
) -> Tensor:
    cache.put(block, k, v)
    return attend(q, k, v)


def _grid(at: int, height: int, width: int, picture: Tensor) -> Tensor:
    """Positions `[height * width, 3]`, centred on those of the picture."""
    axes = [
        torch.arange(size) - (size - size // 2) + 0.5 * (size % 2 - whole % 2)
        for size, whole in ((height, picture.shape[-2]), (width, picture.shape[-1]))
    ]
    down, across = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([torch.full_like(down, at), down, across], dim=-1).flatten(0, 1).float()


def _hooked(options: dict[str, Any]) -> bool:
    """Whether something in a block would see another sequence with the cache than without."""
    patches = options.get("patches", {})
    kinds = ("post_input", "single_block", "attn1_patch")
    return bool(options.get("patches_replace", {}).get("dit")) or any(map(patches.get, kinds))
