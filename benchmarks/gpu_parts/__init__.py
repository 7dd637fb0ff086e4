"""Parts of a GPU session, which `benchmarks/gpu.py` runs one after another."""
