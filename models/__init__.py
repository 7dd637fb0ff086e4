"""What activation relaxation is: networks, the ODE, its solvers, local learning."""
