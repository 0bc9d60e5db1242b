"""Figure 1b: time to overfit as more labels are random, relative to true labels.

Expect the time to grow by a small factor only: 3.6 for small Inception, 1.5 for small AlexNet, 2 for MLP 1x512. The
definition of overfitting is this project's own (time_to_overfit.py). At full scale there are 33 runs, of which six are
also Table 1's. On two cores, all runs of the MLP take a quarter of an hour, of AlexNet four hours, of Inception a day.
"""

from typing import Any

from rethinking.experiments.experiment import Answer, Experiment, Number, Plot, Row
from rethinking.experiments.paper import curve, read_table
from rethinking.experiments.quantities import count, decimals, declare
from rethinking.experiments.scale import Study
from rethinking.experiments.time_to_overfit import DEFINITION, time_to_overfit

RELATIVE = declare(
    "relative time to overfit", decimals(2), "", "epochs to overfit, divided by the epochs for true labels"
)
EPOCHS_TO_OVERFIT = declare("epochs to overfit", count, "", f"first epoch with {DEFINITION}")
MODELS = tuple(dict.fromkeys(row["model"] for row in read_table("figure1b")))
CURVES = {
    (model, quantity): curve("figure1b", "label_corruption", quantity.replace(" ", "_"), model=model)
    for model in MODELS
    for quantity in (RELATIVE, EPOCHS_TO_OVERFIT)
}


def rows(study: Study) -> list[Row]:
    """Every model at each level of label corruption. The two ends are runs of Table 1."""
    return [
        Row((("model", model), ("label_corruption", f"{level / 10:g}")), study.config(model, **_corrupted(level)))
        for model in MODELS
        if model in study.models
        for level in study.scale.levels
    ]


def _corrupted(level: int) -> dict[str, Any]:
    if level in (0, 10):
        return {"randomization": "random_labels" if level else "none"}
    return {"randomization": "partial_corrupt", "corruption_prob": level / 10}


def numbers(answers: list[Answer]) -> list[Number]:
    """Epochs to overfit, and their ratio to the epochs on true labels with the same model and seed."""
    on_true_labels = {
        (dict(answer.row.labels)["model"], answer.seed): answer.evidence
        for answer in answers
        if dict(answer.row.labels)["label_corruption"] == "0"
    }
    found = []
    for answer in answers:
        labels = dict(answer.row.labels)
        model, level = labels["model"], float(labels["label_corruption"])
        epochs = time_to_overfit(answer.evidence.metrics)
        baseline = on_true_labels.get((model, answer.seed))
        on_true = time_to_overfit(baseline.metrics) if baseline else None
        ratio = epochs / on_true if epochs and on_true else None
        missed = "" if epochs or not answer.evidence.finished else f"not in {len(answer.evidence.metrics)} epochs"
        lacks = "no baseline" if epochs and not on_true else missed
        for quantity, ours, note, relative_to in (
            (RELATIVE, ratio, lacks, baseline),
            (EPOCHS_TO_OVERFIT, epochs, missed, None),
        ):
            paper = CURVES[model, quantity][level]
            found.append(Number(answer, quantity, ours, paper, level, note, bool(ours), relative_to))
    return found


EXPERIMENT = Experiment(
    title="Figure 1b: time to overfit under label corruption",
    about=__doc__,
    models=MODELS,
    rows=rows,
    numbers=numbers,
    derived=(RELATIVE,),  # 1 at level 0, whatever is measured
    plot=Plot(
        quantities=(RELATIVE,),
        series="model",
        paper=CURVES,
        x_label="label corruption",
        y_label="time to overfit",
        x_limits=(0, 1),
        y_limits=(1, 4),
        points=True,
    ),
)
