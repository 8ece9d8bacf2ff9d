"""Benchmarks: the extension beside what else Flask developers use.

``docs/performance.md`` explains them, and ``make bench`` runs them.
"""
