"""Sections 2.2, 4 and 5 as functions: complexity measured, networks that memorize, solutions that interpolate."""
