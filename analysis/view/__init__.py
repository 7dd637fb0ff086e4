"""Viewer of relaxations: data (`scene`), JSON for a browser (`pack`) and HTML page (`page`)."""
