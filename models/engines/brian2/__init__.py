"""Relaxations in Brian2: names, equations, delay lines, and the engine."""
