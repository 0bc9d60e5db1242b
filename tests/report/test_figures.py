from pathlib import Path

from PIL import Image

from rethinking import get_baseline_config, get_random_labels_config, train
from rethinking.report.figures import learning_curves


def test_learning_curves_are_drawn_for_every_run(tmp_path: Path):
    options = {"dataset": "digits", "num_epochs": 2, "runs_dir": str(tmp_path / "runs"), "use_tensorboard": False}
    results = {
        "true labels": train(get_baseline_config("mlp_1x512", **options)),
        "random labels": train(get_random_labels_config("mlp_1x512", **options)),
    }
    with Image.open(learning_curves(results, tmp_path / "figures/demo.png")) as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
    drawn = {colour for count, colour in colours or [] if count > 100}
    assert {(31, 119, 180), (255, 127, 14)} <= drawn, "a run's curve is missing"
