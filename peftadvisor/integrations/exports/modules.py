"""The real modules of the run, built without weights: what they are called, and what is trained."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from typing import TYPE_CHECKING

from peftadvisor.errors import UnsupportedError
from peftadvisor.integrations.exports.value import Export

if TYPE_CHECKING:
    from peftadvisor.simulator.attachment import Attachment


def attachment(export: Export) -> Attachment:
    """How the method sits on the model.

    Raises:
        UnsupportedError: torch, transformers or peft is not installed.
        UsageError: the combination cannot be built.
    """
    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"this export builds the model's modules to name its layers, and {missing[0]} is not "
            "installed; pip install 'peftadvisor[profile]'"
        )
    from peftadvisor.simulator.attachment import attachment_of

    plain = dataclasses.replace(
        export.training, attention="sdpa", loss="torch", transformers="5", quantization="none"
    )
    return attachment_of(export.run.model, export.run.method, plain)
