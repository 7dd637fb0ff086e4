"""The explorer behind `actrelax explore`: settings and what they compute are plain code, `app` is the GUI."""
