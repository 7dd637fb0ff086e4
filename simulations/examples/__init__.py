"""Short scripts to copy from: each shows one thing and prints what it measured; most draw it."""
