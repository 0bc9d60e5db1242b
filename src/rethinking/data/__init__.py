"""From image files to batches on the device: sources, randomization, preprocessing, batches, in that order."""
