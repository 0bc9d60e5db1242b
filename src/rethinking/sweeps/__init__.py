"""Grids of runs: their options, their configurations, and the table and figure that show them."""
