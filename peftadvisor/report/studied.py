"""Sections of what was worked out besides: memory over the step, kernels, sweeps, prices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from peftadvisor.advisor.studying import Offer, Study, Sweep
from peftadvisor.cost_model.spending import KernelSpent, Spending
from peftadvisor.report.blocks import Figures, Remarks, Section, Table, Walk
from peftadvisor.report.charts import Frame, Limit, Part, Row, Spot, Step, bars, climb, roofline
from peftadvisor.report.course import course_figure, moment_words
from peftadvisor.report.drawing import Drawing, Key
from peftadvisor.report.grid import Cells, Column, Grid, plain_grid
from peftadvisor.report.methods import saved_rows
from peftadvisor.report.sections import percent
from peftadvisor.units import GIB, format_bytes, format_gib, format_seconds

_WORDS = {"fits": "fits", "tight": "tight", "oom": "does not fit"}
_NAMES = {"batch": "micro-batch", "length": "length"}
_ALONG = {"batch": "samples per micro-batch", "length": "tokens per sample"}


def sections(study: Study, limit: Limit) -> Iterable[Section]:
    """All that the study has; ``limit`` is the card's line."""
    if study.course:
        yield _course(study, limit)
    if study.saved_bytes_per_token:
        yield _saved(study)
    if study.spending:
        yield _spent(study.method, study.spending)
    if any(sweep.points for sweep in study.sweeps):
        yield _swept(study.sweeps, limit)
    if study.offers:
        yield _priced(study.offers)


def _course(study: Study, limit: Limit) -> Section:
    assert study.course
    whole, places = course_figure(study.course, study.method, limit)
    rest, _ = course_figure(study.course, study.method, None, without=("weight",))
    moments = study.course.moments
    fullest = max(range(len(moments)), key=lambda n: moments[n].held_bytes)
    told = tuple((x, moment_words(m)) for x, m in zip(places, moments, strict=True))
    return Section(
        key="timeline",
        title=f"Memory over the step: {study.method}",
        lead="Bytes that tensors hold from loading to the end of the second step, by allocation "
        "and free in order, not by time; what the allocator caches beyond them is not drawn.",
        blocks=(Walk(whole, told, fullest), Walk(rest, told, fullest)),
    )


def _saved(study: Study) -> Section:
    saved = sorted(study.saved_bytes_per_token.items(), key=lambda pair: pair[1])
    least, most = saved[0], saved[-1]
    told = f"{least[0]} saves {least[1] / 1024:,.1f} KiB per token"
    if len(saved) > 1:
        told += f", {most[0]} {most[1] / 1024:,.1f} KiB"
    frame = Frame(
        key="saved-bars",
        title="Saved for backward, per token",
        description=(f"{told}.",),
        unit="KiB per token",
        wide=True,
    )
    cells: list[Cells] = [(method, f"{size / 1024:,.1f} KiB") for method, size in saved]
    heads = (Column("Method", numeric=False), Column("Per token"))
    return Section(
        key="saved",
        title="What each method saves per token",
        lead="Activations, without logits, that are held when backward begins, over the tokens of "
        "a micro-batch: what one more token costs in memory, but for what is not per token.",
        blocks=(
            Figures((bars(frame, saved_rows(saved)),)),
            Table(plain_grid("saved-table", "Saved bytes per token", heads, cells), folded=True),
        ),
    )


def _spent(method: str, spending: Spending) -> Section:
    step = sum(spending.by_class.values())
    kinds = sorted(spending.by_class.items(), key=lambda pair: -pair[1])
    bounds = sorted(spending.by_bound.items(), key=lambda pair: -pair[1])
    cells: list[Cells] = [(n, format_seconds(s), f"{100 * s / step:.1f} %") for n, s in kinds if s]
    heads = (Column("Class", numeric=False), Column("Time"), Column("Share"))
    return Section(
        key="time",
        title=f"Step time: what it is spent on, what bounds it ({method})",
        lead=f"{format_seconds(step)} a step on one card; bound by {bounds[0][0]}, "
        f"{100 * bounds[0][1] / step:.0f} % of it.",
        blocks=(
            Figures((_classes(kinds, bounds), *_roof(spending))),
            Table(plain_grid("classes", "Step time by class of kernel", heads, cells)),
            Table(_kernels(spending.kernels, step), folded=True),
        ),
    )


def _classes(kinds: Sequence[tuple[str, float]], bounds: Sequence[tuple[str, float]]) -> Drawing:
    step = sum(seconds for _, seconds in kinds)
    rows = [
        Row(
            name=name,
            parts=(Part(s / step * 100, "series s0", f"{name}: {format_seconds(s)}"),),
            note=f"{100 * s / step:.1f} %",
        )
        for name, s in kinds
        if s
    ]
    told = ", ".join(f"{name} {100 * s / step:.0f} %" for name, s in bounds if s)
    frame = Frame(
        key="class-bars",
        title="Step time by class of kernel",
        description=(f"Bound by: {told}.",),
        unit="percent of the step",
    )
    return bars(frame, rows)


def _roof(spending: Spending) -> Iterable[Drawing]:
    kernels = [k for k in spending.kernels if k.flops > 0 and k.moved_bytes > 0 and k.busy_s > 0]
    found = [
        Spot(
            x=k.flops / k.moved_bytes,
            y=k.flops * k.calls / k.busy_s,
            style="series s1" if k.computes else "series s2",
            text=f"{k.name} in {k.phase}, {k.calls} calls: {format_seconds(k.busy_s)}, "
            f"{k.flops * k.calls / k.busy_s / 1e12:,.1f} TFLOP/s",
        )
        for k in kernels
    ]
    computing = sum(k.computes for k in kernels)
    frame = Frame(
        key="roofline",
        title="Roofline of the costliest kernels",
        description=(
            f"{computing} of {len(kernels)} kernels are bound by computing, the others by memory; "
            "the line is what the card's data sheet allows.",
        ),
        unit="TFLOP/s",
        legend=(
            Key("series s1", "bound by computing"),
            Key("series s2", "bound by memory bandwidth"),
        ),
    )
    if found:
        yield roofline(frame, found, spending.peak_flops_per_s, spending.bandwidth_bytes_per_s)


