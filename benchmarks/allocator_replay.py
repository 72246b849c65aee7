"""Time of the allocator replay: median microseconds per event on a synthetic training step.

Run: python benchmarks/allocator_replay.py [--events 30000] [--repeat 15]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from peftadvisor.cuda.allocator import replay


def training_events(target: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """About ``target`` events of two steps of a 48-layer transformer, sizes from ~100 values.

    Weights stay. In the forward pass each layer makes its tensors, keeps a third of them for the
    backward pass and frees the others within a few events; the backward pass runs over the layers
    in reverse, makes gradients and temporaries and frees what its layer kept.
    """
    rng = random.Random(seed)
    layers, steps = 48, 2
    palette = [rng.randrange(1, 2**20) for _ in range(50)]
    palette += [rng.randrange(2**20, 2**25) for _ in range(40)]
    palette += [rng.randrange(2**25, 2**28) for _ in range(10)]
    events: list[int] = []
    sizes: list[int] = []

    def allocate() -> int:
        sizes.append(rng.choice(palette))
        events.append(len(sizes))
        return len(sizes)

    def burst(count: int, keep_share: float) -> list[int]:
        short: list[int] = []
        kept: list[int] = []
        for _ in range(count):
            (kept if rng.random() < keep_share else short).append(allocate())
            if len(short) > 4:
                events.append(-short.pop(rng.randrange(len(short))))
        events.extend(-storage for storage in short)
        return kept

    for _ in range(layers * 9):
        allocate()
    per_layer = (target - len(events)) // (layers * steps * 2)
    for _ in range(steps):
        kept_by_layer = [burst(per_layer // 2, 1 / 3) for _ in range(layers)]
        gradients: list[int] = []
        for kept in reversed(kept_by_layer):
            gradients += burst(per_layer - per_layer // 2, 0.05)
            events.extend(-storage for storage in reversed(kept))
        events.extend(-storage for storage in gradients)
    return events, sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=30_000)
    parser.add_argument("--repeat", type=int, default=15)
    args = parser.parse_args()
    events, sizes = training_events(args.events)
    for expandable in (False, True):
        times = []
        for _ in range(args.repeat):
            start = time.perf_counter()
            result = replay(events, sizes, expandable_segments=expandable)
            times.append(time.perf_counter() - start)
        median = statistics.median(times)
        print(
            f"expandable_segments={expandable}: {median / len(events) * 1e6:.2f} us per event, "
            f"{median * 1e3:.1f} ms for {len(events)} events (best {min(times) * 1e3:.1f} ms); "
            f"reserved {result.reserved_peak_bytes / 2**30:.2f} GiB, "
            f"allocated {result.allocated_peak_bytes / 2**30:.2f} GiB"
        )


if __name__ == "__main__":
    main()
