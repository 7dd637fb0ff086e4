"""From runs to what people read: outcomes, comparisons with their statistics, curves, one HTML page."""
