"""One estimate's sections: the answer, memory by owner, time and FLOPs, what it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from peftadvisor.integrations.told import Told
from peftadvisor.profiles import Memory
from peftadvisor.report.blocks import Figures, Remarks, Section, Table, Terms, Tiles
from peftadvisor.report.charts import Frame, Limit, Part, Row, bars
from peftadvisor.report.drawing import Drawing, Key
from peftadvisor.report.grid import Cells, Column, plain_grid
from peftadvisor.report.sections import cost_words, percent, setting_words, time_words
from peftadvisor.units import GIB, format_bytes, format_count, format_gib, format_seconds

OWNERS = (
    "weights",
    "adapter",
    "gradient",
    "optimizer",
    "activation",
    "logits",
    "workspace",
    "fragmentation",
    "context",
)
"""Who holds memory, in the order of bars; also the classes of their colours."""
_LONGEST = 20
"""Characters of a GPU's name at its line; it stands in full elsewhere."""
_WORDS = {"fits": "Fits", "tight": "Tight", "oom": "Does not fit"}
_FLOPS = ("forward", "backward", "recompute", "optimizer")
_LIMITS = (
    "Predictions are of a run's allocations replayed by the rules of PyTorch's caching allocator, "
    "and of what lies outside it: context, communication, cuBLAS workspaces.",
    "The 90 % interval and the risk come from how far predictions were off published runs; "
    "they say nothing of a card that others use too.",
    "Times leave out loading data and transfers to the card. Without a calibration of the card "
    "they rest on its data sheet.",
    "Evidence is of published comparisons with LoRA; no accuracy of this run is predicted.",
)


def answer_words(told: Told) -> str:
    """The answer in a line."""
    peak, usable = told.memory.device_peak_bytes, told.gpu.usable_bytes
    risk = f"risk of running out {percent(told.oom_probability)}"
    over = f", {format_bytes(peak - usable)} too much" if peak > usable else ""
    room = f"{format_gib(peak)} of {format_gib(usable)} GiB"
    return f"{_WORDS[told.verdict]}: {room}{over}, {risk}"


def where_words(told: Told) -> str:
    """What runs where."""
    run = told.run
    cards = f"{run.gpus} × " if run.gpus > 1 else ""
    return f"{run.method} on {run.model}, {cards}{run.gpu}"


def settings_words(told: Told) -> str:
    """With which settings."""
    t = told.run.training
    recompute = t.gradient_checkpointing
    parts = [
        *(f"{key} {setting_words(value)}" for key, value in told.run.method_config.items()),
        f"micro-batch {t.micro_batch_size} × {t.seq_len} tokens",
        f"{t.gradient_accumulation_steps} accumulation steps",
        f"{t.dtype}{' amp' if t.amp else ''}",
        *([] if t.quantization == "none" else [t.quantization]),
        t.optimizer,
        "no checkpointing" if recompute == "none" else f"checkpointing ({recompute})",
        t.attention,
        *([told.run.sharding] if told.run.gpus > 1 else []),
    ]
    return ", ".join(parts)


def tiles(told: Told) -> Tiles:
    """The numbers to see first."""
    memory, time, cost = told.memory, told.time, told.cost
    interval = f"90 % interval {format_gib(memory.low_bytes)}–{format_gib(memory.high_bytes)} GiB"
    dollars = (
        "no price known" if cost.usd_per_hour is None else f"${cost.usd_per_hour:,.2f} an hour"
    )
    total = "–" if cost.usd_total is None else f"${cost.usd_total:,.2f}"
    hours = "" if cost.hours_total is None else f"{format_seconds(3600 * cost.hours_total)}, "
    trained = f"{told.parameters.trainable_percent:.3g} % of {format_count(told.parameters.total)}"
    return Tiles(
        (
            ("Peak memory", format_bytes(memory.device_peak_bytes), interval),
            ("Risk of running out", percent(told.oom_probability), _room(told)),
            ("Step", format_seconds(time.step_s), f"bound by {time.bound}"),
            ("Throughput", f"{time.tokens_per_s:,.0f}", "tokens per second"),
            ("Job", total, f"{hours}{dollars}"),
            ("Trained", format_count(told.parameters.trainable), trained),
        )
    )


def _room(told: Told) -> str:
    free = told.gpu.usable_bytes - told.memory.device_peak_bytes
    return f"{format_bytes(abs(free))} {'left' if free >= 0 else 'missing'} on {told.gpu.id}"


def held(memory: Memory) -> list[tuple[str, int]]:
    """Owners and their bytes at the peak, those that hold something."""
    names = [part.name for part in fields(memory.breakdown)]
    sizes = [getattr(memory.breakdown, name) for name in names]
    pairs = zip(names, sizes, strict=True)
    return [(name.removesuffix("_bytes"), size) for name, size in pairs if size]


