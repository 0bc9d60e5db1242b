"""Trains many runs: in this process, in one process for each device, or on a Ray cluster."""
