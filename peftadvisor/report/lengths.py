"""A data set's lengths as text: how they are spread, what is cut, what padding and packing cost."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from peftadvisor.cost_model.batching import Batching, Packed, Rows
from peftadvisor.data.lengths import Histogram, Lengths
from peftadvisor.report.canvas import Canvas, column, plain
from peftadvisor.report.sections import labelled
from peftadvisor.units import format_count

_BAR_WIDTH = 40
_FULL, _TRACE = "█", "▏"


def render(batching: Batching, width: int, color: bool) -> str:
    """The whole answer, as a page of its own."""
    canvas = Canvas(width, color)
    canvas.add(*parts(batching, width))
    return canvas.text()


def parts(batching: Batching, width: int) -> list[Any]:
    """Headline, histogram and facts, for a section of a page."""
    lengths = batching.lengths
    found = [Text(plain(headline(lengths)), style="bold"), _histogram(lengths.rows, width)]
    if lengths.encoder_decoder:
        found += [Text("Targets"), _histogram(lengths.targets, width)]
    return [*found, facts(batching), *(Text(f"• {plain(note)}") for note in lengths.notes)]


def headline(lengths: Lengths) -> str:
    """How much there is."""
    found = _several(lengths.examples, "example")
    if lengths.sequences != lengths.examples:
        found += f", {_several(lengths.sequences, 'sequence')}"
    return (
        f"{found} in {lengths.file}: "
        f"{format_count(lengths.tokens)} tokens, {format_count(lengths.learned)} of them learned"
    )


def facts(batching: Batching) -> Table:
    """Means and quantiles, what is cut, and the three ways of making batches; a row each."""
    lengths, packed = batching.lengths, batching.packed
    two = lengths.encoder_decoder
    rows = [
        ("Sources" if two else "Lengths", _spread(lengths.rows)),
        ("Targets", _spread(lengths.targets) if two else ""),
        ("Cut", _cut(batching)),
        ("Padded", _padded(batching)),
        ("Sorted", _sorted(batching)),
        ("Packed", "" if packed is None else _packed(packed)),
        ("Read as", "; ".join(f"{name} ({count:,})" for name, count in lengths.shapes)),
    ]
    return labelled(rows)


def _histogram(lengths: Histogram, width: int) -> Table:
    """A bar for each range, the longest as long as the page allows."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for head in ("range", "share"):
        column(table, head, right=True)
    column(table, "bar")
    buckets = lengths.buckets()
    most = max(bucket.count for bucket in buckets)
    room = max(10, min(_BAR_WIDTH, width - 30))
    for bucket in buckets:
        bar = _FULL * round(room * bucket.count / most)
        table.add_row(
            f"{bucket.low:,}" if bucket.low == bucket.high else f"{bucket.low:,}–{bucket.high:,}",
            _percent(bucket.count / lengths.count),
            Text(bar or (_TRACE if bucket.count else ""), style="cyan"),
        )
    return table


def _spread(lengths: Histogram) -> str:
    half, most, nearly = (lengths.quantile(share) for share in (0.5, 0.9, 0.99))
    return (
        f"mean {lengths.mean:,.1f} tokens; 50 % up to {half:,}, 90 % up to {most:,}, "
        f"99 % up to {nearly:,}, longest {lengths.longest:,}"
    )


def _cut(batching: Batching) -> str:
    lengths = batching.lengths
    limit = f"{batching.seq_len:,}"
    if batching.targets:
        limit += f" → {batching.target_len:,}"
    if not batching.cut_sequences:
        return f"none is longer than {limit} tokens"
    return (
        f"{batching.cut_sequences:,} of {lengths.sequences:,} "
        f"({_percent(batching.cut_sequences / lengths.sequences)}) to {limit} tokens; "
        f"{format_count(batching.lost_tokens)} tokens "
        f"({_percent(batching.lost_tokens / lengths.tokens)}) are lost"
    )


def _padded(batching: Batching) -> str:
    sides = " → ".join(_side(side) for side in (batching.rows, batching.targets) if side)
    return (
        f"batches of {batching.batch_rows:,} drawn at random: the longest row has {sides}; "
        f"{_percent(batching.padding_share)} of all tokens are padding"
    )


def _side(rows: Rows) -> str:
    return f"{rows.expected_longest:,.1f} tokens on average, {rows.longest:,} at most"


def _sorted(batching: Batching) -> str:
    share = batching.sorted_padding_share
    if share is None:
        return ""
    return f"batches of like lengths: {_percent(share)} of all tokens are padding"


def _packed(packed: Packed) -> str:
    saving = (
        f"{packed.gain:.2f} times fewer tokens than padded"
        if packed.gain >= 1
        else f"{1 / packed.gain:.2f} times more tokens than padded"
    )
    return (
        f"{_several(packed.rows, 'row')} of {packed.row_len:,} tokens, examples whole "
        f"({packed.wrapped_rows:,} if cut anywhere): {saving}"
    )


def _several(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %"
