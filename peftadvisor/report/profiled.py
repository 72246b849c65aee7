"""Profiles' sections: simulated and measured runs, alone or one beside the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from peftadvisor.profiles import Profile
from peftadvisor.report.blocks import (
    Block,
    Document,
    Figures,
    Remarks,
    Section,
    Table,
    Terms,
    Tiles,
    Walk,
)
from peftadvisor.report.charts import Frame, Part, Row, bars
from peftadvisor.report.course import moments_of, timeline_figure
from peftadvisor.report.drawing import Key
from peftadvisor.report.grid import Column, Grid, plain_grid
from peftadvisor.units import MIB, format_bytes, format_count, format_seconds

_WORDS: Mapping[str, str] = {"simulate": "simulated", "measure": "measured"}
_PHASES = ("load", "forward", "backward", "optimizer")


def document(profiles: Sequence[Profile], source: str) -> Document:
    """The page of one run's profiles."""
    first, last = profiles[0], profiles[-1]
    t = first.training
    peaks = [(p, p.memory.allocated_peak_bytes) for p in profiles]
    told = ", ".join(f"{format_bytes(peak)} {_WORDS[p.engine]}" for p, peak in peaks)
    apart = f" ({_difference(peaks[0][1], peaks[-1][1])})" if len(profiles) > 1 else ""
    lead = (
        f"Micro-batch {t.micro_batch_size} × {t.seq_len} tokens, {t.gradient_accumulation_steps} "
        f"accumulation steps, {t.dtype}, {t.optimizer}, {t.attention}, checkpointing "
        f"{t.gradient_checkpointing}."
    )
    return Document(
        title=f"{first.method.name} on {first.model}, {last.device}",
        answer=f"Peak {told}{apart}",
        mood="plain",
        lead=lead,
        sections=(
            Section(key="answer", title="In short", blocks=(_tiles(last),)),
            _compared(profiles),
            *_timelines(profiles),
            _grounds(profiles, source),
        ),
    )


def _tiles(profile: Profile) -> Tiles:
    memory, time = profile.memory, profile.time
    entries = [
        ("Peak", format_bytes(memory.allocated_peak_bytes), f"in {memory.peak_phase}"),
        ("Parameters", format_count(profile.parameters.total), "in all"),
        ("Trained", format_count(profile.parameters.trainable), "parameters"),
    ]
    if time:
        spread = f"{format_seconds(time.low_s)} to {format_seconds(time.high_s)}"
        entries.append(("Step", format_seconds(time.step_s), f"quartiles {spread}"))
        entries.append(("Throughput", f"{time.tokens_per_s:,.0f}", "tokens per second"))
    return Tiles(tuple(entries))


def _compared(profiles: Sequence[Profile]) -> Section:
    phases = [name for name in _PHASES if any(name in p.memory.phase_peak_bytes for p in profiles)]
    rows = [
        Row(
            name=f"{_WORDS[p.engine]}, {phase}",
            parts=(
                Part(
                    size / MIB, f"series s{n}", f"{_WORDS[p.engine]}, {phase}: {format_bytes(size)}"
                ),
            ),
            note=format_bytes(size),
        )
        for phase in phases
        for n, p in enumerate(profiles)
        if (size := p.memory.phase_peak_bytes.get(phase)) is not None
    ]
    engines = [_WORDS[p.engine] for p in profiles]
    frame = Frame(
        key="phase-bars",
        title="Peak by phase",
        description=(f"Most is held in {profiles[-1].memory.peak_phase}.",),
        unit="MiB of tensors",
        legend=tuple(Key(f"series s{n}", name) for n, name in enumerate(engines)),
        wide=True,
    )
    title = "Simulated beside measured" if len(profiles) > 1 else "Memory, FLOPs and time by phase"
    figure = (Figures((bars(frame, rows),)),) if rows else ()
    return Section(key="phases", title=title, blocks=(*figure, Table(_grid(profiles))))


