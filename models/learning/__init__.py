"""The local rule: from a relaxed state to `.grad`."""
