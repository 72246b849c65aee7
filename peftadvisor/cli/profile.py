"""``peftadvisor profile``: one run simulated, measured here, or both; and the runs of before."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from peftadvisor.cli import brought, inputs, numbers, options
from peftadvisor.cli.output import check_writable, emit, note, progress, write
from peftadvisor.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from peftadvisor.profiles import Engine, Profile
    from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

    Run = tuple[ModelSpec, MethodSpec, TrainingSpec, str]

_store = click.option(
    "--store",
    metavar="PATH",
    help="Where runs are kept.  [default: PEFTADVISOR_STORE, else in the user's data folder]",
)


@click.group("profile", invoke_without_command=True)
@options.optional_model
@options.optional_method
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
    "--device",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Where to measure: cpu, cuda:N; to simulate, also a GPU of the catalog.",
)
@click.option(
    "--steps",
    **numbers.COUNT,
    default="5",
    show_default=True,
    help="Optimizer steps to time, after two for warming up.",
)
@click.option(
    "--snapshot",
    metavar="PATH",
    help="Write the GPU's allocations, for https://pytorch.org/memory_viz.",
)
@options.brought
@_store
@click.option("--no-store", is_flag=True, help="Keep no record.")
@options.output
@click.pass_context
def command(ctx: click.Context, /, fmt: str, out: str | None, **values: Any) -> None:
    """Take one run apart: simulated and measured, side by side.

    The model is built from its config with random weights and trained on a random batch, or on
    your weights and texts, in a process of its own. Runs are kept; list, show and export give
    them back.
    """
    if ctx.invoked_subcommand is not None:
        return
    for name in ("model", "method"):
        if values[name] is None and not (name == "model" and values["checkpoint"]):
            raise UsageError(f"--{name} is missing; see: peftadvisor profile --help")
    _require_torch()
    check_writable(out)
    _check_snapshot(values)
    brought.check(values)
    model, method = brought.model_spec(values), inputs.method_spec(values)
    training = inputs.training_spec({**values, **inputs.implied(method, values)}, model)
    address = None if values["no_store"] else _address(values["store"])
    from peftadvisor.cli.comparison import sheet
    from peftadvisor.profilers.devices import open_bench

    with progress(f"Profiling {method.name} on {model.id}") as say:
        given, training = brought.given(values, model, training)
        run = (model, method, training, values["device"])
        bench_of = partial(open_bench, snapshot=values["snapshot"])
        how = {"steps": values["steps"], "given": given, "bench_of": bench_of}
        profiles = [
            _profile(engine, run, how, address, say) for engine in _engines(values["engine"])
        ]
    emit(sheet(profiles), fmt, out)


@command.command("list")
@_store
@options.output
def list_(store: str | None, fmt: str, out: str | None) -> None:
    """Show the runs that were kept."""
    from peftadvisor.cli.comparison import listing
    from peftadvisor.profilers.store import open_store

    check_writable(out)
    with open_store(_address(store), create=False) as kept:
        emit(listing(kept.records()), fmt, out)


@command.command("show")
@click.argument("number", type=int)
@_store
@options.output
def show(number: int, store: str | None, fmt: str, out: str | None) -> None:
    """Show one run that was kept, by its number."""
    from peftadvisor.cli.comparison import record_sheet
    from peftadvisor.profilers.store import open_store

    check_writable(out)
    with open_store(_address(store), create=False) as kept:
        found = next((record for record in kept.records() if record.id == number), None)
    if found is None:
        raise UsageError(f"no run has the number {number}; see: peftadvisor profile list")
    emit(record_sheet(found), fmt, out)


@command.command("export")
@_store
@click.option("--out", metavar="PATH", help="Write to this file rather than to stdout.")
def export(store: str | None, out: str | None) -> None:
    """Write the measured runs as CSV, in the columns that validate reads."""
    from peftadvisor.profilers.rows import to_csv
    from peftadvisor.profilers.store import open_store

    check_writable(out)
    with open_store(_address(store), create=False) as kept:
        records = list(kept.records())
    write(to_csv(records), out)
    if not any(record.run["engine"] == "measure" for record in records):
        note("no run was measured yet; the CSV holds its head alone")


def _check_snapshot(values: Mapping[str, Any]) -> None:
    """Complain about ``--snapshot`` where there will be none.

    Raises:
        UsageError: no GPU is measured, or the file cannot be written.
    """
    if values["snapshot"] is None:
        return
    if values["engine"] == "simulate":
        raise UsageError("--snapshot is for measured runs; use --engine measure or both")
    if values["device"].partition(":")[0] != "cuda":
        raise UsageError(
            f"--snapshot is of a GPU's allocator, not of {values['device']}; use --device cuda:N"
        )
    check_writable(values["snapshot"], "--snapshot")


def _engines(chosen: str) -> tuple[Engine, ...]:
    both: tuple[Engine, ...] = ("simulate", "measure")
    return both if chosen == "both" else tuple(e for e in both if e == chosen)


def _profile(
    engine: Engine, run: Run, how: dict[str, Any], address: str | None, say: Any
) -> Profile:
    from peftadvisor.profilers.child import in_child
    from peftadvisor.profilers.profiling import measured_profile
    from peftadvisor.profilers.recorded import recorded, run_of
    from peftadvisor.profilers.simulated import gpu_of, simulated_profile

    def work(heard: Any) -> Profile:
        if engine == "simulate":
            return simulated_profile(*run[:3], gpu_of(run[3]))
        made: Profile = partial(in_child, measured_profile, *run)(say=heard, **how)
        return made

    named = how["given"].names if engine == "measure" else {}
    return recorded(address, {**run_of(engine, *run), **named}, work, say)


def _address(store: str | None) -> str:
    from peftadvisor.profilers.store import default_store

    return store or default_store()


def _require_torch() -> None:
    missing = [name for name in ("torch", "transformers", "peft") if find_spec(name) is None]
    if missing:
        raise UnsupportedError(
            f"profile runs the real libraries, and {missing[0]} is not installed; "
            "pip install 'peftadvisor[profile]'"
        )
