"""Experiments: lists of configurations, and the paper's own numbers beside them."""
