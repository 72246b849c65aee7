"""Real runs on a device, measured: memory, FLOPs, time."""
