"""How well scores find wrong labels, where it is known which are wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rethinking.measures.scores import Scores

Wrong = NDArray[np.bool_]


def auroc(suspicion: Scores, wrong: Wrong) -> float:
    """Returns the probability that a wrong label is more suspicious than a right one; ties count half.

    It is the area under the ROC curve, and nan where all labels are right or all are wrong.

    suspicion: float64 (n,), largest where a label is suspected most
    wrong: bool (n,)
    """
    right = ~wrong
    if not wrong.any() or not right.any():
        return float("nan")
    ranks = stats.rankdata(suspicion)
    above = ranks[wrong].sum() - wrong.sum() * (wrong.sum() + 1) / 2
    return float(above / (wrong.sum() * right.sum()))


def precision_at(suspicion: Scores, wrong: Wrong, count: int) -> float:
    """Returns the share of wrong labels among the `count` most suspicious, in expectation over the order of ties.

    `count` is from 1 to n. Arguments are those of `auroc`.
    """
    threshold = np.partition(suspicion, -count)[-count]
    above, tied = suspicion > threshold, suspicion == threshold
    left = count - above.sum()
    return float((wrong[above].sum() + left * wrong[tied].mean()) / count)


def roc(suspicion: Scores, wrong: Wrong) -> tuple[Scores, Scores]:
    """Returns the ROC curve: rates of false and of true positives, a point for each distinct suspicion and the origin.

    Both are float64 from 0 to 1 and rise. Arguments are those of `auroc`; both kinds of labels must be there.
    """
    order = np.argsort(-suspicion, kind="stable")
    ordered = suspicion[order]
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    true = np.cumsum(wrong[order])[ends]
    false = ends + 1 - true
    return np.append(0.0, false / (~wrong).sum()), np.append(0.0, true / wrong.sum())
