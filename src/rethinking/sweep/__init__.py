"""Many runs: here, one process for each device, or on a Ray cluster."""
