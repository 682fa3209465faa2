"""All claims, in the order in which they are measured.

What may leave a card in a state where nothing works any more comes last: kernels, compiled code.
"""

from __future__ import annotations

from . import branch_cost, compiling, composing, kernels, paging, precision, release, strength

CLAIMS = (
    *precision.CLAIMS,
    *paging.CLAIMS,
    *strength.CLAIMS,
    *composing.CLAIMS,
    *branch_cost.CLAIMS,
    *kernels.CLAIMS,
    *release.CLAIMS,
    *compiling.CLAIMS,
)
