"""Real weights out of a local folder: safetensors only, no network, no code of the folder's own."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from logging import CRITICAL
from pathlib import Path
from typing import Any

from peftadvisor.data.config_files import load_model_file
from peftadvisor.errors import UsageError
from peftadvisor.simulator.batches import task_of
from peftadvisor.simulator.build import TORCH_DTYPES, build_model, stacks_of
from peftadvisor.simulator.depth import normal
from peftadvisor.specs import ModelSpec, TrainingSpec

INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
REMEDY = "give a folder that save_pretrained made, with config.json and model.safetensors"


def checked_model(folder: str, named: ModelSpec | None) -> ModelSpec:
    """The model of a checkpoint: ``named``, if it is of that one, else as its config.json says.

    Two models are the same if their configs agree in the type, in every whole number and in what
    is tied.

    Raises:
        UsageError: no folder, no safetensors in it, or of another model.
    """
    if not _is_folder(folder):
        raise UsageError(f"--checkpoint '{folder}' is no folder; {REMEDY}")
    _require_safetensors(Path(folder))
    found = load_model_file(folder)
    if "quantization_config" in found.config:
        raise UsageError(f"--checkpoint {folder} holds quantized weights; give the plain ones")
    if named is None:
        return found
    asked, given = (dict(_numbers(normal(spec.config))) for spec in (named, found))
    for key in ("model_type", *sorted(asked.keys() | given.keys())):
        one, other = asked.get(key), given.get(key)
        if one != other and float not in (type(one), type(other)):
            raise UsageError(
                f"--checkpoint {folder} is not of {named.id}: {key} is {other}, not {one}; "
                "leave --model out to take the checkpoint's own"
            )
    return named


def load_model(folder: str, spec: ModelSpec, training: TrainingSpec, device: str) -> Any:
    """The model that the simulator builds, in training mode, with a checkpoint's weights.

    A head that the checkpoint does not have starts at random, as it would in fine-tuning.

    Raises:
        UsageError: the folder is not complete, broken, or its weights do not fit.
    """
    _require_safetensors(Path(folder))
    bare: Any = build_model(spec, replace(training, attention="sdpa"))
    attention = None if training.attention == "sdpa" else training.attention
    try:
        with _silent():
            model, told = type(bare).from_pretrained(
                folder,
                config=bare.config,
                dtype=TORCH_DTYPES[training.dtype],
                attn_implementation=attention,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # of transformers, safetensors and the disk
        line = " ".join(str(error).split())[:200]
        raise UsageError(f"--checkpoint {folder} cannot be loaded ({line}); {REMEDY}") from error
    layers = tuple(f"{stack.path}." for stack in stacks_of(bare))
    lacking = sorted(name for name in told["missing_keys"] if name.startswith(layers))
    if lacking:
        raise UsageError(
            f"--checkpoint {folder} lacks {len(lacking)} weights of its layers ({lacking[0]}); "
            f"{REMEDY}"
        )
    if forward := task_of(model).forward:
        model.forward = partial(model.forward, **forward)
    return model.to(device).train()


def _require_safetensors(folder: Path) -> None:
    """Refuse what transformers would read otherwise: pickles, and adapters in place of models."""
    if (folder / "adapter_config.json").exists():
        raise UsageError(f"--checkpoint {folder} is an adapter; merge it into its model first")
    if (folder / INDEX).is_file():
        _check_index(folder)
    elif not (folder / "model.safetensors").is_file():
        pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
        why = f"pickled weights only ({pickles[0]})" if pickles else "no model.safetensors"
        remedy = "save it again by save_pretrained, which writes safetensors" if pickles else REMEDY
        raise UsageError(f"--checkpoint {folder} holds {why}; {remedy}")


def _check_index(folder: Path) -> None:
    try:
        names = set(json.loads((folder / INDEX).read_text("utf-8"))["weight_map"].values())
        stray = sorted(n for n in names if not n.endswith(".safetensors") or n != Path(n).name)
        missing = sorted(n for n in names if not (folder / n).is_file())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{folder / INDEX} is broken; {REMEDY}") from None
    if stray:
        raise UsageError(f"{folder / INDEX} names {stray[0]}, no safetensors in the folder")
    if missing:
        raise UsageError(f"--checkpoint {folder} lacks {missing[0]}; copy the whole folder")


def _is_folder(path: str) -> bool:
    try:
        return bool(path) and Path(path).is_dir()
    except (OSError, ValueError):
        return False


def _numbers(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers, types and ties of a config and its parts, by dotted path; no ids of tokens."""
    for key, value in config.items():
        if str(key).endswith("_token_id") or key == "label2id":
            continue
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{path}{key}.")
        elif key in ("model_type", "tie_word_embeddings") or type(value) in (int, float):
            yield f"{path}{key}", value


@contextmanager
def _silent() -> Iterator[None]:
    """No warnings, no reports, no progress bar; as they were afterwards."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(CRITICAL)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
