"""Texts of predictions beside measurements, narrow and usual, from made-up outcomes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from peftadvisor.cost_model.accuracy import Compared, Outcome, summarize
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import RENDERERS, Page
from peftadvisor.units import GIB

Golden = Callable[[str, str], None]


def peak(measured: float, predicted: float) -> Compared:
    return Compared(
        measured=int(measured * GIB),
        low=int(0.9 * predicted * GIB),
        predicted=int(predicted * GIB),
        high=int(1.1 * predicted * GIB),
    )


OUTCOMES = (
    Outcome(
        row_id="acme-1",
        source="acme",
        method="lora",
        gpu="a100-80g",
        compared={
            "allocated": peak(20.0, 21.0),
            "reserved": peak(22.0, 22.0),
            "step": Compared(measured=0.5, low=0.3, predicted=0.4, high=0.7),
        },
        ran_out=False,
        verdict="fits",
    ),
    Outcome(
        row_id="acme-2",
        source="acme",
        method="full",
        gpu="a100-80g",
        compared={"reserved": peak(70.0, 90.0), "device": peak(71.0, 91.0)},
        ran_out=False,
        verdict="oom",
    ),
    Outcome(
        row_id="acme-3",
        source="acme",
        method="full",
        gpu="a100-80g",
        ran_out=True,
        verdict="fits",
    ),
    Outcome(
        row_id="else-1",
        source="a source with a name that is too long for any narrow page",
        method="lora (unsloth)",
        gpu="not stated",
        reason="gpu is not stated",
    ),
)
VALIDATION = Validation(file="rows.csv", groups=summarize(OUTCOMES), rows=OUTCOMES)


@pytest.mark.parametrize("width", [60, 100])
def test_text(width: int, golden: Golden) -> None:
    golden(f"validation-{width}.txt", RENDERERS["text"](VALIDATION, Page(width=width)))


def test_html(golden: Golden) -> None:
    """What stands on the page; the style is looked at, not compared."""
    page = RENDERERS["html"](VALIDATION, Page())
    body = page[page.index("<header>") : page.index("<footer>")]
    golden("validation.html", body)


@pytest.mark.parametrize("width", [60, 61, 69, 70, 79, 80, 99, 100, 200])
def test_no_line_is_wider_than_the_page(width: int) -> None:
    text = RENDERERS["text"](VALIDATION, Page(width=width))
    assert max(map(len, text.splitlines())) <= width


def test_no_table_of_nothing() -> None:
    nothing = Validation(file="rows.csv", groups=summarize(OUTCOMES[-1:]))
    text = RENDERERS["text"](nothing, Page(width=100))
    assert text.startswith("rows.csv: 0 of 1 rows used, 1 left out\n\nLeft out\n")


def test_json_is_the_whole() -> None:
    data = json.loads(RENDERERS["json"](VALIDATION, Page()))
    assert [group["by"] for group in data["groups"]].count("overall") == 1
    assert data["groups"][0]["rows"] == {
        "used": 3,
        "skipped": 1,
        "reasons": {"gpu is not stated": 1},
    }
    assert data["groups"][0]["oom"] == {
        "oom_rows": 1,
        "false_safe": 1,
        "ran_rows": 2,
        "false_alarms": 1,
        "false_safe_rate": 1.0,
        "false_alarm_rate": 0.5,
    }
    first, *_, last = data["rows"]
    assert first["compared"]["reserved"]["error"] == 0.0
    assert (last["skipped"], last["compared"], last["verdict"]) == ("gpu is not stated", {}, None)


def test_names_cannot_repaint_a_terminal() -> None:
    sneaky = (Outcome(row_id="\x1b[2J", source="\x1b]0;x", method="m", gpu="g", reason="\x07"),)
    value = Validation(file="\x1b[31m", groups=summarize(sneaky), rows=sneaky)
    text = RENDERERS["text"](value, Page(width=100))
    assert all(c.isprintable() or c == "\n" for c in text)