def memory_row(told: Told, name: str = "", href: str = "") -> Row:
    """A bar of memory by owner with its interval."""
    peak = told.memory
    parts = tuple(
        Part(
            size / GIB, f"owner {owner}", f"{name or told.run.method}: {owner} {format_bytes(size)}"
        )
        for owner, size in held(peak)
    )
    return Row(
        name=name or told.run.method,
        parts=parts,
        band=(peak.low_bytes / GIB, peak.high_bytes / GIB),
        note=f"{format_bytes(peak.device_peak_bytes)}, {_WORDS[told.verdict].lower()}",
        href=href,
    )


def card_limit(told: Told) -> Limit:
    """The card's line."""
    usable, name = told.gpu.usable_bytes, told.gpu.id
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}…"
    return Limit(usable / GIB, f"{short}: {format_gib(usable)} GiB usable")


def owner_keys(estimates: Iterable[Told]) -> tuple[Key, ...]:
    """The legend of owners that hold something."""
    found = {owner for told in estimates for owner, _ in held(told.memory)}
    owners = [Key(f"owner {owner}", owner) for owner in OWNERS if owner in found]
    return (*owners, Key("risk", "90 % interval"))


def memory_section(told: Told) -> Section:
    """Memory by owner: the bar against the card, and the numbers."""
    peak = told.memory
    total = peak.device_peak_bytes
    rows = [(owner, format_bytes(n), _share(n, total)) for owner, n in held(peak)]
    rows.append(("all", format_bytes(total), _share(total, total)))
    heads = (Column("Owner", numeric=False), Column("At the peak"), Column("Share"))
    lead = f"The peak falls in {peak.peak_phase} ({peak.peak_op})."
    return Section(
        key="memory",
        title="Memory by owner",
        lead=lead,
        blocks=(
            Figures((_memory_figure(told),)),
            Table(plain_grid("memory-table", "Device memory at its peak", heads, rows)),
        ),
    )


def _memory_figure(told: Told) -> Drawing:
    usable = format_bytes(told.gpu.usable_bytes)
    largest = max(held(told.memory), key=lambda pair: pair[1], default=("nothing", 0))
    frame = Frame(
        key="memory-bar",
        title="Memory against the card",
        description=(
            f"{format_bytes(told.memory.device_peak_bytes)} of {usable}; "
            f"{largest[0]} hold the most, {format_bytes(largest[1])}.",
        ),
        unit="GiB of device memory",
        legend=owner_keys([told]),
        wide=True,
    )
    return bars(frame, [memory_row(told)], card_limit(told))


def compute_section(told: Told) -> Section:
    """FLOPs of a step by what they are for."""
    counts = [(name, getattr(told.flops, name)) for name in _FLOPS]
    rows: list[Cells] = [(n, f"{c / 1e12:,.4g}", _share(c, told.flops.total)) for n, c in counts]
    rows.append(("all", f"{told.flops.total / 1e12:,.4g}", _share(1, 1)))
    heads = (Column("Part", numeric=False), Column("TFLOP per step"), Column("Share"))
    parts = tuple(
        Part(count / 1e12, f"series s{n}", f"{name}: {count / 1e12:,.4g} TFLOP")
        for n, (name, count) in enumerate(counts)
        if count
    )
    frame = Frame(
        key="flops-bar",
        title="FLOPs of one step",
        description=(f"{told.flops.total / 1e12:,.4g} TFLOP in all.",),
        unit="TFLOP",
        legend=tuple(Key(f"series s{n}", name) for n, (name, c) in enumerate(counts) if c),
        wide=True,
    )
    drawn = (
        (
            Figures(
                (bars(frame, [Row(name="one step", parts=parts)]),),
            ),
        )
        if parts
        else ()
    )
    return Section(
        key="flops",
        title="FLOPs: forward, backward, recompute",
        lead=f"{told.flops.convention}.",
        blocks=(*drawn, Table(plain_grid("flops-table", "FLOPs of one step", heads, rows))),
    )


def grounds_section(told: Sequence[Told], notes: Sequence[str], source: str) -> Section:
    """Assumptions, versions and limits."""
    first = told[0]
    origin = first.provenance
    versions = ", ".join(f"{name} {version}" for name, version in origin.versions.items())
    entries = [
        ("Answer from", source),
        ("Settings", settings_words(first)),
        ("Engine", f"{origin.engine}; recording {origin.recording}"),
        ("Time from", time_words(first.time, origin.calibration)),
        ("Calibration", origin.calibration),
        ("Cost from", cost_words(first.cost)),
        ("Versions recorded", versions),
        ("FLOPs", first.flops.convention),
    ]
    return Section(
        key="grounds",
        title="Assumptions, versions, limits",
        blocks=(
            Terms(tuple((name, text) for name, text in entries if text)),
            Remarks((*notes, *_LIMITS)),
        ),
    )


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"
