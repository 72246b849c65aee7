"""Training configs of other tools, read as runs: recognised by what stands in them."""
