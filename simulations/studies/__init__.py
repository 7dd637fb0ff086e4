"""Studies of relaxation and learning, one script each, reported in docs/findings.md."""
