"""Suites of runs: definition, execution and results."""
