"""Do all engines and integrators agree with the exact laws, with autograd, and with each other?"""
