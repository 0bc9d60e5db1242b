"""The path from image files to batches on the device: sources, randomization, preprocessing, batches."""
