"""accelerate's launch config: how many processes, how they divide the run, mixed precision.

It says nothing of model, method or data: it is read beside a training config that names it. Read
in accelerate 1.15 and in the configs that trl 1.16 brings along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.deepspeed import sharding_of
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.fsdp import fsdp_of
from peftadvisor.integrations.configs.reader import Reader, one_of, shown, whole
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig, Tool
from peftadvisor.specs import DType, Sharding

VERSION = "1.15.0"
_MARKS = frozenset(
    {"compute_environment", "distributed_type", "main_training_function", "machine_rank"}
    | {"num_machines", "downcast_bf16", "rdzv_backend", "same_network"}
)
_TYPES: Mapping[str, str] = {name: name for name in ("no", "multi_gpu", "deepspeed", "fsdp")}
_PRECISIONS: Mapping[str, DType | None] = {"no": None, "bf16": "bf16", "fp16": "fp16"}
_OFFLOADS = ("offload_optimizer_device", "offload_param_device")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What a launch config decides; ``precision`` holds where the training config asks for none."""

    gpus: int | None
    sharding: Sharding
    precision: DType | None
    notes: tuple[str, ...] = ()


_SHARDINGS: Mapping[str, Sharding] = {
    "single_gpu": "ddp",
    "multi_gpu": "ddp",
    "fsdp1": "fsdp",
    "fsdp2": "fsdp",
    "zero1": "zero-1",
    "zero2": "zero-2",
    "zero3": "zero-3",
}
PACKAGED: Mapping[str, Launch] = {
    name: Launch(gpus=1 if name == "single_gpu" else 8, sharding=sharding, precision="bf16")
    for name, sharding in _SHARDINGS.items()
}
"""The configs that TRL knows by name: eight processes, bf16."""


def launch_of(named: Any, folder: Path, file: str) -> Launch:
    """The launch config that a training config names: TRL's name for one, or a path.

    Raises:
        UsageError: neither, or a config that does not divide a run as known here.
    """
    if str(named) in PACKAGED:
        return PACKAGED[str(named)]
    path = next((p for p in (folder / str(named), Path(str(named))) if _is_file(p)), None)
    if path is None:
        raise UsageError(
            f"{file}: 'accelerate_config' is {shown(named)}, which is no file here; write its "
            f"path or one of: {', '.join(PACKAGED)}"
        )
    found = read_config_file(path)
    return launch(found.values, path.parent, one_line(str(path)))


def launch(values: Mapping[str, Any], folder: Path, file: str) -> Launch:
    """The content of a launch config.

    Raises:
        UsageError: another kind of distribution, or a value out of place.
    """
    reader = Reader(values, file, f"accelerate {VERSION}")
    kind = reader.take("distributed_type", "distributed_type", _kind, "no")
    processes = reader.take("gpus", "num_processes", whole, None)
    precision = reader.take("precision", "mixed_precision", _precision, None)
    sharding, notes = _DIVIDE[kind](reader, folder)
    return Launch(
        gpus=1 if kind == "no" else processes,
        sharding=sharding,
        precision=precision,
        notes=notes,
    )


def _kind(value: Any) -> str:
    """YAML reads a bare NO as false."""
    return one_of(_TYPES)("no" if value is False else value)


def _precision(value: Any) -> DType | None:
    return one_of(_PRECISIONS)("no" if value is False else value)


def _plain(_reader: Reader, _folder: Path) -> tuple[Sharding, tuple[str, ...]]:
    return "ddp", ()


def _deepspeed(reader: Reader, folder: Path) -> tuple[Sharding, tuple[str, ...]]:
    options = _options(reader, "deepspeed_config")
    if options.get("deepspeed_config_file"):
        return sharding_of(options["deepspeed_config_file"], folder, reader.file)
    offloads = {
        name.removesuffix("_device"): {"device": options[name]}
        for name in _OFFLOADS
        if options.get(name)
    }
    zero = {"stage": options.get("zero_stage", 2), **offloads}
    return sharding_of({"zero_optimization": zero}, folder, reader.file)


def _fsdp(reader: Reader, _folder: Path) -> tuple[Sharding, tuple[str, ...]]:
    options = _options(reader, "fsdp_config")
    plain = {str(name).removeprefix("fsdp_"): value for name, value in options.items()}
    return fsdp_of(True, plain, reader.file)


_DIVIDE = {"no": _plain, "multi_gpu": _plain, "deepspeed": _deepspeed, "fsdp": _fsdp}


def _options(reader: Reader, key: str) -> Mapping[str, Any]:
    found = reader.peek(key, {})
    if not isinstance(found, Mapping):
        raise UsageError(f"{reader.file}: '{key}' is {shown(found)}; write a mapping")
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def marks(values: Mapping[str, Any]) -> int:
    """Signs of a launch config."""
    return sum(key in values for key in _MARKS)


def read(file: ConfigFile) -> ReadConfig:
    """Refuse it on its own.

    Raises:
        UsageError: always; the message says what to pass.
    """
    raise UsageError(
        f"{one_line(file.path)} is accelerate's launch config, which names no model; pass the "
        "training config, and this one by its key 'accelerate_config' (TRL)"
    )


TOOL = Tool(
    name="accelerate",
    title="accelerate",
    marks=marks,
    read=read,
    edits=lambda _file, _config, _change: None,
)
