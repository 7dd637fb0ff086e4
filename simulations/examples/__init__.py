"""Short scripts to copy from: each shows one thing, prints what it measured, and draws it."""
