"""What a header says of ranks and scales and its tensors contradict, with both figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..files.header import Header
from ..mapping.adapter_config import AdapterConfig, number
from .plan import Plans


def contradictions(header: Header, plans: Plans, config: AdapterConfig) -> Iterator[str]:
    """Yield a sentence for each statement that the tensors contradict."""
    loras = [plan for plan in plans.plans if plan.family == "lora"]
    if not loras:
        return
    ranks = Counter(plan.rank for plan in loras)
    rank = ranks.most_common(1)[0][0]
    stated = number(header.metadata.get("ss_network_dim"))
    if stated is not None and stated not in ranks:
        yield f"the header says ss_network_dim {stated:g}, the factors have rank {rank}"
    bare = sum("alpha" not in plan.keys and "scaling" not in plan.keys for plan in loras)
    alpha = number(header.metadata.get("ss_network_alpha"))
    if bare and alpha is not None and rank and alpha != rank and config.alpha is None:
        yield (
            f"the header says ss_network_alpha {alpha:g} at rank {rank}, but {bare} of"
            f" {len(loras)} modules have no alpha; those are applied with scale 1"
        )
    if bare < len(loras) and config.alpha is not None:
        yield (
            f"{config.source} says lora_alpha {config.alpha:g}, but {len(loras) - bare} modules"
            " have a scale of their own, which is used"
        )
    if config.rank is not None and bare < len(loras) and config.rank not in ranks:
        yield f"{config.source} says rank {config.rank}, the factors have rank {rank}"
