"""the mathematics of sampling: pure functions and frozen dataclasses

Rectified flow (Liu et al. 2022, Lipman et al. 2022): x_sigma = (1 - sigma) data + sigma noise, velocity = noise - data.
"""
