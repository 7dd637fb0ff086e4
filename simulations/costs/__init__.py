"""What one step of training costs, in time and in memory, whatever the method."""
