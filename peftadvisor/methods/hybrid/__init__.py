"""Hybrids: several methods together."""
