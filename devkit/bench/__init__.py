"""Benchmarks: contender and baseline by turns, reported as ratios."""

import os

# Where cores are shared with others, threads that spin while they wait for each other make every
# small operation of torch slow at random. It is read once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
