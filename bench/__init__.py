"""Benchmarks: contender and baseline by turns, reported as ratios."""
