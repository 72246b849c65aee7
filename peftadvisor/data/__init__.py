"""Facts that ship with the package: GPUs, prices, model configs, recommendations, their sources."""