_ROWS: tuple[tuple[str, Callable[[Profile], Any], Callable[[Any], str]], ...] = (
    ("parameters", lambda p: p.parameters.total, format_count),
    ("trained", lambda p: p.parameters.trainable, "{:,}".format),
    ("peak", lambda p: p.memory.allocated_peak_bytes, format_bytes),
    ("reserved", lambda p: p.memory.reserved_peak_bytes, format_bytes),
    ("parameters and buffers", lambda p: p.memory.static_bytes, format_bytes),
    ("step", lambda p: p.time and p.time.step_s, format_seconds),
    ("MFU", lambda p: p.time and p.time.mfu, "{:.1%}".format),
    ("device memory", lambda p: p.device_use and p.device_use.peak_bytes, format_bytes),
    ("power", lambda p: p.device_use and p.device_use.mean_power_w, "{:.0f} W".format),
    ("energy", lambda p: p.device_use and p.device_use.joules_per_token, "{:.3g} J/token".format),
    ("host memory", lambda p: p.memory.host_peak_bytes, format_bytes),
)


def _grid(profiles: Sequence[Profile]) -> Grid:
    made = [(name, [get(p) for p in profiles], form) for name, get, form in _ROWS]
    for phase in _PHASES:
        held = [p.memory.phase_peak_bytes.get(phase) for p in profiles]
        counted = [p.phase_flops.get(phase) for p in profiles]
        took = [p.time.phase_s.get(phase) if p.time else None for p in profiles]
        made.append((f"peak in {phase}", held, format_bytes))
        made.append((f"FLOPs of {phase}", counted, lambda n: f"{n / 1e9:,.3f} GFLOP"))
        made.append((f"time of {phase}", took, format_seconds))
    for owner in dict.fromkeys(o for p in profiles for o in p.memory.owner_bytes):
        made.append(
            (f"held by {owner}", [p.memory.owner_bytes.get(owner) for p in profiles], format_bytes)
        )
    cells = [
        (name, *("–" if v is None else form(v) for v in values), *_apart(values))
        for name, values, form in made
        if any(v is not None for v in values)
    ]
    heads = [_WORDS[p.engine].capitalize() for p in profiles]
    more = ["Difference"] if len(profiles) > 1 else []
    columns = (Column("Of one step", numeric=False), *map(Column, [*heads, *more]))
    return plain_grid("profile-table", "What was held, computed and timed", columns, cells)


def _apart(values: Sequence[Any]) -> tuple[str, ...]:
    if len(values) < 2:
        return ()
    return (_difference(values[0], values[-1]),)


def _difference(first: Any, last: Any) -> str:
    if first is None or last is None:
        return "–"
    if first == last:
        return "same"
    return f"{first / last - 1:+.3%}".replace("-", "−") if last else "–"


def _timelines(profiles: Sequence[Profile]) -> list[Section]:
    blocks = []
    for n, profile in enumerate(profiles):
        timeline = profile.timeline
        if timeline and timeline.at and len(timeline.at) == len(timeline.held_bytes):
            title = f"Bytes held, {_WORDS[profile.engine]}"
            drawing, places = timeline_figure(f"timeline-{n}", title, timeline)
            held = timeline.held_bytes
            fullest = max(range(len(held)), key=lambda n: held[n])
            blocks.append(Walk(drawing, moments_of(timeline, places), fullest))
    if not blocks:
        return []
    return [Section(key="timeline", title="Memory over the run", blocks=tuple(blocks))]


def _grounds(profiles: Sequence[Profile], source: str) -> Section:
    entries = [("Answer from", source)]
    remarks = []
    for profile in profiles:
        origin, name = profile.provenance, _WORDS[profile.engine]
        versions = ", ".join(f"{library} {it}" for library, it in origin.versions.items())
        median = f"; median of {profile.time.steps} steps" if profile.time else ""
        entries.append((name.capitalize(), f"{origin.recording}; {versions}{median}"))
        if profile.device_use:
            remarks += [
                f"Not read: {what}: {why}" for what, why in profile.device_use.missing.items()
            ]
    blocks: tuple[Block, ...] = (Terms(tuple(entries)),)
    if remarks:
        blocks = (*blocks, Remarks(tuple(remarks)))
    return Section(key="grounds", title="Assumptions, versions, limits", blocks=blocks)
