"""Seconds of matrix products: whole tiles, in whole waves over a card's multiprocessors.

A product m × n × k is cut into tiles of the result, each computed by one multiprocessor; k can be
split, so that few tiles keep more of them busy, at the price of adding up partial sums:

    tiles = batch · ⌈m / tile m⌉ · ⌈n / tile n⌉ · splits          waves = ⌈tiles / multiprocessors⌉
    t = waves · multiprocessors · 2 · tile m · tile n · ⌈k / splits⌉ / (rate · tile efficiency)
      + (splits > 1) · batch · m · n · splits · 8 B / bandwidth

in seconds, the least over a few tiles and splits, as the library's heuristic would choose. Left
out: persistent (stream-k) kernels, which fill the last wave; alignment; layouts.
"""

from __future__ import annotations

import numpy as np

from peftadvisor.cost_model.kernel_classes import Floats

TILES: Floats = np.array(
    [
        (256, 128, 1.0),
        (128, 256, 1.0),
        (128, 128, 0.95),
        (128, 64, 0.8),
        (64, 128, 0.8),
        (64, 64, 0.65),
        (128, 32, 0.55),
        (32, 128, 0.55),
        (32, 32, 0.35),
    ]
)
"""Sides of a tile of the result, and its rate relative to the largest: small ones load more."""

SPLITS: Floats = np.array([1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0])
LEAST_DEPTH = 32
"""The least k that a tile works through: one step of its inner loop."""
PARTIAL_BYTES = 8
"""A partial sum is fp32, written once and read once."""


def matmul_seconds(dims: Floats, rate: Floats, multiprocessors: int, bandwidth: float) -> Floats:
    """Seconds that each product computes; ``dims`` are batch, m, n, k, one column a product.

    ``rate`` (FLOP/s, each product's) and ``bandwidth`` (B/s) are those reached, not the peaks.
    """
    batch, m, n, k = (row[:, None, None] for row in dims)
    tile_m, tile_n, efficiency = (side[:, None] for side in TILES.T)
    tiles = batch * np.ceil(m / tile_m) * np.ceil(n / tile_n) * SPLITS
    waves = np.ceil(tiles / multiprocessors)
    depth = np.maximum(np.ceil(k / SPLITS), LEAST_DEPTH)
    per_wave = multiprocessors * 2 * tile_m * tile_n * depth
    seconds = waves * per_wave / (rate[:, None, None] * efficiency)
    partial = np.where(SPLITS > 1, SPLITS * PARTIAL_BYTES, 0.0) * batch * m * n / bandwidth
    least: Floats = (seconds + partial).min(axis=(1, 2))
    return least
