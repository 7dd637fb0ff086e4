"""The parts of a session on a GPU, which `benchmarks/gpu.py` runs one after another."""
