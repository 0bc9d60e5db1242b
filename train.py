"""Train one experiment of the paper: `python train.py --help`."""

from rethinking.cli import train

if __name__ == "__main__":
    train()
