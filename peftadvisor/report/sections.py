"""The parts of one estimate's text: verdict, memory bar, facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from rich.table import Table
from rich.text import Text

from peftadvisor.profiles import Cost, Estimate, Evidence, Flops, StepTime
from peftadvisor.report.canvas import column, plain
from peftadvisor.units import format_bytes, format_count, format_gib, format_seconds

# Owner of memory (field of MemoryBreakdown without ``_bytes``): letter in the bar, colour.
_OWNERS = {
    "weights": ("W", "blue"),
    "adapter": ("A", "cyan"),
    "gradient": ("G", "green"),
    "optimizer": ("O", "yellow"),
    "activation": ("a", "magenta"),
    "logits": ("l", "red"),
    "workspace": ("w", "bright_black"),
    "fragmentation": ("f", "bright_black"),
    "context": ("c", "bright_black"),
}
_FREE = "·"
_LEGEND_WIDTH = 38


def verdict(estimate: Estimate) -> Text:
    """The answer in one line."""
    peak, usable = estimate.memory.device_peak_bytes, estimate.run.gpu.usable_bytes
    room = f"{format_gib(peak)} of {format_gib(usable)} GiB"
    risk = f"OOM risk {percent(estimate.oom_probability)}"
    if estimate.verdict == "fits":
        return Text(f"✔ fits: {room}, {risk}", style="bold green")
    if estimate.verdict == "tight":
        return Text(f"! tight: {room}, {risk}", style="bold yellow")
    over = f", {format_bytes(peak - usable)} too much" if peak > usable else ""
    return Text(f"✘ does not fit: {room}{over}, {risk}", style="bold red")


def run_line(estimate: Estimate) -> Text:
    """What runs where."""
    run = estimate.run
    cards = f"{run.gpus} × " if run.gpus > 1 else ""
    return Text(plain(f"{run.method.name} on {run.model.id}, {cards}{run.gpu.name} ({run.gpu.id})"))


def settings_line(estimate: Estimate) -> Text:
    """With which settings."""
    training, model = estimate.run.training, estimate.run.model
    target = f" → {training.target_len}" if model.config.get("is_encoder_decoder") else ""
    recompute = training.gradient_checkpointing
    parts = [
        *(f"{key} {setting_words(value)}" for key, value in estimate.run.method.settings),
        f"micro-batch {training.micro_batch_size} × {training.seq_len}{target} tokens",
        f"{training.gradient_accumulation_steps} accumulation steps",
        f"{training.dtype}{' amp' if training.amp else ''}",
        *([] if training.quantization == "none" else [training.quantization]),
        training.optimizer,
        "no checkpointing" if recompute == "none" else f"checkpointing ({recompute})",
        training.attention,
        "padded" if training.padded else "packed",
        *(["expandable segments"] if estimate.run.expandable_segments else []),
    ]
    return Text(plain(", ".join(parts)), style="dim")


def memory(estimate: Estimate, width: int) -> list[Any]:
    """The bar against the card, and its legend by owner."""
    usable = estimate.run.gpu.usable_bytes
    held = [
        (part.name.removesuffix("_bytes"), getattr(estimate.memory.breakdown, part.name))
        for part in fields(estimate.memory.breakdown)
    ]
    held = [(owner, size) for owner, size in held if size]
    peak = estimate.memory
    interval = f"90 % interval {format_gib(peak.low_bytes)}–{format_gib(peak.high_bytes)} GiB"
    where = plain(f"{peak.peak_phase}, {peak.peak_op}")
    return [
        _bar(held, usable, min(width, 100)),
        Text(f"Peak in {where}; {interval}"),
        _legend(held, usable, columns=min(3, max(1, width // _LEGEND_WIDTH))),
    ]


def _legend(held: Sequence[tuple[str, int]], usable: int, columns: int) -> Table:
    """Letter, owner, size and share of the card, in as many columns as the page has room for."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(columns):
        column(table, "owner")
        column(table, "size", right=True)
        column(table, "share", right=True)
    entries = []
    for owner, size in held:
        letter, style = _OWNERS[owner]
        share = f"{100 * size / usable:.1f} %"
        entries.append((Text(f"{letter} {owner}", style=style), format_bytes(size), share))
    for start in range(0, len(entries), columns):
        table.add_row(*(cell for entry in entries[start : start + columns] for cell in entry))
    return table


