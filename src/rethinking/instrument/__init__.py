"""Runs randomization tests of any network on any images, and writes their verdict."""
