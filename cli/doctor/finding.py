"""What is found, and how bad it is."""

from __future__ import annotations

BROKEN = "broken"
WARNING = "warning"
NOTE = "note"
LEVELS = (BROKEN, WARNING, NOTE)


class Finding:
    """One thing that somebody may want to change.

    Attributes:
        level: "broken" where something cannot work, "warning" where it works less well or only in
            part, "note" where something optional is missing.
        topic: the part that it is about: versions, gpu, models, server or packs.
        problem: what was found, without a full stop.
        remedy: what to do about it.
    """

    def __init__(self, level: str, topic: str, problem: str, remedy: str) -> None:
        self.level = level
        self.topic = topic
        self.problem = problem
        self.remedy = remedy
