"""Sections 4 and 5 as functions: networks that memorize, kernels and the solutions that interpolate."""
