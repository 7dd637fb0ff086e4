"""One step of a relaxation each."""
