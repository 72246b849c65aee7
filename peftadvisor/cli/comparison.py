"""Profiles of one run side by side, as a sheet to render."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from peftadvisor.profilers.records import Record
from peftadvisor.profiles import ForwardCount, Profile
from peftadvisor.report import Listing, Sheet
from peftadvisor.units import format_bytes, format_count, format_seconds


def _megahertz(clock_hz: int) -> str:
    return f"{clock_hz / 1e6:,.0f} MHz"


HEADS: Mapping[str, str] = {"simulate": "simulated", "measure": "measured"}


def sheet(profiles: Sequence[Profile]) -> Sheet:
    """One column for each profile, and how far the first is from the last where there are two."""
    first = profiles[0]
    t = first.training
    length = f"{t.micro_batch_size} × {t.seq_len}"
    columns = ["of one step", *(HEADS[p.engine] for p in profiles)]
    if len(profiles) > 1:
        columns.append("difference")
    return Sheet(
        title=f"{first.method.name} on {first.model}, {first.device}",
        facts={
            "Run": f"micro-batch {length}, {t.gradient_accumulation_steps} accumulation steps, "
            f"{t.dtype}, {t.optimizer}, {t.attention}, checkpointing {t.gradient_checkpointing}",
            **{f"From {p.engine}": _provenance(p) for p in profiles},
            **_remarks(profiles[-1]),
        },
        table=Listing(kind="profile", columns=tuple(columns), rows=tuple(_rows(profiles))),
        data={"profiles": [profile.to_dict() for profile in profiles]},
    )


def _remarks(profile: Profile) -> dict[str, str]:
    """What fvcore says of the forward pass, and what the driver did not tell."""
    said = {}
    if profile.fvcore:
        said["fvcore"] = _fvcore(profile, profile.fvcore)
    if profile.device_use and profile.device_use.missing:
        told = profile.device_use.missing.items()
        said["Not read"] = "; ".join(f"{what}: {why}" for what, why in told)
    return said


def _fvcore(profile: Profile, count: ForwardCount) -> str:
    if count.flops is None:
        return f"no count of the forward pass: {count.failure}"
    here = profile.phase_flops["forward"]
    here //= profile.training.gradient_accumulation_steps
    names = ", ".join(name.removeprefix("aten::") for name in count.uncounted) or "nothing"
    gap = f"{count.flops / here - 1:+.1%}" if here else "no FLOPs here"
    return f"{_flops(count.flops)} forward ({gap} of torch's count); counts no {names}"


def _rows(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    rows = [
        _row("parameters", [p.parameters.total for p in profiles], format_count),
        _row("trained", [p.parameters.trainable for p in profiles], "{:,}".format),
        _row("peak", [p.memory.allocated_peak_bytes for p in profiles], format_bytes),
    ]
    for owner in dict.fromkeys(owner for p in profiles for owner in p.memory.owner_bytes):
        rows.append(
            _row(f"  {owner}", [p.memory.owner_bytes.get(owner) for p in profiles], format_bytes)
        )
    reserved = [p.memory.reserved_peak_bytes for p in profiles]
    rows.append(_row("reserved", reserved, format_bytes))
    for phase in ("load", "forward", "backward", "optimizer"):
        held = [p.memory.phase_peak_bytes.get(phase) for p in profiles]
        rows.append(_row(f"  in {phase}", held, format_bytes))
    for phase in ("forward", "backward"):
        rows.append(_row(f"FLOPs {phase}", [p.phase_flops.get(phase) for p in profiles], _flops))
    rows.append(_row("seconds", [p.time and p.time.step_s for p in profiles], format_seconds))
    for phase in ("forward", "backward", "optimizer"):
        took = [p.time and p.time.phase_s.get(phase) for p in profiles]
        rows.append(_row(f"  of {phase}", took, format_seconds))
    rows += [_row(name, [get(p) for p in profiles], form) for name, get, form in _MORE]
    rows = [row for row in rows if any(value is not None for value in row[1:])]
    heads = [HEADS[p.engine] for p in profiles]
    return [dict(zip(["of one step", *heads, "difference"], row, strict=False)) for row in rows]


_MORE: tuple[tuple[str, Callable[[Profile], Any], Callable[[Any], str]], ...] = (
    ("MFU", lambda p: p.time and p.time.mfu, "{:.1%}".format),
    ("device memory", lambda p: p.device_use and p.device_use.peak_bytes, format_bytes),
    ("power", lambda p: p.device_use and p.device_use.mean_power_w, "{:.0f} W".format),
    ("energy", lambda p: p.device_use and p.device_use.joules_per_token, "{:.3g} J/token".format),
    ("clock", lambda p: p.device_use and p.device_use.median_sm_clock_hz, _megahertz),
    ("utilization", lambda p: p.device_use and p.device_use.mean_utilization, "{:.0%}".format),
    ("host memory", lambda p: p.memory.host_peak_bytes, format_bytes),
)


def _row(name: str, values: list[Any], form: Callable[[Any], str]) -> list[str | None]:
    shown = [None if value is None else form(value) for value in values]
    return [name, *shown, _difference(values) if len(values) > 1 else None]


def _difference(values: list[Any]) -> str | None:
    first, last = values[0], values[-1]
    if first is None or last is None:
        return None
    if first == last:
        return "same"
    return f"{first / last - 1:+.3%}" if last else None


def _flops(count: int) -> str:
    return f"{count / 1e9:,.3f} GFLOP"


def _provenance(profile: Profile) -> str:
    versions = ", ".join(f"{name} {is_}" for name, is_ in profile.provenance.versions.items())
    median = f"; median of {profile.time.steps} steps" if profile.time else ""
    return f"{profile.provenance.recording}; {versions}{median}"


def listing(records: Iterable[Record]) -> Listing:
    """Kept runs, a row each."""
    return Listing(
        kind="runs",
        columns=("id", "created", "status", "engine", "model", "method", "device", "peak"),
        rows=tuple(_record_row(record) for record in records),
    )


def _record_row(record: Record) -> dict[str, Any]:
    made, run = record.profile, record.run
    return {
        **record.to_dict(),
        **{name: run[name] for name in ("engine", "model", "method", "device")},
        "peak": made and format_bytes(made["memory"]["allocated_peak_bytes"]),
    }


def record_sheet(record: Record) -> Sheet:
    """All that is known of one kept run."""
    run, made = record.run, record.profile or {}
    memory, times = made.get("memory", {}), made.get("time") or {}
    peaks, took = memory.get("phase_peak_bytes", {}), times.get("phase_s", {})
    counted = made.get("phase_flops", {})
    rows = [
        {
            "phase": phase,
            "peak": format_bytes(peaks[phase]),
            "FLOPs": _flops(counted[phase]) if phase in counted else None,
            "time": format_seconds(took[phase]) if phase in took else None,
        }
        for phase in peaks
    ]
    return Sheet(
        title=f"run {record.id}: {run['method']} on {run['model']}, {run['device']}",
        facts={
            "Engine": run["engine"],
            "Status": f"{record.status}, reached {record.reached}",
            "Made": record.created,
            "Training": ", ".join(f"{name} {value}" for name, value in run["training"].items()),
            "Step": format_seconds(times["step_s"]) if times else "",
        },
        table=Listing(kind="phases", columns=("phase", "peak", "FLOPs", "time"), rows=tuple(rows)),
        data=record.to_dict(),
    )
