"""Soft prompts: trained vectors or prefixes that sequences begin with."""
