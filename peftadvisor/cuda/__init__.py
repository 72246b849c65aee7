"""The device: what it is, how its allocator behaves, which kernels it picks."""
