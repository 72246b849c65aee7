"""The model and the GPU that a name, a path or ``auto`` stands for."""

from __future__ import annotations

import os
from pathlib import Path

from peftadvisor.data.gpus import custom_gpu, find_gpu
from peftadvisor.data.models import find_model, load_model_file
from peftadvisor.errors import UnknownNameError, UsageError
from peftadvisor.specs import GpuSpec, ModelSpec
from peftadvisor.units import parse_bytes


def model_spec(name: str) -> ModelSpec:
    """A local config, a bundled model, or one whose config the Hub gives.

    Raises:
        UsageError: none of these; the message names the closest bundled model.
    """
    if name and _is_local(name):
        return load_model_file(name)
    try:
        return find_model(name)
    except UnknownNameError as unknown:
        from peftadvisor.integrations import hub

        if name and _is_folder(name):
            return load_model_file(name)
        if not hub.is_hub_id(name):
            raise
        try:
            return hub.fetch_model(name)
        except UsageError as error:
            raise UsageError(f"{unknown} ({error})") from None


def gpu_spec(name: str, memory: str | None) -> GpuSpec:
    """The named GPU, or the one of this machine, with the memory that the user states.

    Raises:
        UsageError: no such GPU, none here, or no such quantity.
    """
    if name != "auto":
        return find_gpu(name) if memory is None else custom_gpu(find_gpu(name), parse_bytes(memory))
    from peftadvisor.cuda.devices import live_gpu

    live = live_gpu()
    stated = live.usable_bytes if memory is None else parse_bytes(memory)
    return custom_gpu(find_gpu(live.name), stated)


def _is_local(name: str) -> bool:
    path = Path(name)
    looks_like_one = name.endswith(".json") or name.startswith(("~", ".", os.sep))
    try:
        return looks_like_one or path.is_file() or (path / "config.json").is_file()
    except (OSError, ValueError):
        return False


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        return False
