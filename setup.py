"""Compile the allocator's replay where a C compiler is at hand; without one it runs interpreted."""

from mypyc.build import mypycify
from setuptools import setup

compiled = mypycify(
    ["--config-file=", "--follow-imports=skip", "peftadvisor/cuda/arena.py"],
    opt_level="3",
    debug_level="0",
)
for extension in compiled:
    extension.optional = True

setup(ext_modules=compiled)
