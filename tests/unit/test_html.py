"""Validation as a page: whole, accessible, nothing fetched, and names that cannot break it."""

from __future__ import annotations

import tomllib
from collections import Counter
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import peftadvisor
from peftadvisor.cost_model.accuracy import Compared, Outcome, histogram, summarize
from peftadvisor.errors import UsageError
from peftadvisor.integrations.validation import Validation
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from peftadvisor.report.canvas import plain
from peftadvisor.report.charts import Frame
from peftadvisor.report.drawing import Drawing, Shape, diamond, dot, triangle
from peftadvisor.report.validation_charts import Pair, scatter
from peftadvisor.report.validation_charts import histogram as bars
from peftadvisor.units import GIB
from tests.golden.test_validation import VALIDATION

PACKAGE = Path(peftadvisor.__file__).parent
VOID = {"meta", "link", "br", "input"}


class Reader(HTMLParser):
    """A page's elements in order, their attributes, what they hold, and whether they nest."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.inside: Counter[tuple[str, str]] = Counter()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside.update({(outer, tag) for outer in set(self.open)})
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [str(attrs[name]) for _, attrs in self.elements if name in attrs]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def page_of(value: Any) -> str:
    return RENDERERS["html"](value, Page())


def named(name: str, reason: str = "") -> Validation:
    """One row that is used and one that is not, with this name for everything that has one."""
    compared = Compared(measured=20 * GIB, low=18 * GIB, predicted=21 * GIB, high=23 * GIB)
    parts: dict[str, Any] = {"row_id": name, "source": name, "method": name, "gpu": name}
    rows = (
        Outcome(**parts, compared={"reserved": compared}, ran_out=False, verdict="oom"),
        Outcome(**parts, ran_out=True, verdict="fits"),
        Outcome(**parts, reason=reason or name),
    )
    return Validation(file=name, groups=summarize(rows), rows=rows)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(page_of(VALIDATION))


def test_the_page_is_whole(reader: Reader) -> None:
    assert reader.open == []
    assert page_of(VALIDATION).startswith('<!DOCTYPE html>\n<html lang="en">')
    ids = reader.values("id")
    assert len(ids) == len(set(ids))
    links = [href.removeprefix("#") for href in reader.values("href") if href != "data:,"]
    referred = [*reader.values("aria-labelledby"), *reader.values("aria-describedby")]
    assert {*links, *referred} <= set(ids)


def test_nothing_is_fetched_and_nothing_runs(reader: Reader) -> None:
    page = page_of(VALIDATION)
    assert not any(part in page for part in ("http:", "https:", "//", "url(", "@import", "<script"))
    assert {tag for tag, _ in reader.elements} & {"script", "img", "iframe", "object"} == set()
    assert reader.values("src") == []
    assert "default-src 'none'" in reader.values("content")[-1]


def test_every_table_says_what_it_is(reader: Reader) -> None:
    tables = len(reader.all("table"))
    assert tables == len(reader.all("caption")) == reader.inside["table", "caption"]
    # overall, verdicts, three groupings, reasons and three of them by group, rows, rows left out
    assert tables == 11
    scopes = Counter(attrs.get("scope") for attrs in reader.all("th"))
    assert set(scopes) == {"col", "row", "rowgroup"}
    # a region that scrolls can be reached by key
    assert reader.values("role").count("region") == tables == len(reader.values("tabindex"))


def test_every_figure_has_its_text(reader: Reader) -> None:
    images = [attrs for attrs in reader.all("svg") if attrs.get("role") == "img"]
    # peaks and step times, and the errors of four quantities
    assert len(images) == 6 == len(reader.all("figcaption"))
    assert all(attrs["aria-label"] and attrs["aria-describedby"] for attrs in images)
    others = [attrs for attrs in reader.all("svg") if attrs.get("role") != "img"]
    assert all(attrs.get("aria-hidden") == "true" for attrs in others)
    text = " ".join("".join(reader.texts).replace("\u00a0", " ").split())
    described = "Reserved memory: 2 rows, 14.3 % off on average, from 0.0 % to +28.6 %;"
    assert described in text


def test_what_the_page_says(reader: Reader) -> None:
    text = " ".join(" ".join(reader.texts).split())
    assert "rows.csv : 3 of 4 rows used, 1 left out." in text
    assert "Of 1 that ran out of memory 1 were said to fit (false-safe); of 2 that ran 1" in text
    assert "gpu is not stated" in text
    assert "acme-3 full, a100-80g verdict ran out fits" in text


def test_without_rows_there_are_no_figures() -> None:
    reader = Reader(page_of(Validation(file="rows.csv", groups=VALIDATION.groups)))
    assert reader.all("figure") == []
    assert len(reader.all("table")) == 9


def test_nothing_used() -> None:
    rows = tuple(row for row in VALIDATION.rows if not row.used)
    reader = Reader(page_of(Validation(file="rows.csv", groups=summarize(rows), rows=rows)))
    text = " ".join("".join(reader.texts).split())
    assert "0 of 1 rows used, 1 left out." in text
    assert "Of no row it is known whether it ran out of memory." in text
    assert reader.all("figure") == []


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style><b>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "&lt;&amp;&#x3c;",
    "שלום \u202eevil\u202c عربي",
    "x" * 300,
    "a\x00b\x1b[2J\u2028",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text(name: str) -> None:
    reader, harmless = Reader(page_of(named(name))), Reader(page_of(named("x")))
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in harmless.elements]
    kept = [text for text in reader.texts if plain(name) in text]
    # file, three groups, three of their reasons, the verdicts, two rows used, one left out, ...
    assert len(kept) >= 10
    assert not any("\u202e" in text or "\x00" in text for text in reader.texts)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_any_name_is_text(name: str, reason: str) -> None:
    reader, harmless = Reader(page_of(named(name, reason))), Reader(page_of(named("x", "y")))
    assert [(tag, set(a)) for tag, a in reader.elements] == [
        (tag, set(a)) for tag, a in harmless.elements
    ]


def test_a_large_page_stays_small() -> None:
    """Two thousand rows of four quantities."""
    rows = VALIDATION.rows * 500
    page = page_of(Validation(file="rows.csv", groups=summarize(rows), rows=rows))
    assert len(page.encode()) < 5_000_000


def test_what_has_no_page_says_so(estimate: Estimate) -> None:
    with pytest.raises(UsageError, match="no HTML page of Estimate; use --format json"):
        page_of(estimate)


def test_templates_are_in_the_package() -> None:
    project = tomllib.loads(
        (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    )
    patterns = project["tool"]["setuptools"]["package-data"]["peftadvisor"]
    files = sorted((PACKAGE / "report" / "templates").iterdir())
    assert {path.suffix for path in files} == {".html", ".css", ".js", ".svg"}
    for path in files:
        name = str(path.relative_to(PACKAGE))
        assert any(fnmatch(name, pattern) for pattern in patterns)


# -- Geometry ------------------------------------------------------------------------------------


def test_counts_of_a_histogram() -> None:
    """An edge belongs to what is above it."""
    assert histogram([-0.2, -0.1, 0.0, 0.05, 0.1, 3.0], (-0.1, 0.0, 0.1)) == (1, 1, 2, 2)


@given(st.lists(st.floats(-1, 10)))
def test_a_histogram_counts_everything(errors: list[float]) -> None:
    assert sum(histogram(errors, (-0.5, 0.0, 0.5))) == len(errors)


FRAME = Frame(key="k", title="t", description=("d",), unit="GiB")


def drawn(*series: list[tuple[float, float]]) -> Drawing:
    made = [(str(n), [Pair(*pair, f"{pair}") for pair in pairs]) for n, pairs in enumerate(series)]
    return scatter(FRAME, made)


def styled(drawing: Drawing, style: str) -> list[Shape]:
    return [shape for shape in drawing.shapes if shape.style.startswith(style)]


def test_equal_values_lie_on_the_line() -> None:
    plot = drawn([(1, 1), (100, 100), (10, 20)])
    [frame], [same], [band] = (styled(plot, style) for style in ("frame", "same", "band"))
    assert frame.path == "M64 14H426V376H64z"
    assert same.path == "M64 376L426 14"
    # 1 / 1.15 to 115 are 362 wide: ln 1.15 / ln 132.25 of them is 10.4, ln 1.1 / ln 132.25 7.1.
    assert band.path == "M64 368.9L418.9 14L426 14L426 21.1L71.1 376L64 376z"
    marks = styled(plot, "series")
    assert [mark.text for mark in marks] == ["(1, 1)", "(100, 100)", "(10, 20)"]
    assert [mark.path for mark in marks[:2]] == [
        dot(64 + 10.357, 376 - 10.357, 5),
        dot(426 - 10.357, 14 + 10.357, 5),
    ]
    # ln 11.5 and ln 23 of ln 132.25
    assert marks[2].path == dot(64 + 181, 376 - 232.366, 5)


def test_series_differ_in_shape_and_are_told_apart() -> None:
    plot = drawn([(1, 1)], [(2, 2)], [(3, 3)])
    assert [key.path for key in plot.legend] == [m(5, 5, 5) for m in (dot, diamond, triangle)]
    assert [key.style for key in plot.legend] == [mark.style for mark in styled(plot, "series")]
    assert drawn([(1, 1)]).legend == ()


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1, 100, ["1", "2", "5", "10", "20", "50", "100"]),
        (0.01, 100, ["0.01", "0.1", "1", "10", "100"]),
        (20, 36, ["20", "25", "30", "35", "40"]),
        (20, 20, ["18", "20", "22"]),
        (0.3, 0.5, ["0.3", "0.4", "0.5"]),
    ],
)
def test_ticks_are_round_and_several(low: float, high: float, labels: list[str]) -> None:
    said = [label.text for label in drawn([(low, low), (high, high)]).labels]
    assert said == [*labels, *labels, "measured, GiB", "predicted, GiB"]


def test_bars() -> None:
    """Four intervals of 362 / 4 each; the highest bar fills 126, the lowest a half of that."""
    plot = bars(FRAME, (-0.1, 0.0, 0.1), (0, 2, 4, 0))
    first, second = styled(plot, "series")
    assert (first.path, first.text) == ("M155.5 77H244V140H155.5z", "−10 % to 0 %: 2")
    assert (second.path, second.text) == ("M246 14H334.5V140H246z", "0 % to +10 %: 4")
    assert [shape.path for shape in styled(plot, "same")] == ["M245 14L245 140"]
    assert [label.text for label in plot.labels[5:]] == [
        *("0", "4"),
        *("predicted / measured − 1", "GiB"),
    ]
