"""Sections 2.2, 4 and 5 as functions: measured complexity, networks that memorize, solutions that interpolate."""
