"""Key mapping: from all tensor names of a file to modules."""

from __future__ import annotations

import json

from ...lora.mapping.supported_models import standard
from ...lora.mapping.tensor_names import map_keys
from .contender import forget_everything, forget_mappings
from .files import Kind
from .harness import Result, Target, Timings, spread
from .naive import classify_file

MEMOIZED_AT_ONCE = 20

_MEASURES = (
    ("first", "naive mapping / ours, first file of a process", None),
    ("cold", "naive mapping / ours, cold", Target("at least", 50)),
    ("memoized", "naive mapping / ours, memoized", Target("at least", 1000)),
)


def measure(kind: Kind, rounds: int) -> tuple[list[Result], dict[str, object]]:
    """Time the mapping of a file's names against the naive scan, by turns.

    ``first`` has every memo cleared, ``cold`` all but the tables of module spellings, which are
    made once in a process. Every call gets new strings, as a header gives them.
    """
    timings = Timings("cpu")
    keys = kind.keys()
    map_keys(keys, standard())
    for _ in range(rounds):
        timings.time("naive", lambda: classify_file(_new(keys)))
        names = _new(keys)
        forget_everything()
        timings.time("first", lambda names=names: map_keys(names, standard()))
        names = _new(keys)
        forget_mappings()
        timings.time("cold", lambda names=names: map_keys(names, standard()))
        batch = [_new(keys) for _ in range(MEMOIZED_AT_ONCE)]

        def memoized(batch: list[dict[str, None]] = batch) -> None:
            for names in batch:
                map_keys(names, standard())

        timings.time("memoized", memoized)
        timings.seconds["memoized"][-1] /= MEMOIZED_AT_ONCE
    case = f"{kind.name}, {len(keys)} names"
    results = [
        Result(case, text, spread(timings.ratios("naive", name)), target)
        for name, text, target in _MEASURES
    ]
    per_key = {name: _per_key(timings, name, len(keys)) for name in timings.seconds}
    return [_explained(result, per_key) for result in results], {
        "case": case,
        "milliseconds": timings.summary(),
        "microseconds_per_name": per_key,
    }


def _per_key(timings: Timings, name: str, count: int) -> float:
    return spread([1e6 * value / count for value in timings.seconds[name]])["median"]


def _explained(result: Result, per_key: dict[str, float]) -> Result:
    if result.hit is not False:
        return result
    name = "cold" if result.measure.endswith("cold") else "memoized"
    why = {
        "cold": "splitting suffix, lookup and one KeyEntry per name in Python",
        "memoized": "hashing every new name and comparing the set with the memo's",
    }[name]
    reason = (
        f"{per_key[name]:.3g} us per name ({why}); the naive scan takes"
        f" {per_key['naive']:.3g} us per name"
    )
    return Result(result.case, result.measure, result.ratio, result.target, reason)


def _new(keys: list[str]) -> dict[str, None]:
    """The names as new strings in a table, which has hashed them, as after parsing a header."""
    return dict.fromkeys(json.loads(json.dumps(keys)))
