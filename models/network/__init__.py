"""What is wired: populations, projections, and the graph that they make."""
