"""``peftadvisor profile``: one run simulated, measured here, or both side by side."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import click

from peftadvisor.cli import inputs, options
from peftadvisor.cli.output import check_writable, emit, progress
from peftadvisor.errors import UnsupportedError


@click.command("profile")
@options.model
@options.method
@options.training
@options.one_run
@click.option(
    "--engine",
    type=click.Choice(["simulate", "measure", "both"]),
    default="both",
    show_default=True,
    help="Shapes alone, real tensors, or both side by side.",
)
@click.option(
    "--device", default="cpu", show_default=True, metavar="NAME", help="Where to measure."
)
@click.option(
    "--steps",
    **options.COUNT,
    default="5",
    show_default=True,
    help="Optimizer steps to time, after two for warming up.",
)
@options.output
def command(engine: str, device: str, steps: int, fmt: str, out: str | None, **values: Any) -> None:
    """Take one run apart: simulated and measured, side by side.

    The model is built from its config with random weights and trained on a random batch, in a
    process of its own. So far on the CPU.
    """
    _require_torch()
    from peftadvisor.cli.comparison import sheet
    from peftadvisor.profilers.child import in_child
    from peftadvisor.profilers.profiling import measured_profile, simulated_profile

    check_writable(out)
    model, method = inputs.model_spec(values["model"]), inputs.method_spec(values)
    training = inputs.training_spec({**values, **inputs.implied(method, values)}, model)
    profiles = []
    with progress(f"Profiling {method.name} on {model.id}") as say:
        if engine != "measure":
            profiles.append(simulated_profile(model, method, training, device))
        if engine != "simulate":
            run = (model, method, training, device)
            profiles.append(in_child(measured_profile, *run, steps=steps, say=say))
    emit(sheet(profiles), fmt, out)


def _require_torch() -> None:
    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"profile runs the real libraries, and {missing[0]} is not installed; "
            "pip install 'peftadvisor[profile]'"
        )
