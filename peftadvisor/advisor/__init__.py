"""Which method, with which settings, on this GPU: search, reasons, and what does not fit.

Each function is loaded when it is first used: one run needs nothing of the search.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftadvisor.advisor.comparing import compare
    from peftadvisor.advisor.estimating import estimate
    from peftadvisor.advisor.recommending import recommend

__all__ = ["compare", "estimate", "recommend"]

_HOMES = {"compare": "comparing", "estimate": "estimating", "recommend": "recommending"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'peftadvisor.advisor' has no attribute '{name}'")
    return getattr(import_module(f"peftadvisor.advisor.{_HOMES[name]}"), name)
