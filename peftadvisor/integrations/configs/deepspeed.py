"""The ``deepspeed`` key of a training config: which stage of ZeRO it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.specs import Sharding

_STAGES: Mapping[int, Sharding] = {0: "ddp", 1: "zero-1", 2: "zero-2", 3: "zero-3"}
_STAGE_IN_NAME = re.compile(r"(?:zero|stage|(?:^|[_-])z)[_-]?([0-3])(?!\d)", re.IGNORECASE)
_OFFLOADS: Mapping[str, str] = {
    "offload_optimizer": "DeepSpeed's offload of optimizer states",
    "offload_param": "DeepSpeed's offload of weights",
    "cpu_offload": "DeepSpeed's offload of optimizer states",
    "cpu_offload_params": "DeepSpeed's offload of weights",
}
"""Keys of ``zero_optimization``, of today and of DeepSpeed before 0.4."""


def sharding_of(config: Any, folder: Path, file: str) -> tuple[Sharding, tuple[str, ...]]:
    """How a DeepSpeed config divides the run, and notes on what of it is not predicted.

    ``config`` is the mapping itself or the path of a JSON file, which is looked for below
    ``folder`` (that of the training config, named ``file``), then where the process runs. A file
    that is neither here nor there still tells its stage where its name does, which a note says.

    Raises:
        UsageError: neither a mapping nor a path, no such file, or a stage that ZeRO does not have.
    """
    if isinstance(config, Mapping):
        return _read(config, f"{file}: 'deepspeed'")
    if not isinstance(config, str) or not config.strip():
        raise UsageError(
            f"{file}: 'deepspeed' is {one_line(str(config))}; write the path of a JSON file or its "
            "content"
        )
    found = next((path for path in (folder / config, Path(config)) if _is_file(path)), None)
    if found is None:
        return _named(config, file)
    return _read(read_config_file(found).values, one_line(str(found)))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _read(values: Mapping[str, Any], where: str) -> tuple[Sharding, tuple[str, ...]]:
    zero = values.get("zero_optimization") or {}
    if not isinstance(zero, Mapping):
        raise UsageError(f"{where} has a 'zero_optimization' that is no mapping; give it a 'stage'")
    stage = zero.get("stage") or 0
    if type(stage) is not int or stage not in _STAGES:
        raise UsageError(f"{where} has the stage {one_line(str(stage))}; ZeRO's are 0, 1, 2 and 3")
    offloads = {text: None for key, text in _OFFLOADS.items() if _offloads(zero.get(key))}
    return _STAGES[stage], tuple(f"{text} is left out of the prediction" for text in offloads)


def _offloads(said: Any) -> bool:
    """Whether a value asks for offload: a switch, or a mapping with a device that is not none."""
    if isinstance(said, Mapping):
        return str(said.get("device", "cpu")).lower() != "none"
    return bool(said)


def _named(path: str, file: str) -> tuple[Sharding, tuple[str, ...]]:
    shown = one_line(path)
    stages = {int(stage) for stage in _STAGE_IN_NAME.findall(Path(path).stem)}
    if len(stages) != 1:
        raise UsageError(
            f"{file}: 'deepspeed' is {shown}, which is not there; put the file beside the config "
            "or write its content in its place"
        )
    note = f"{shown} is not here, so the stage of ZeRO is read off its name"
    offload = "offload" in path.lower()
    return _STAGES[stages.pop()], (
        (note, "DeepSpeed's offload is left out of the prediction") if offload else (note,)
    )
