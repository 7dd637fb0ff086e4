"""Time and memory of one training step, by method."""
