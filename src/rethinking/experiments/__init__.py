"""Experiments: lists of configurations, with the paper's numbers next to ours."""
