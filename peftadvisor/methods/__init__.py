"""Every fine-tuning method: one file each, one line here."""

from __future__ import annotations

from peftadvisor.errors import UnknownNameError
from peftadvisor.methods.base import Method
from peftadvisor.methods.bitfit import BITFIT
from peftadvisor.methods.dora import DORA
from peftadvisor.methods.full import FULL
from peftadvisor.methods.houlsby import HOULSBY
from peftadvisor.methods.ia3 import IA3
from peftadvisor.methods.ln_tuning import LN_TUNING
from peftadvisor.methods.lora import LORA, LORA_ALL
from peftadvisor.methods.pfeiffer import PFEIFFER
from peftadvisor.methods.prefix_tuning import PREFIX_TUNING
from peftadvisor.methods.prompt_tuning import PROMPT_TUNING
from peftadvisor.methods.qlora import QLORA

METHODS: tuple[Method, ...] = (
    FULL,
    LORA,
    LORA_ALL,
    QLORA,
    DORA,
    IA3,
    LN_TUNING,
    BITFIT,
    PROMPT_TUNING,
    PREFIX_TUNING,
    HOULSBY,
    PFEIFFER,
)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownNameError: no such method; the message names the closest.
    """
    by_name = {method.name: method for method in METHODS}
    if name not in by_name:
        raise UnknownNameError("method", name, by_name)
    return by_name[name]
