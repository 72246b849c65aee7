"""The validation page in Chromium: wide and narrow, light and dark."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.cost_model.accuracy import Compared, Outcome, Quantity, summarize
from peftadvisor.integrations.validation import Validation
from peftadvisor.report import RENDERERS, Page
from peftadvisor.units import GIB

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
NAMES = ("acme", "<script>alert(1)</script>", '"quoted" & co', "שלום עולם \u202eevil", "x" * 300)
SMALLEST_PX = 10


def outcome(number: int, chance: random.Random) -> Outcome:
    size = GIB * 10 ** chance.uniform(0, 2)
    compared: dict[Quantity, Compared] = {
        quantity: Compared(measured=size, low=0.9 * size, predicted=size * p, high=1.1 * size)
        for quantity, p in (("allocated", 0.98), ("reserved", 1.03), ("device", 1.1))
    }
    compared["step"] = Compared(measured=size / GIB, low=0.1, predicted=1.3 * size / GIB, high=200)
    left_out = number % 7 == 0
    return Outcome(
        row_id=f"row {number}",
        source=NAMES[number % len(NAMES)],
        method=NAMES[number % 3],
        gpu="a100-80g",
        reason="gpu is not stated" if left_out else "",
        compared={} if left_out else compared,
        ran_out=None if left_out else number % 5 == 0,
        verdict=None if left_out else "fits",
    )


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = random.Random(7)
    rows = tuple(outcome(number, chance) for number in range(60))
    value = Validation(file=NAMES[1], groups=summarize(rows), rows=rows)
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(RENDERERS["html"](value, Page()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(params=[(1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")])
def view(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, with what it fetched and said in ``view.noted``."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    view = context.new_page()
    view.noted = {"fetched": [], "said": []}
    view.on("request", lambda sent: view.noted["fetched"].append(sent.url))
    view.on("console", lambda message: view.noted["said"].append(message.text))
    view.on("pageerror", lambda error: view.noted["said"].append(str(error)))
    view.goto(page_file.as_uri())
    yield view
    context.close()


def test_it_says_and_fetches_nothing(view: Any, page_file: Path) -> None:
    fetched = [url for url in view.noted["fetched"] if not url.startswith("data:")]
    assert fetched == [page_file.as_uri()]
    assert view.noted["said"] == []


def test_it_is_no_wider_than_the_screen(view: Any) -> None:
    for summary in view.query_selector_all("summary"):
        summary.click()
    wide = view.evaluate("document.documentElement.scrollWidth")
    assert wide == view.viewport_size["width"]


def test_dark_is_dark(view: Any) -> None:
    dark = view.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    color = view.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(color.removeprefix("rgb(").split(",")[0])
    assert (red < 64) == dark


def test_paper_is_light(view: Any) -> None:
    view.emulate_media(media="print")
    color = view.evaluate("getComputedStyle(document.body).backgroundColor")
    assert color == "rgb(251, 251, 250)"


def test_marks_say_what_they_are(view: Any) -> None:
    """51 rows used, in three series and one; their shapes and colours are those of the legend."""
    marks = view.locator("svg.plot path.mark")
    assert marks.count() == 4 * 51 == marks.locator("title").count()
    drawn = view.locator(".legend path").evaluate_all(
        "paths => paths.map(p => [p.getAttribute('d'), getComputedStyle(p).fill])"
    )
    assert len({path for path, _ in drawn}) == len({fill for _, fill in drawn}) == 3


def test_text_stands_out(view: Any) -> None:
    """Contrast of at least 4.5 (WCAG 2.2, 1.4.3) of all text against the page."""
    assert view.evaluate(LEAST_CONTRAST) >= 4.5


def test_figures_can_be_read(view: Any) -> None:
    smallest = view.evaluate(
        """Math.min(...[...document.querySelectorAll('svg.plot text')].map(text => {
          const svg = text.ownerSVGElement;
          const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
          return parseFloat(getComputedStyle(text).fontSize) * scale;
        }))"""
    )
    assert smallest >= SMALLEST_PX


def test_names_are_text(view: Any) -> None:
    assert view.locator("main script, main img, main b").count() == 0
    assert view.locator("bdi", has_text="<script>alert(1)</script>").count() > 2


LEAST_CONTRAST = """(() => {
  const light = text => {
    const [r, g, b] = text.match(/[0-9.]+/g).slice(0, 3).map(part => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor);
  const inks = [...document.querySelectorAll('body *')].filter(e => e.textContent.trim());
  return Math.min(...inks.map(e => {
    const ink = light(getComputedStyle(e)[e.ownerSVGElement ? 'fill' : 'color']);
    return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
  }));
})()"""
