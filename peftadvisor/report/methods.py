"""Several methods' sections: memory side by side, evidence against memory, one card each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from peftadvisor.data.evidence import evidence_sources
from peftadvisor.integrations.told import Told
from peftadvisor.profiles import Evidence
from peftadvisor.report.blocks import Card, Cards, Figures, Link, Remarks, Section, Table
from peftadvisor.report.charts import Frame, Limit, Part, Row, Spot, bars, spots
from peftadvisor.report.drawing import Drawing, Key
from peftadvisor.report.grid import Column, plain_grid
from peftadvisor.report.sections import cost_words, percent, time_words
from peftadvisor.report.told import (
    answer_words,
    card_limit,
    held,
    memory_row,
    owner_keys,
    settings_words,
)
from peftadvisor.units import GIB, KIB, format_bytes, format_count, format_gib, format_seconds

_HEADS = (
    ("Method", False),
    ("GPU", False),
    ("GiB", True),
    ("Risk", True),
    ("Trained", True),
    ("Step", True),
    ("Tokens/s", True),
    ("$/h", True),
    ("≥ LoRA", True),
)


def card_key(number: int) -> str:
    """Where the page tells of a method."""
    return f"method-{number}"


def methods_section(estimates: Sequence[Told]) -> Section:
    """Memory of all of them against the card, a table, and a card for each."""
    named = [(told, f"{n}. {told.run.method}") for n, told in enumerate(estimates, 1)]
    rows = [memory_row(told, name, f"#{card_key(n)}") for n, (told, name) in enumerate(named, 1)]
    same = len({told.gpu.id for told in estimates}) == 1
    fit = sum(told.verdict == "fits" for told in estimates)
    frame = Frame(
        key="methods-bars",
        title="Memory by owner, method by method",
        description=(f"{fit} of {len(estimates)} fit. A bar leads to its method below.",),
        unit="GiB of device memory",
        legend=owner_keys(estimates),
        wide=True,
    )
    drawn = bars(frame, rows, card_limit(estimates[0]) if same else None)
    columns = tuple(Column(head, numeric=numeric) for head, numeric in _HEADS)
    cells = [_cells(told, name) for told, name in named]
    return Section(
        key="methods",
        title="Methods side by side",
        blocks=(
            Figures((drawn,)),
            Table(
                plain_grid(
                    "methods-table",
                    "Each at its settings; * is on the Pareto front",
                    columns,
                    cells,
                )
            ),
            Cards(tuple(_card(told, n) for n, told in enumerate(estimates, 1))),
        ),
    )


def _cells(told: Told, name: str) -> tuple[str, ...]:
    chance, usd = told.evidence.probability_at_least_lora, told.cost.usd_per_hour
    return (
        f"{name}{' *' if told.pareto else ''}",
        told.gpu.id,
        format_gib(told.memory.device_peak_bytes),
        percent(told.oom_probability),
        format_count(told.parameters.trainable),
        format_seconds(told.time.step_s),
        f"{told.time.tokens_per_s:,.0f}",
        "–" if usd is None else f"{usd:.2f}",
        "–" if chance is None else f"{chance:.2f}",
    )


def front_section(estimates: Sequence[Told]) -> Section:
    """Evidence against memory: the Pareto front, each method leading to its sources."""
    weighed = [
        (n, told)
        for n, told in enumerate(estimates, 1)
        if told.evidence.probability_at_least_lora is not None
    ]
    others = [told.run.method for told in estimates if told not in [t for _, t in weighed]]
    same = len({told.gpu.id for told in estimates}) == 1
    limit = card_limit(estimates[0]) if same else None
    drawn = (_front("memory", weighed, limit), _front("time", weighed, None)) if weighed else ()
    blocks = [Figures(drawn)] if drawn else []
    said = f"Without a comparison that counts here: {', '.join(dict.fromkeys(others))}."
    return Section(
        key="pareto",
        title="Pareto front with evidence",
        lead="On the front are methods that fit, where no other is better in one of memory, time, "
        "money and evidence and worse in none. A mark leads to the method's citations.",
        blocks=(*blocks, *([Remarks((said,))] if others else [])),
    )


def _thousand_tokens_s(told: Told) -> float:
    rate = told.time.tokens_per_s or told.time.samples_per_s
    return 1000 / rate if rate else 0.0


_PLACES: Mapping[str, Callable[[Told], float]] = {
    "memory": lambda told: told.memory.device_peak_bytes / GIB,
    "time": _thousand_tokens_s,
}
_UNITS = {"memory": "GiB of device memory", "time": "seconds per 1,000 tokens"}


def _front(what: str, weighed: Sequence[tuple[int, Told]], limit: Limit | None) -> Drawing:
    """Evidence against memory, or against time."""
    frame = Frame(
        key=f"front-{what}",
        title=f"{what.capitalize()} against evidence",
        description=(
            f"Up is better evidence of being at least as good as LoRA, left is less {what}; "
            "whiskers are 80 % intervals. Numbers are those of the table above; marks that would "
            "hide each other are moved apart sideways.",
        ),
        unit=_UNITS[what],
        legend=(Key("spot front", "on the front"), Key("spot", "not on it")),
    )
    found = [_spot(n, told, _PLACES[what](told)) for n, told in weighed]
    return spots(frame, found, limit, "P(at least LoRA)")


def _spot(number: int, told: Told, x: float) -> Spot:
    chance = told.evidence
    y = chance.probability_at_least_lora or 0.0
    peak = told.memory.device_peak_bytes
    return Spot(
        x=x,
        y=y,
        low=chance.low,
        high=chance.high,
        number=str(number),
        style="spot front" if told.pareto else "spot",
        text=f"{told.run.method}: {format_bytes(peak)}, {told.time.tokens_per_s:,.0f} tokens/s, "
        f"at least LoRA with {percent(y)}",
        href=f"#{card_key(number)}",
    )


def _card(told: Told, number: int) -> Card:
    parts = ", ".join(f"{owner} {format_bytes(size)}" for owner, size in held(told.memory))
    facts = [
        ("Verdict", answer_words(told)),
        ("Settings", settings_words(told)),
        ("Memory", f"{parts}; peak in {told.memory.peak_phase} ({told.memory.peak_op})"),
        ("Time", time_words(told.time, told.provenance.calibration)),
        ("Cost", cost_words(told.cost)),
        ("Evidence", evidence_words(told.evidence)),
        ("Why", "; ".join(told.why)),
        ("Because", "; ".join(told.reasons)),
    ]
    return Card(
        key=card_key(number),
        number=str(number),
        name=told.run.method,
        line=f"{format_bytes(told.memory.device_peak_bytes)}, {told.evidence.label}",
        facts=tuple((name, text) for name, text in facts if text),
        links=citations(told.evidence.sources),
    )


def evidence_words(evidence: Evidence) -> str:
    """What is known of the method's quality."""
    chance, reason = evidence.probability_at_least_lora, evidence.reason
    if chance is None:
        label = "no published comparison" if evidence.label == "none" else evidence.label
        return f"{label}: {reason}" if reason else label
    interval = ""
    if evidence.low is not None and evidence.high is not None:
        interval = f" ({percent(evidence.low)} – {percent(evidence.high)})"
    said = f"{evidence.label}: at least as good as LoRA with {percent(chance)}{interval}"
    return f"{said}; {reason}" if reason else said


def citations(keys: Iterable[str]) -> tuple[Link, ...]:
    """Sources of evidence by their keys; addresses are those of our catalog alone."""
    known, links = evidence_sources(), []
    for key in keys:
        source = known.get(key)
        if source:
            links.append(Link(f"{source.title}: {source.location}", _address(source.location)))
        else:
            links.append(Link(key))
    return tuple(links)


def _address(location: str) -> str:
    """The address that a location begins with, or that its arXiv number stands for."""
    paper = re.match(r"arXiv (\d{4}\.\d{4,5})", location)
    if paper:
        return f"https://arxiv.org/abs/{paper[1]}"
    first = location.split(" ")[0].rstrip(";,")
    return first if first.startswith("https://") else ""


def saved_rows(saved: Iterable[tuple[str, float]]) -> list[Row]:
    """Bars of saved bytes per token."""
    return [
        Row(
            name=method,
            parts=(Part(size / KIB, "series s0", f"{method}: {size / KIB:,.1f} KiB"),),
            note=f"{size / KIB:,.1f} KiB",
        )
        for method, size in saved
    ]
