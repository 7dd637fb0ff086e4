"""Check that engines and integrators agree with the closed form, with autograd, and with each other."""
