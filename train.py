"""Runs `rethinking train` from a checkout: `python train.py --help`."""

from rethinking.cli import train

if __name__ == "__main__":
    train()
