"""Many runs together: what a suite consists of, doing it, and what came out."""
