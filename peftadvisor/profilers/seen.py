"""What training will be fed, seen before it starts, without taking a batch from the loader."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from peftadvisor.errors import UsageError

LOOK = 256
"""Samples that are looked at, spread evenly over the data."""
_REMEDY = "pass seq_len="


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths that were said: of samples, and of targets of encoder-decoders; None if not."""

    seq_len: int | None = None
    target_len: int | None = None

    def __post_init__(self) -> None:
        """Raise UsageError on a length that is none."""
        for name in ("seq_len", "target_len"):
            value = getattr(self, name)
            if value is not None and not (type(value) is int and value >= 1):
                raise UsageError(f"{name} is {value!r}; it must be a positive whole number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The largest micro-batch there is: its rows, lengths, and whether it holds padding.

    ``target_len`` is the length of labels, None where they are no sequences. ``names`` are the
    tensors of a batch, by the kind of their numbers (``ids`` or ``floats``). ``how`` says where
    the lengths come from; ``surely`` that no longer sample can come.
    """

    rows: int
    seq_len: int
    target_len: int | None = None
    padded: bool = False
    names: tuple[tuple[str, str], ...] = ()
    how: str
    surely: bool = True


def largest(args: Any, loader: Any, lengths: Lengths) -> Seen:
    """The largest micro-batch: by the length that was said, else by the samples of a loader.

    Where not all samples were seen, TRL's ``max_length`` goes before the longest of them.

    Raises:
        UsageError: no length was said, and there is no data of which one can be seen.
    """
    if lengths.seq_len is not None:
        return stated(args, lengths.seq_len, lengths.target_len, "seq_len as given")
    longest: int | None = getattr(args, "max_length", None)
    if loader is None:
        if longest is None:
            raise UsageError(f"no length of samples was said and no data was seen; {_REMEDY}")
        return stated(args, longest, lengths.target_len, "max_length of the arguments")
    seen = look(loader, args.train_batch_size)
    if not seen.surely and longest is not None and longest > seen.seq_len:
        return replace(seen, seq_len=longest, how="max_length of the arguments")
    return seen


def stated(args: Any, seq_len: int, target_len: int | None, how: str) -> Seen:
    """The largest micro-batch of so many rows as the arguments say; rows differ unless packed."""
    rows = args.per_device_train_batch_size
    padded = rows > 1 and not getattr(args, "packing", False)
    return Seen(rows=rows, seq_len=seq_len, target_len=target_len, padded=padded, how=how)


def look(loader: Any, rows: int) -> Seen:
    """The largest micro-batch that a loader can make of up to ``LOOK`` of its samples.

    The longest sample is collated with the shortest, by the loader's own collator; nothing is
    taken from the loader, and random numbers go on as if nobody had looked.

    Raises:
        UsageError: the data comes as a stream, cannot be read, or makes batches without ids.
    """
    data, collate = getattr(loader, "dataset", None), getattr(loader, "collate_fn", None)
    if not (isinstance(data, Sized) and hasattr(data, "__getitem__")) or collate is None:
        raise UsageError(f"the data is a stream, of which nothing can be seen before; {_REMEDY}")
    numbers = sorted({round(n) for n in np.linspace(0, len(data) - 1, LOOK)}) if len(data) else []
    with undisturbed(), _said():
        samples = [data[number] for number in numbers]
        batches = [collate(chosen) for chosen in _chosen(samples, rows)]
    all_seen = len(samples) == len(data)
    how = f"longest of {'all' if all_seen else f'{len(samples)} of'} {len(data)} samples"
    seen = [_of(batch, how, all_seen) for batch in batches]
    return max(seen, key=lambda one: one.seq_len)


def _chosen(samples: list[Any], rows: int) -> list[list[Any]]:
    """One micro-batch where samples hold their ids, else all of them in order."""
    if not samples:
        raise UsageError(f"the data is empty; {_REMEDY}")
    if all(isinstance(_ids(sample), Sized) for sample in samples):
        ordered = sorted(samples, key=lambda sample: len(_ids(sample)))
        return [[ordered[-1], *ordered[:-1][: rows - 1]]]
    return [samples[start : start + rows] for start in range(0, len(samples), rows)]


def _ids(sample: Any) -> Any:
    return sample.get("input_ids") if hasattr(sample, "get") else None


def _of(batch: Any, how: str, surely: bool) -> Seen:
    ids: Any = batch.get("input_ids") if hasattr(batch, "get") else None
    if getattr(ids, "ndim", 0) != 2:
        raise UsageError("batches hold no matrix of input_ids, which alone is simulated")
    mask: Any = batch.get("attention_mask")
    labels: Any = batch.get("labels")
    tensors = {name: t for name, t in batch.items() if isinstance(t, torch.Tensor)}
    return Seen(
        rows=ids.shape[0],
        seq_len=ids.shape[1],
        target_len=labels.shape[1] if getattr(labels, "ndim", 0) == 2 else None,
        padded=mask is not None and not bool(mask.all()),
        names=tuple((n, "floats" if t.is_floating_point() else "ids") for n, t in tensors.items()),
        how=how,
        surely=surely,
    )


@contextmanager
def _said() -> Iterator[None]:
    """What the user's own data and collator raise, in one line."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:  # code of the user's own may raise anything
        raise UsageError(
            f"the data cannot be looked at ({type(error).__name__}: {error}); {_REMEDY}"
        ) from error


@contextmanager
def undisturbed() -> Iterator[None]:
    """Leave the random numbers of torch on the host, NumPy and Python as they were."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
