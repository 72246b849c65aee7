"""Selective methods: some of the model's own parameters are trained."""
