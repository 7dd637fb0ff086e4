"""Simulations: programs of the command line, training, suites, studies and examples."""
