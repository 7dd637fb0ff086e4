"""Who runs it: PyTorch, SciPy and Brian2 behind one `solve`."""
