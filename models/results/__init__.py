"""What comes back: trajectories, and the files that hold them."""
