"""Tensor trains: a tensor of many modes as a chain of cores (t, n, t), t at the ends being 1."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any


def modes(width: int, count: int = 3) -> list[int]:
    """The width as a product of up to ``count`` numbers of about the same size."""
    sizes, rest, divisor = [1] * count, width, 2
    primes = []
    while rest > 1:
        while rest % divisor == 0:
            primes.append(divisor)
            rest //= divisor
        divisor += 1
    for prime in reversed(primes):
        sizes.sort()
        sizes[0] *= prime
    return sorted(size for size in sizes if size > 1) or [1]


def core_shapes(sizes: list[int], rank: int) -> list[tuple[int, int, int]]:
    """Shapes of the cores of a train over modes of these sizes."""
    ranks = [1, *[rank] * (len(sizes) - 1), 1]
    return [(left, n, right) for n, (left, right) in zip(sizes, pairwise(ranks), strict=True)]


def train_of(shapes: Iterable[tuple[int, int, int]], std: float = 1.0) -> Any:
    """Cores of these shapes, random so that what they make has entries of about ``std``."""
    import torch
    from torch import nn

    train = nn.ParameterList(torch.empty(shape) for shape in shapes)
    for core in train:
        nn.init.normal_(core, std=core.shape[2] ** -0.5)
    with torch.no_grad():
        train[0].mul_(std)
    return train


def contracted(train: Any) -> Any:
    """The whole tensor that a train stands for, as one column."""
    first, *others = train
    made = first.flatten(0, 1)
    for core in others:
        made = (made @ core.flatten(1)).view(-1, core.shape[2])
    return made
