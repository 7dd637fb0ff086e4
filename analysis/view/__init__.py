"""A relaxation to watch: what is shown (`scene`), packed for a browser (`pack`), on one HTML page (`page`)."""
