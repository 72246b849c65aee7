"""Texts of synthetic results, narrow and usual; and what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Listing, Page

Golden = Callable[[str, str], None]
WIDTHS = (60, 100)

LISTING = Listing(
    kind="gpus",
    columns=("id", "name", "usable_bytes", "bf16_flops_per_s", "memory_bandwidth_bytes_per_s"),
    rows=(
        {
            "id": "acme-40g",
            "name": "Acme Accelerator 40GB",
            "usable_bytes": 39 * 2**30,
            "bf16_flops_per_s": 3.12e14,
            "memory_bandwidth_bytes_per_s": 1.555e12,
        },
        {
            "id": "old",
            "name": "Old Card",
            "usable_bytes": 2**30,
            "bf16_flops_per_s": None,
            "memory_bandwidth_bytes_per_s": 1e11,
        },
    ),
)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["estimate", "oom_estimate", "recommendation"])
def test_text(name: str, width: int, golden: Golden, request: pytest.FixtureRequest) -> None:
    text = RENDERERS["text"](request.getfixturevalue(name), Page(width=width))
    assert max(map(len, text.splitlines())) <= width
    golden(f"{name.replace('_', '-')}-{width}.txt", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_list(width: int, golden: Golden) -> None:
    golden(f"list-{width}.txt", RENDERERS["text"](LISTING, Page(width=width)))


@pytest.mark.parametrize("width", [60, 61, 79, 80, 99, 120, 200])
@pytest.mark.parametrize("name", ["estimate", "oom_estimate", "recommendation"])
def test_no_line_is_wider_than_the_page(
    name: str, width: int, request: pytest.FixtureRequest
) -> None:
    text = RENDERERS["text"](request.getfixturevalue(name), Page(width=width))
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("name", ["estimate", "oom_estimate", "recommendation"])
def test_colour_adds_nothing_but_colour(name: str, request: pytest.FixtureRequest) -> None:
    import re

    value: Any = request.getfixturevalue(name)
    colored = RENDERERS["text"](value, Page(width=100, color=True))
    assert "\x1b[" in colored
    stripped = "\n".join(
        line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", colored).splitlines()
    )
    assert stripped + "\n" == RENDERERS["text"](value, Page(width=100))


def test_the_verdict_is_the_first_line(estimate: Estimate, oom_estimate: Estimate) -> None:
    def first_line(value: Estimate) -> str:
        return RENDERERS["text"](value, Page(width=80)).splitlines()[0]

    # 21 + 7 + 1 GiB, 40 + 40 + 80 + 300 + 500 MiB and 8.1 MiB of workspace: 29.945 GiB.
    assert first_line(estimate) == "✔ fits: 29.9 of 39.0 GiB, OOM risk 0.3 %"
    tight = replace(estimate, verdict="tight", oom_probability=0.07)
    assert first_line(tight) == "! tight: 29.9 of 39.0 GiB, OOM risk 7 %"
    assert first_line(oom_estimate).startswith("✘ does not fit: 45.9 of 39.0 GiB, 6.95 GiB too")


def test_nothing_fits_names_the_closest(recommendation: Any) -> None:
    none = replace(recommendation, choices=())
    text = RENDERERS["text"](none, Page(width=120))
    assert text.startswith("✘ nothing fits: acme/seq2seq-11b on 1 × Acme Accelerator 40GB; full")


def test_uncalibrated_times_say_so(estimate: Estimate) -> None:
    page = Page(width=200)
    assert "; uncalibrated" in RENDERERS["text"](estimate, page)
    fitted = replace(estimate.provenance, calibration="bundled fit 2026-11")
    assert "uncalibrated" not in RENDERERS["text"](replace(estimate, provenance=fitted), page)


def test_control_characters_never_reach_the_terminal(estimate: Estimate) -> None:
    model = replace(estimate.run.model, id="evil\x1b[2J[red]model\n")
    evil = replace(estimate, run=replace(estimate.run, model=model))
    text = RENDERERS["text"](evil, Page(width=100))
    assert "\x1b" not in text
    assert "evil?[2J[red]model?" in text
