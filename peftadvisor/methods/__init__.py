"""Every fine-tuning method: one file each, one line here."""

from __future__ import annotations

from peftadvisor.errors import UnknownNameError
from peftadvisor.methods.base import Method
from peftadvisor.methods.full import FULL
from peftadvisor.methods.lora import LORA, LORA_ALL

METHODS: tuple[Method, ...] = (FULL, LORA, LORA_ALL)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UnknownNameError: no such method; the message names the closest.
    """
    by_name = {method.name: method for method in METHODS}
    if name not in by_name:
        raise UnknownNameError("method", name, by_name)
    return by_name[name]
