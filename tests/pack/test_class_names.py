"""A class is known by its name alone."""

from __future__ import annotations

import ast
from collections import defaultdict

from vivace.devkit.rig.layout import ROOT

NOT_SHIPPED = {".dev", "bench", "devkit", "fuzz", "soak", "tests"}


def test_no_two_public_classes_share_a_name() -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT)
        if place.parts[0] in NOT_SHIPPED:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(place.as_posix())
    assert len(homes) > 200
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}
