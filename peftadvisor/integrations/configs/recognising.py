"""Which tool a config is for, by what stands in it, and the run that it describes."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.value import ConfigFile, Tool

_NAMES = ("axolotl", "llamafactory", "trl", "torchtune", "trainer", "runspec", "accelerate")


def tools() -> Iterable[Tool]:
    """Every tool whose configs are read."""
    for name in _NAMES:
        tool: Tool = import_module(f"peftadvisor.integrations.configs.{name}").TOOL
        yield tool


def tool_of(file: ConfigFile) -> Tool:
    """The tool with most signs in the file; the first of equals, in the order of the list.

    Raises:
        UsageError: no sign of any.
    """
    found = [(tool.marks(file.values), tool) for tool in tools()]
    most, tool = max(found, key=lambda pair: pair[0])
    if most == 0:
        known = ", ".join(tool.title for _, tool in found)
        raise UsageError(
            f"{one_line(file.path)} is no training config that is known here; there are: {known}"
        )
    return tool
