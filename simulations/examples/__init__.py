"""Short example scripts, each of which prints its measurements; most draw a figure."""
