"""Sections 4 and 5 as functions: kernels and the solutions that interpolate."""
