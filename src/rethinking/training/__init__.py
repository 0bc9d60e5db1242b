"""Trains runs: prepares them, trains and evaluates their networks, and writes run folders and logs."""

from rethinking.training.run import find, train
from rethinking.training.run_dir import RunResult

__all__ = ["RunResult", "find", "train"]
