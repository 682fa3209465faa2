"""What answers took in tokens, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .openai_reply import Reply, Usage


@dataclass(frozen=True)
class Prices:
    """For a million tokens each, in any currency; a price of 0 for both means: not known.

    Raises:
        ValueError: a price below 0.
    """

    prompt: float = 0.0
    answer: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.answer < 0:
            raise ValueError("a price is below 0; give 0 if it is not known")


@dataclass(frozen=True)
class TokenCount:
    """The tokens of some requests, as the server or the local model counted them.

    Attributes:
        usage: their sum; None where one of them was not counted, as nothing is guessed.
        cost: in the currency of the prices; None without usage or prices. Tokens that a server
            kept from before cost as much as others here.
    """

    requests: int
    usage: Usage | None
    cost: float | None

    @classmethod
    def of(cls, replies: Sequence[Reply], prices: Prices) -> TokenCount:
        """Add up the replies."""
        if not all(reply.counted for reply in replies):
            return cls(len(replies), None, None)
        usage = sum((reply.usage for reply in replies), Usage())
        if prices == Prices():
            return cls(len(replies), usage, None)
        cost = (usage.prompt * prices.prompt + usage.completion * prices.answer) / 1e6
        return cls(len(replies), usage, cost)

    def json(self) -> str:
        """An object with the counts and the cost; null where they are not known."""
        usage = self.usage
        values = {
            "requests": self.requests,
            "prompt_tokens": usage and usage.prompt,
            "answer_tokens": usage and usage.completion,
            "thinking_tokens": usage and usage.reasoning,
            "kept_tokens": usage and usage.cached,
            "cost": self.cost,
        }
        return json.dumps(values)

    def markdown(self) -> str:
        """Lines for a report."""
        if self.usage is None:
            return "- tokens: not all were counted by the server, so there is no sum and no cost\n"
        cost = "" if self.cost is None else f", cost {self.cost:.6g}"
        total = f"{self.usage.prompt} of prompts, {self.usage.completion} of answers"
        return f"- tokens: {total}, in {self.requests} requests{cost}\n"