def _bar(held: Sequence[tuple[str, int]], usable: int, width: int) -> Text:
    """One character per share of the card; what exceeds it follows the closing mark."""
    total = sum(size for _, size in held)
    scale = (width - 4) / max(total, usable)
    bar, drawn, end = Text("["), 0, round(usable * scale)
    covered = 0
    for owner, size in held:
        covered += size
        letter, style = _OWNERS[owner]
        upto = round(covered * scale)
        for position in range(drawn, upto):
            bar.append("]" if position == end else "")
            bar.append(letter, style=style)
        drawn = max(drawn, upto)
    bar.append(_FREE * (end - drawn) + "]" if drawn <= end else " !")
    return bar


def facts(estimate: Estimate, because: Sequence[str] = ()) -> Table:
    """Parameters, FLOPs, time, cost, quality, reasons and provenance, one row each."""
    provenance = estimate.provenance
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    rows = [
        ("Parameters", _parameters(estimate)),
        ("FLOPs", _flops(estimate.flops)),
        ("Time", time_words(estimate.time, provenance.calibration)),
        ("Cost", cost_words(estimate.cost)),
        ("Quality", _evidence(estimate.evidence)),
        ("Why", "\n".join(because)),
        ("Because", "\n".join(estimate.reasons)),
        (
            "From",
            f"{provenance.engine}; recording {provenance.recording}; "
            f"{provenance.calibration}; {versions}",
        ),
    ]
    return labelled(rows)


def labelled(rows: Iterable[tuple[str, str]]) -> Table:
    """Texts beside their labels; empty ones are left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    column(table, "label")
    column(table, "text", grow=True)
    for label, text in rows:
        if text:
            cell = "\n".join(plain(line) for line in text.split("\n"))
            table.add_row(Text(label, style="bold"), Text(cell))
    return table


def is_calibrated(calibration: str) -> bool:
    """Whether times rest on measurements, as the provenance tells it."""
    return not calibration.lower().startswith(("none", "uncalibrated"))


def _parameters(estimate: Estimate) -> str:
    parameters = estimate.parameters
    return (
        f"{format_count(parameters.total)}, of which {format_count(parameters.trainable)} "
        f"({parameters.trainable_percent:.3g} %) trained; "
        f"{format_bytes(parameters.stored_bytes)} to store"
    )


def _flops(flops: Flops) -> str:
    parts = ("forward", "backward", "recompute", "optimizer")
    shares = ", ".join(
        f"{part} {_tera(getattr(flops, part))}" for part in parts if getattr(flops, part)
    )
    return f"{_tera(flops.total)} TFLOP per step ({shares})"


def time_words(time: StepTime, calibration: str) -> str:
    """How long a step takes, the throughput, and what bounds it."""
    label = "" if is_calibrated(calibration) else "; uncalibrated"
    return (
        f"{format_seconds(time.step_s)} per step "
        f"({format_seconds(time.low_s)} – {format_seconds(time.high_s)}), "
        f"{f'{time.tokens_per_s:,.0f} tokens/s, ' if time.tokens_per_s else ''}"
        f"{time.samples_per_s:.3g} samples/s, "
        f"bound by {time.bound}{label}"
    )


def cost_words(cost: Cost) -> str:
    """The price, and hours and dollars of the job where they are known."""
    parts = []
    if cost.usd_per_hour is None:
        parts.append("no price known for this GPU")
    else:
        source = f" ({cost.price_source})" if cost.price_source else ""
        parts.append(f"${cost.usd_per_hour:,.2f}/h{source}")
    if cost.hours_total is not None:
        parts.append(f"{format_seconds(3600 * cost.hours_total)} for the whole job")
    if cost.usd_total is not None:
        parts.append(f"${cost.usd_total:,.2f} in all")
    return ", ".join(parts)


def _evidence(evidence: Evidence) -> str:
    if evidence.probability_at_least_lora is None:
        label = "no published comparison" if evidence.label == "none" else evidence.label
        return f"{label}: {evidence.reason}" if evidence.reason else label
    interval = ""
    if evidence.low is not None and evidence.high is not None:
        interval = f" ({percent(evidence.low)} – {percent(evidence.high)})"
    sources = f"; {', '.join(evidence.sources)}" if evidence.sources else ""
    chance = percent(evidence.probability_at_least_lora)
    said = f"{evidence.label}: at least as good as LoRA with {chance}{interval}{sources}"
    return f"{said}; {evidence.reason}" if evidence.reason else said


def setting_words(value: Any) -> str:
    """A hyperparameter's value."""
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def percent(share: float) -> str:
    """A probability in percent."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _tera(count: float) -> str:
    return f"{count / 1e12:,.4g}"
