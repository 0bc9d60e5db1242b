"""Random labels are fitted as well as true ones (Section 2.1), on the built-in digits.

Expect both runs to reach 100% training accuracy; the test accuracy is about 98% with true labels and chance, about
10%, with random ones. Less than a minute on two cores.
"""

from rethinking.config import get_baseline_config, get_random_labels_config

OPTIONS = {"dataset": "digits", "lr_schedule": "constant", "num_epochs": 80}

CONFIGS = {
    "true labels": get_baseline_config("mlp_3x512", **OPTIONS),
    "random labels": get_random_labels_config("mlp_3x512", **OPTIONS),
}
