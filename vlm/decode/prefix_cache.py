"""Keys and values of the beginnings of prompts: up to the end of their last image, or whole.

Another question about the same images begins behind them, and the next turn of a conversation
behind all that was read before. The embeddings of images are kept elsewhere, and survive the model;
what is kept here is of use to one loaded model only.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from ...byte_lru import ByteLru
from ..text.chat_prompt import Prompt
from ..vision.hashing import EmbeddingKey
from .language_model import LanguageModel

DEFAULT_LIMIT = 2**29
WORTH_TOKENS = 16  # fewer, that prompts without images have in common, are rather read again


class _Key(NamedTuple):
    model: int
    device: torch.device
    ids: tuple[int, ...]
    images: tuple[EmbeddingKey, ...]


@dataclass(frozen=True, eq=False)
class _Prefix:
    layers: list[tuple[torch.Tensor, torch.Tensor]]
    nbytes: int


@dataclass(frozen=True)
class PrefixStatistics:
    """Figures since the cache was made; `entries` and `nbytes` are those of now.

    Attributes:
        tokens_saved: tokens that did not go through the model again.
    """

    entries: int = 0
    nbytes: int = 0
    limit: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    tokens_saved: int = 0


class PrefixCache:
    """A thread-safe cache, bounded in bytes; the least recently used go first.

    It lies where the model lies. Prefixes of a model that is dropped go with it.

    Args:
        limit: bytes to keep; 0 keeps nothing.

    Attributes:
        kept: keys and values of tokens, by the model, the tokens and the images before them.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._lock = threading.RLock()  # models are dropped at any time, also inside of it
        self.kept: ByteLru[_Prefix] = ByteLru(limit)
        self._models: dict[int, weakref.ref[torch.nn.Module]] = {}
        self._statistics = PrefixStatistics()

    @property
    def statistics(self) -> PrefixStatistics:
        with self._lock:
            return replace(
                self._statistics,
                entries=len(self.kept),
                nbytes=self.kept.nbytes,
                limit=self.kept.limit,
                evictions=self.kept.evictions,
            )

    def start(
        self, language: LanguageModel, prompt: Prompt, images: Sequence[EmbeddingKey]
    ) -> Any | None:
        """Return a new key-value cache that holds a beginning of the prompt, or None.

        It is the longest that is known, and leaves at least one token to be read. Prompts that end
        with an image are never found.
        """
        if prompt.media_end == len(prompt.ids):
            return None
        own = _key(language, prompt, images, len(prompt.ids))
        with self._lock:
            lengths = {key: _shared(key, own) for key, _ in self.kept.by_use()}
            key = max(lengths, key=lambda key: lengths[key], default=own)
            length = min(lengths.get(key, 0), len(prompt.ids) - 1)
            worth = length >= (min(prompt.media_end, WORTH_TOKENS) or WORTH_TOKENS)
            prefix = self.kept.get(key) if worth else None
            if prefix is None:
                self._count(misses=int(prompt.media_end > 0))
                return None
            self._count(hits=1, tokens_saved=length)
        cache = language.new_cache()
        for index, (keys, values) in enumerate(prefix.layers):
            # Copies: it appends them to empty tensors.
            cache.update(keys[..., :length, :], values[..., :length, :], index)
        return cache

    def keep(
        self,
        language: LanguageModel,
        prompt: Prompt,
        images: Sequence[EmbeddingKey],
        cache: Any,
        whole: bool = False,
    ) -> None:
        """Keep a copy of the prompt's beginning from a cache that starts with it.

        Nothing is kept of caches that hold other things than keys and values of each token, such
        as the states of linear attention.

        Args:
            whole: all of the prompt, for the next turn of a conversation. It takes the place of
                earlier turns. Otherwise its beginning up to the last image is kept.
        """
        if prompt.media_end == len(prompt.ids) or not (whole or prompt.media_end):
            return
        end = len(prompt.ids) if whole else prompt.media_end
        key = _key(language, prompt, images, end)
        nbytes = _nbytes(cache, end)
        with self._lock:
            if nbytes is None or nbytes > self.kept.limit or self._holds(key):
                return
        layers = [
            (layer.keys[..., :end, :].clone(), layer.values[..., :end, :].clone())
            for layer in cache.layers
        ]
        with self._lock:
            if self._holds(key):
                return
            for known, _ in self.kept.by_use():
                if whole and _begins(known, key):
                    self.kept.pop(known)
            if key.model not in self._models:
                forget = _forgetter(weakref.ref(self), key.model)
                self._models[key.model] = weakref.ref(language.model, forget)
            self.kept.put(key, _Prefix(layers, nbytes))

    def _holds(self, key: _Key) -> bool:
        return any(_begins(key, known) for known, _ in self.kept.by_use())

    def resize(self, limit: int) -> None:
        """Change the bytes to keep, and evict what is too much now."""
        self.kept.resize(limit)

    def clear(self, model: torch.nn.Module | None = None) -> None:
        """Forget the prefixes of a model, or all of them. The statistics go on."""
        self._forget(None if model is None else id(model))

    def _forget(self, model: int | None) -> None:
        with self._lock:
            for key, _ in self.kept.by_use():
                if model in (None, key.model):
                    self.kept.pop(key)
            for known in [known for known in self._models if model in (None, known)]:
                del self._models[known]

    def _count(self, **added: int) -> None:
        values = {name: getattr(self._statistics, name) + value for name, value in added.items()}
        self._statistics = replace(self._statistics, **values)


def _key(language: LanguageModel, prompt: Prompt, images: Sequence[EmbeddingKey], end: int) -> _Key:
    return _Key(id(language.model), language.device, prompt.ids[:end], tuple(images))


def _begins(start: _Key, key: _Key) -> bool:
    """Whether a beginning adds nothing to another: the same images, and no more tokens."""
    same = start._replace(ids=()) == key._replace(ids=())
    return same and key.ids[: len(start.ids)] == start.ids


def _shared(kept: _Key, key: _Key) -> int:
    """How many tokens two prompts have in common at their beginnings.

    The images of the kept one must be the first of the other: their places look all the same.
    """
    if kept[:2] != key[:2] or key.images[: len(kept.images)] != kept.images:
        return 0
    low, high = 0, min(len(kept.ids), len(key.ids))
    while low < high:
        middle = (low + high + 1) // 2
        if kept.ids[low:middle] == key.ids[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _nbytes(cache: Any, end: int) -> int | None:
    """Bytes of the first `end` tokens, or None where a layer is not simply keys and values."""
    from transformers.cache_utils import DynamicLayer

    nbytes = 0
    for layer in cache.layers:
        if type(layer) is not DynamicLayer or layer.get_seq_length() < end:
            return None
        tensors: tuple[Any, Any] = layer.keys, layer.values
        for tensor in tensors:
            nbytes += tensor[..., :end, :].numel() * tensor.element_size()
    return nbytes


def _forgetter(cache: weakref.ref[PrefixCache], model: int) -> Any:
    """What to call when a model is dropped; it keeps neither of the two alive."""

    def forget(_: object) -> None:
        kept = cache()
        if kept is not None:
            kept._forget(model)

    return forget
