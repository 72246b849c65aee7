"""A user's own loop, watched: all phases are there, and nothing is left behind."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peftadvisor.errors import UsageError  # noqa: E402
from peftadvisor.profilers.watching import Watch  # noqa: E402


def hooks(model: Any, optimizer: Any) -> int:
    return (
        len(model._forward_hooks)
        + len(model._forward_pre_hooks)
        + len(optimizer._optimizer_step_pre_hooks)
        + len(optimizer._optimizer_step_post_hooks)
    )


def loop(model: Any, optimizer: Any, steps: int, micro_batches: int = 1) -> None:
    for _ in range(steps):
        for _ in range(micro_batches):
            model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def made() -> tuple[Any, Any]:
    model = torch.nn.Linear(4, 4)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def test_phases_add_up_to_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that goes on by one whenever it is read: at the start and end of each forward pass,
    # and of the optimizer's step. Two micro-batches: 2 forward, 2 backward, 1 optimizer.
    monkeypatch.setattr("time.perf_counter", map(float, itertools.count()).__next__)
    model, optimizer = made()
    with Watch(model, optimizer) as watch:
        loop(model, optimizer, steps=5, micro_batches=2)
    took = watch.seconds()
    assert watch.steps == 5
    assert took.steps == (5.0, 5.0, 5.0)
    assert took.phases == {"forward": 2.0, "backward": 2.0, "optimizer": 1.0}


def test_no_hook_is_left() -> None:
    model, optimizer = made()
    before = hooks(model, optimizer)
    with pytest.raises(RuntimeError, match="shapes"), Watch(model, optimizer):
        model(torch.ones(2, 5))
    assert hooks(model, optimizer) == before
    with Watch(model, optimizer, warmup=0) as watch:
        assert hooks(model, optimizer) > before
        loop(model, optimizer, steps=1)
    assert hooks(model, optimizer) == before
    loop(model, optimizer, steps=1)
    assert watch.steps == 1


def test_misuse_is_said() -> None:
    model, optimizer = made()
    with Watch(model, optimizer) as watch:
        loop(model, optimizer, steps=1)
        with pytest.raises(UsageError, match="running already"):
            watch.__enter__()
    with pytest.raises(UsageError, match="only 1 steps were watched, 2 of them"):
        watch.seconds()
