"""Reproduce the paper's tables and figures: `python reproduce.py --help`."""

from rethinking.cli import reproduce

if __name__ == "__main__":
    reproduce()
