"""Measures of examples: what a network's training says about each of them, and which labels it suspects."""
