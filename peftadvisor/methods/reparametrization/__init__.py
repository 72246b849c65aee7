"""Reparametrization: a change of weights that is written with few parameters."""
