"""Activation relaxation: networks, the ODE, its solvers and local learning."""
