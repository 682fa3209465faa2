"""What a migration did, node by node."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Replaced:
    """A node of ours that stands where another was.

    `node` is its id, below a subgraph `name/id`; `notes` are values that have no counterpart, and
    values that mean something else now.
    """

    node: str
    old: str
    new: str
    notes: list[str] = field(default_factory=list)


@dataclass
class Folded:
    """A node that is gone, as the node of ours with the id `into` does its work."""

    node: str
    old: str
    into: str


@dataclass
class Left:
    """A known node that stays as it is, and why."""

    node: str
    old: str
    reason: str


@dataclass
class MigrationReport:
    """What was replaced, and what was left; nodes that we have no counterpart of are not listed."""

    replaced: list[Replaced] = field(default_factory=list)
    folded: list[Folded] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """What of the workflow itself could not be read."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The same as text."""
        found = []
        for item in self.replaced:
            found.append(f"{item.node}: {item.old} -> {item.new}")
            found += [f"  note: {note}" for note in item.notes]
        found += [f"{item.node}: {item.old} is part of {item.into} now" for item in self.folded]
        found += [f"{item.node}: {item.old} stays: {item.reason}" for item in self.left]
        found += self.problems
        return found or ["nothing to replace"]
