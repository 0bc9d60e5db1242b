"""One run: the loop, its evaluation, the hardware it computes on, what it leaves on disk and whom it tells."""

from rethinking.training.many import train_many
from rethinking.training.run import find, train
from rethinking.training.run_dir import RunResult

__all__ = ["RunResult", "find", "train", "train_many"]
