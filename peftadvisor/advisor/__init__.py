"""Which method, with which settings, on this GPU: search, reasons, and what does not fit."""

from peftadvisor.advisor.comparing import compare
from peftadvisor.advisor.estimating import estimate
from peftadvisor.advisor.recommending import recommend

__all__ = ["compare", "estimate", "recommend"]
