"""Experiments, which are lists of configurations, and the paper's numbers next to ours."""
