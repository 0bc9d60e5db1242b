"""Runs `rethinking reproduce` from a checkout: `python reproduce.py --help`."""

from rethinking.cli import reproduce

if __name__ == "__main__":
    reproduce()
