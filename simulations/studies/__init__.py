"""Questions about relaxation, each asked and answered by one script: what docs/findings.md reports."""
