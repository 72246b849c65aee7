"""Adapters: small networks put between or beside the layers of the model."""
