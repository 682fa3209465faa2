"""LoRAs as more ranks of SVDQuant layers, on the modules that all clones of a model share.

What is appended stays there after a run, so that the next run with the same LoRAs has nothing to
do, and one with other strengths only rescales. Another clone of the model (or the model without
LoRAs) may run next and knows nothing of this; so as long as anything is appended, a hook on the
network compares, in front of each forward, what is there with what the running clone wants.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ...lora.factors.branch import Branch
from .nunchaku_offload import Offload, even_out, even_ranks
from .rank_kind import RANK_STEP
from .rank_target import RankTarget

OPTION = "vivace_ranks"  # in transformer_options: the `Wanted` of a run


@dataclass(eq=False)
class _Installed:
    """What was appended to one target."""

    target: RankTarget
    branch: Branch | None
    """None as long as it is not certain that its strengths are written."""
    base: int
    added: int
    stored: Tensor | list[Tensor]
    """The factor that strengths go into, at scale 1: down, or an up for each module."""
    shift: float

    def intact(self) -> bool:
        """Whether the ranks are there; a patcher with LoRAs of its own may have put back others."""
        rank_of, modules = self.target.kind.rank_of, self.target.modules
        return all(rank_of(module) == self.base + self.added for module in modules)


class Wanted(Mapping[str, Branch]):
    """Low-rank branches by target, as one stack wants them.

    ComfyUI copies the dictionaries among a model's options with the options; this stays one object,
    so that a comparison of identities tells whether anything has to be done.
    """

    def __init__(self, branches: Mapping[str, Branch]) -> None:
        self._branches = dict(branches)

    def __getitem__(self, path: str) -> Branch:
        return self._branches[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._branches)

    def __len__(self) -> int:
        return len(self._branches)

    def __deepcopy__(self, memo: object) -> Wanted:
        return self


NOTHING = Wanted({})
_UNKNOWN = Wanted({})  # what is there after a failure: certainly not what anybody wants


class AppendedRanks:
    """The appended ranks of one model.

    Attributes:
        appended, rescaled, cut: how many targets were changed so, in all.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        targets: Mapping[str, RankTarget],
        offload: Offload | None = None,
    ) -> None:
        self.targets = targets
        self._offload = offload
        self.appended = self.rescaled = self.cut = 0
        self._network = weakref.ref(network)
        self._installed: dict[str, _Installed] = {}
        self._current = NOTHING
        self._copies_stale = False
        self._hook: Any = None

    def base_rank(self, path: str) -> int:
        """Ranks of a target without what was appended here."""
        installed = self._installed.get(path)
        return installed.base if installed and installed.intact() else self.targets[path].rank

    def growth(self, path: str, branch: Branch) -> int:
        """Bytes by which the layers of a target grow for a branch."""
        return self._side_bytes(path, branch, sum(branch.shape))

    def spare_bytes(self, path: str, branch: Branch) -> int:
        """Bytes kept beside the layers, so that strengths can be changed: one factor."""
        channels = branch.shape[1] if self.targets[path].scales_down else branch.shape[0]
        return self._side_bytes(path, branch, channels)

    def _side_bytes(self, path: str, branch: Branch, channels: int) -> int:
        target = self.targets[path]
        rank = branch.rank + -branch.rank % RANK_STEP
        return rank * channels * target.dtype.itemsize

    def check(self, wanted: Wanted) -> None:
        """Find out now what would fail when the branches are put on the layers.

        Raises:
            ValueError: a factor would overflow.
        """
        for path, branch in wanted.items():
            target = self.targets[path]
            balance(branch, target.dtype, target.scales_down)

    def release(self, wanted: Wanted) -> None:
        """Remove these branches if they are there: the memory is needed."""
        if self._current is wanted:
            self.reconcile(NOTHING)

    def reconcile(self, wanted: Wanted) -> None:
        """Make the layers have exactly these branches.

        It may fail anywhere for want of memory. What is there then is known, and put right in front
        of the next forward, whoever runs it.
        """
        if wanted is self._current and self._all_intact():
            return
        self._current = _UNKNOWN
        self._watch(True)
        even = self._offload is not None and self._offload.on
        targets = even_out(wanted, self.targets) if even else wanted
        for path in [path for path in self._installed if path not in targets]:
            self._remove(path)
        ranks = even_ranks(targets) if even else {}
        for path, branch in targets.items():
            self._put(path, branch, ranks.get(path, 0))
        if self._copies_stale and self._offload is not None:
            self._offload.rebuild()
        self._copies_stale = False
        self._current = wanted
        self._watch(bool(self._installed))

    def _all_intact(self) -> bool:
        return all(installed.intact() for installed in self._installed.values())

    def _put(self, path: str, branch: Branch, least: int) -> None:
        have = self._installed.get(path)
        rank = max(least, branch.rank)
        added = rank + -rank % RANK_STEP
        if have is not None and have.intact() and have.added == added:
            if have.branch is branch:
                return
            old = have.branch
            same = old is not None and old.A is branch.A and old.B is branch.B
            if same and balance(branch, have.target.dtype, have.target.scales_down) == have.shift:
                self._rescale(have, branch)
                return
        if have is not None:
            self._remove(path)
        self._append(self.targets[path], branch, added)
        self.appended += 1

    def _append(self, target: RankTarget, branch: Branch, added: int) -> None:
        like = target.kind.factors(target.modules[0])[0]
        shift = balance(branch, like.dtype, target.scales_down)
        a = cast(Tensor, branch.A).to(like.device)
        b = cast(Tensor, branch.B).to(like.device)
        if shift != 1.0:
            a, b = (a, b.float() * shift) if target.scales_down else (a.float() * shift, b)
        extra = added - branch.rank
        down = _padded(a.to(like.dtype), 0, extra)
        up = _padded(b.to(like.dtype), 1, extra)
        base = target.rank
        ups = [up[start:stop].contiguous() for start, stop in target.rows]
        stored = target.kind.append(target.modules, down, ups)
        kept = stored.down if target.scales_down else stored.ups
        installed = _Installed(target, None, base, added, kept, shift)
        self._installed[target.path] = installed
        self._copies_stale = True
        self._write_scales(installed, branch)
        installed.branch = branch

    def _rescale(self, installed: _Installed, branch: Branch) -> None:
        old, installed.branch = cast(Branch, installed.branch), None
        if not torch.equal(cast(Tensor, old.s), cast(Tensor, branch.s)):
            self._write_scales(installed, branch)
            self.rescaled += 1
        installed.branch = branch

    def _write_scales(self, installed: _Installed, branch: Branch) -> None:
        scales = cast(Tensor, branch.s)
        values = scales.tolist()
        same = values.count(values[0]) == len(values)  # the usual case, in which one pass does
        if not same:
            scales = _padded(scales / installed.shift, 0, installed.added - branch.rank)
        kind, stored = installed.target.kind, installed.stored
        for i, module in enumerate(installed.target.modules):
            part = stored if isinstance(stored, Tensor) else stored[i]
            write = kind.rescale_down if isinstance(stored, Tensor) else kind.rescale_up
            here = kind.factors(module)[0].device
            factors = values[0] / installed.shift if same else scales.to(here)
            write(module, installed.base, part.to(here), factors)

    def _remove(self, path: str) -> None:
        installed = self._installed[path]
        if installed.intact():
            installed.target.kind.cut(installed.target.modules, installed.base)
            self.cut += 1
            self._copies_stale = True
        del self._installed[path]

    def _watch(self, on: bool) -> None:
        network = self._network()
        if on and self._hook is None and network is not None:
            self._hook = network.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        elif not on and self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _before_forward(self, _: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        options = kwargs.get("transformer_options") or {}
        wanted = options.get(OPTION, NOTHING)
        if wanted is not self._current:
            if torch.compiler.is_compiling():
                torch._dynamo.graph_break()
            self.reconcile(wanted)


def _padded(tensor: Tensor, dim: int, extra: int) -> Tensor:
    """Zeros behind a dimension, if any are wanted."""
    if not extra:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = extra
    return torch.cat([tensor, tensor.new_zeros(shape)], dim)


def balance(branch: Branch, dtype: torch.dtype, scales_down: bool) -> float:
    """A power of two to move from the factor with the strengths to the other one.

    So that neither overflows in float16; 1 if there is no need.

    Raises:
        ValueError: one of them overflows in any case.
    """
    if dtype != torch.float16:
        return 1.0
    a, b, s = (cast(Tensor, t).float() for t in (branch.A, branch.B, branch.s))
    tops = a.abs().amax(1), b.abs().amax(0)
    scaled, other = tops if scales_down else tops[::-1]
    most, rest = float((scaled * s.abs().to(scaled.device)).max()), float(other.max())
    limit = torch.finfo(torch.float16).max / 2
    shift = 1.0
    while most / shift > limit and rest * shift * 2 < limit:
        shift *= 2
    if most / shift > limit:
        raise ValueError(
            f"{branch.target}: at this strength the LoRA is too large for the model's float16."
            " Lower the strength."
        )
    return shift