def _kernels(kernels: Sequence[KernelSpent], step: float) -> Grid:
    heads = ("Phase", "Calls", "Time", "Share", "GFLOP a call", "Moved a call")
    cells = [
        (
            k.name,
            k.phase,
            f"{k.calls:,}",
            format_seconds(k.busy_s),
            f"{100 * k.busy_s / step:.1f} %",
            f"{k.flops / 1e9:,.2f}",
            format_bytes(int(k.moved_bytes)),
        )
        for k in kernels
    ]
    columns = (Column("Kernel", numeric=False), Column(heads[0], numeric=False))
    rest = tuple(map(Column, heads[1:]))
    return plain_grid("kernels", "The costliest kernels", (*columns, *rest), cells)


def _swept(sweeps: Sequence[Sweep], limit: Limit) -> Section:
    drawn = [_climb(sweep, limit) for sweep in sweeps if sweep.points]
    tables = [Table(_sweep_grid(sweep)) for sweep in sweeps if sweep.points]
    missing = [
        f"Not on file for {_NAMES[s.name]} {', '.join(map(str, s.missing))}."
        for s in sweeps
        if s.missing
    ]
    return Section(
        key="sweeps",
        title="How far batch and length can go",
        lead=" ".join(_reach(sweep) for sweep in sweeps if sweep.points),
        blocks=(Figures(tuple(drawn)), *tables, *([Remarks(tuple(missing))] if missing else [])),
    )


def _reach(sweep: Sweep) -> str:
    fitting = [point.value for point in sweep.points if point.verdict == "fits"]
    name = _NAMES[sweep.name]
    if not fitting:
        return f"No {name} that was tried fits."
    more = max(fitting) < sweep.points[-1].value
    return (
        f"The largest {name} tried that fits is {max(fitting):,}{'' if more else ', and more may'}."
    )


def _climb(sweep: Sweep, limit: Limit) -> Drawing:
    steps = [
        Step(
            point.value,
            point.device_bytes / GIB,
            point.verdict,
            f"{_NAMES[sweep.name]} {point.value:,}: {format_bytes(point.device_bytes)}, "
            f"{_WORDS[point.verdict]}, risk {percent(point.oom_probability)}",
        )
        for point in sweep.points
    ]
    frame = Frame(
        key=f"sweep-{sweep.name}",
        title=f"Memory by {_NAMES[sweep.name]}",
        description=(_reach(sweep),),
        unit="GiB",
        legend=(
            Key("verdict fits", "fits"),
            Key("verdict tight", "tight"),
            Key("verdict oom", "does not fit"),
        ),
    )
    return climb(frame, steps, limit, _ALONG[sweep.name])


def _sweep_grid(sweep: Sweep) -> Grid:
    heads = ("GiB", "Risk", "Step", "Tokens/s")
    cells = [
        (
            f"{point.value:,}{' (this run)' if point.value == sweep.own else ''}",
            format_gib(point.device_bytes),
            percent(point.oom_probability),
            format_seconds(point.step_s),
            f"{point.tokens_per_s:,.0f}",
            _WORDS[point.verdict],
        )
        for point in sweep.points
    ]
    columns = (
        Column(_NAMES[sweep.name].capitalize(), numeric=False),
        *map(Column, heads),
        Column("Verdict", numeric=False),
    )
    key = f"sweep-{sweep.name}-table"
    return plain_grid(key, f"By {_NAMES[sweep.name]}", columns, cells)


def _priced(offers: Sequence[Offer]) -> Section:
    best: dict[str, Offer] = {}
    for offer in offers:
        best.setdefault(offer.gpu, offer)
    dates = sorted({offer.date for offer in offers})
    return Section(
        key="prices",
        title="Cost by GPU and provider",
        lead=f"The same run on other GPUs, at on-demand prices of {dates[0]} to {dates[-1]}.",
        blocks=(
            Table(_offer_grid("best-prices", "The cheapest price of each GPU", [*best.values()])),
            Table(_offer_grid("all-prices", "Every price", offers), folded=True),
        ),
    )


def _offer_grid(key: str, caption: str, offers: Sequence[Offer]) -> Grid:
    heads = ("GiB", "Tokens/s", "$/h", "Spot $/h", "$ per 1M tokens", "$ in all")
    cells = [
        (
            offer.gpu,
            " ".join(part for part in (offer.provider, offer.instance) if part),
            _WORDS[offer.verdict],
            format_gib(offer.device_bytes),
            f"{offer.tokens_per_s:,.0f}",
            f"{offer.usd_per_hour:,.2f}",
            "–" if offer.spot_usd_per_hour is None else f"{offer.spot_usd_per_hour:,.2f}",
            f"{offer.usd_per_million_tokens:,.3f}",
            "–" if offer.usd_total is None else f"{offer.usd_total:,.2f}",
            f"{offer.date}{', of low confidence' if offer.confidence == 'low' else ''}",
        )
        for offer in offers
    ]
    texts = tuple(Column(head, numeric=False) for head in ("GPU", "Provider", "Verdict"))
    return plain_grid(
        key, caption, (*texts, *map(Column, heads), Column("Price of", numeric=False)), cells
    )
