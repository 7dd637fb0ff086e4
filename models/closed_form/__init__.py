"""The end of a frozen relaxation at once, by its exact law."""
