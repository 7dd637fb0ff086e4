"""Analysis of trajectories and run folders: numbers, tables and figures."""
