"""From trajectories and run folders to numbers and figures."""
