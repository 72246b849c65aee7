"""What made a profile: versions of what took part, as far as it is installed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from peftadvisor.profiles import Engine, Provenance

PACKAGES = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")


def provenance(engine: Engine, recording: str, more: Mapping[str, str] | None = None) -> Provenance:
    """Versions of the packages that are installed, of Python, and ``more``."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return Provenance(
        engine=engine,
        versions={**versions, **(more or {})},
        recording=recording,
        calibration="none",
    )
