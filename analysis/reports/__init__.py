"""Reports on runs: outcomes, comparisons with statistics, curves, and an HTML page."""
