"""Trains runs: preparation, the loop and its evaluation, hardware, run folders and loggers."""

from rethinking.training.many import train_many
from rethinking.training.run import find, train
from rethinking.training.run_dir import RunResult

__all__ = ["RunResult", "find", "train", "train_many"]
