"""Reports of every kind in Chromium: wide and narrow, light and dark, moved and clicked.

PEFTADVISOR_SCREENSHOTS names a folder for a picture of each; AXE_JS the axe.min.js of npm's
axe-core, which is else looked for in node_modules.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftadvisor.advisor import stops
from peftadvisor.advisor.estimating import from_simulated
from peftadvisor.advisor.places import named as places_named
from peftadvisor.advisor.question import Question
from peftadvisor.data.gpus import find_gpu
from peftadvisor.data.models import find_model
from peftadvisor.integrations.answers import Story, answer
from peftadvisor.integrations.stories import story_of_methods, story_of_question, story_of_run, told
from peftadvisor.report import RENDERERS, Page
from peftadvisor.report.carried import words
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec
from tests.report_values import plain_profiles
from tests.unit.test_report_pages import named

api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
SCREENSHOTS = os.environ.get("PEFTADVISOR_SCREENSHOTS")
AXE = Path(os.environ.get("AXE_JS", "node_modules/axe-core/axe.min.js"))
SECONDS = 2.0
SMALLEST_PX = 9
BUDGET = Budget(total_tokens=10_000_000)
RUN = RunSpec(
    model=find_model("meta-llama/Llama-3.1-8B"),
    method=MethodSpec(name="qlora"),
    training=TrainingSpec(micro_batch_size=2, gradient_accumulation_steps=4, quantization="nf4-dq"),
    gpu=find_gpu("rtx-4090"),
)
HOSTILE = ("<script>alert(1)</script>", "\"quoted\" 'path'/../x", "x" * 300, "שלום \u202eevil")
KINDS = (
    *("recommendation", "comparison", "run", "file", "sweep", "measured", "profiles", "validation"),
    *(f"hostile-{number}" for number in range(len(HOSTILE))),
)


def silent(_: str) -> None:
    """Nobody watches."""


def stories() -> dict[str, Story]:
    """One of each kind."""
    from tests.golden.test_validation import VALIDATION

    run = story_of_run(RUN, BUDGET, silent)
    lora = replace(RUN, method=MethodSpec(name="lora"), training=TrainingSpec(micro_batch_size=2))
    question = Question(
        model=RUN.model,
        places=places_named(RUN.gpu, 1, "ddp"),
        training=TrainingSpec(),
        budget=BUDGET,
        effective_batch_size=16,
        methods=None,
    )
    estimate = from_simulated(RUN, known(RUN), BUDGET)
    both = plain_profiles()
    measured = {"profiles": both["profiles"][1:]}
    return {
        "recommendation": story_of_question(question, silent),
        "comparison": story_of_methods(lora, ["lora", "dora", "ia3", "houlsby"], BUDGET, silent),
        "run": run,
        "file": Story(source="answer.json", answer=told(estimate)),
        "sweep": story_of_run(lora, BUDGET, silent, "length"),
        "measured": Story(source="measured.json", answer=answer(measured, "x")),
        "profiles": Story(source="profiles.json", answer=answer(both, "x")),
        "validation": Story(source="rows.json", answer=VALIDATION),
        **{f"hostile-{n}": named(estimate, name) for n, name in enumerate(HOSTILE)},
    }


def known(run: RunSpec) -> Any:
    found = stops.Files().known(run)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {}
    for kind, story in stories().items():
        made[kind] = folder / f"{kind}.html"
        made[kind].write_text(RENDERERS["html"](story, Page()), encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


class Opened:
    """A page, what it asked for and said, and how long it took to open."""

    def __init__(self, context: Any, path: Path) -> None:
        self.asked: list[str] = []
        self.said: list[str] = []
        self.path = path
        self.view = context.new_page()
        self.view.on("console", lambda message: self.said.append(message.text))
        self.view.on("pageerror", lambda error: self.said.append(str(error)))
        self.view.on("dialog", lambda dialog: (self.said.append("dialog"), dialog.dismiss()))
        self.view.route("**/*", self._stop)
        began = time.monotonic()
        self.view.goto(path.as_uri())
        if self.view.locator("#controls").count():
            self.view.wait_for_selector("#controls[data-ready]")
        self.seconds = time.monotonic() - began

    def _stop(self, route: Any) -> None:
        """Let the file itself through, count and stop all else."""
        if route.request.url == self.path.as_uri():
            route.continue_()
            return
        self.asked.append(route.request.url)
        route.abort()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    contexts = []

    def open_page(path: Path, width: int = 1440, scheme: str = "light", **more: Any) -> Opened:
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, **more)
        contexts.append(context)
        return Opened(context, path)

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("kind", KINDS)
def test_it_opens_well(
    kind: str, width: int, scheme: str, pages: dict[str, Path], opened: Any
) -> None:
    page = opened(pages[kind], width, scheme)
    assert page.asked == []
    assert page.said == []
    assert page.seconds < SECONDS
    assert page.path.stat().st_size < 5_000_000
    view = page.view
    assert view.evaluate("document.documentElement.scrollWidth") == width
    red = view.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0]")
    assert (int(red) < 64) == (scheme == "dark")
    assert view.evaluate(OVERLAPPING) == []
    assert view.evaluate(EMPTY) == []
    assert view.evaluate(SMALLEST) >= SMALLEST_PX
    if SCREENSHOTS:
        view.screenshot(path=f"{SCREENSHOTS}/{kind}-{width}-{scheme}.png", full_page=True)


@pytest.mark.skipif(not AXE.exists(), reason="needs axe-core: npm install axe-core, or AXE_JS")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_serious(
    kind: str, scheme: str, pages: dict[str, Path], opened: Any
) -> None:
    view = opened(pages[kind], 1440, scheme, bypass_csp=True).view
    view.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    view.evaluate(AXE.read_text(encoding="utf-8"))
    found = view.evaluate("axe.run(document)")["violations"]
    serious = [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in BAD]
    assert serious == []


BAD = ("serious", "critical")


def test_hovering_names_the_tensor_and_the_operator(pages: dict[str, Path], opened: Any) -> None:
    view = opened(pages["run"]).view
    figure = view.locator("[data-walk]").first
    moments = json.loads(figure.get_attribute("data-walk"))
    svg = figure.locator("svg.plot").first
    svg.scroll_into_view_if_needed()
    box, chance = svg.bounding_box(), random.Random(1)
    for _ in range(5):
        x = chance.uniform(60, 420)
        view.mouse.move(box["x"] + x / 440 * box["width"], box["y"] + box["height"] / 2)
        nearest = min(moments, key=lambda moment: abs(moment[0] - x))
        shown = figure.locator("output").text_content()
        assert shown in {text for at, text in moments if abs(at - nearest[0]) < 1.5}
        assert "; last tensor: " in shown
        assert ", after " in shown


def test_walking_by_key(pages: dict[str, Path], opened: Any) -> None:
    view = opened(pages["run"]).view
    figure = view.locator("[data-walk]").first
    moments = json.loads(figure.get_attribute("data-walk"))
    slider = figure.locator("input")
    slider.focus()
    view.keyboard.press("Home")
    view.keyboard.press("ArrowRight")
    view.keyboard.press("ArrowRight")
    assert figure.locator("output").text_content() == moments[2][1]
    assert slider.get_attribute("aria-valuetext") == moments[2][1]


def test_a_method_leads_to_its_citations(pages: dict[str, Path], opened: Any) -> None:
    view = opened(pages["comparison"]).view
    mark = view.locator("svg[aria-describedby='front-memory'] a").first
    target = mark.get_attribute("href").removeprefix("#")
    card = view.locator(f"#{target}")
    assert not card.evaluate("card => card.open")
    mark.locator("path").click()
    assert card.evaluate("card => card.open")
    assert card.locator("summary").evaluate("e => e === document.activeElement")
    assert card.locator("a[href^='https://']").count() > 0
    # and by key, from another one
    other = view.locator("svg[aria-describedby='front-memory'] a").nth(1)
    other.focus()
    view.keyboard.press("Enter")
    assert view.locator(other.get_attribute("href")).evaluate("card => card.open")


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_sliders_say_what_python_says(kind: str, pages: dict[str, Path], opened: Any) -> None:
    """At 50 random places every printed number is Python's, to the digit."""
    view = opened(pages[kind]).view
    run = RUN
    if kind == "comparison":
        method = view.locator("#what-if-section h2").text_content().split(": ")[1].split(" ")[0]
        run = replace(
            RUN, method=MethodSpec(name=method), training=TrainingSpec(micro_batch_size=2)
        )
    chance, files = random.Random(11), stops.Files()
    cards = {gpu.id: gpu for gpu in stops.gpus(run)}
    sliders = {name: view.locator(f"#w-{name}") for name in ("batch", "length", "size", "gpu")}
    at = {n: json.loads(s.get_attribute("data-stops")) for n, s in sliders.items() if s.count()}
    for _ in range(50):
        chosen = {}
        for name, listed in at.items():
            place = chance.randrange(len(listed))
            sliders[name].fill(str(place))
            chosen[name] = listed[place]
        view.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
        there = stops.on(run, cards[chosen["gpu"]])
        if "size" in chosen:
            there = stops.with_size(there, number(chosen["size"]))
        there = stops.at(there, number(chosen["batch"]), number(chosen["length"]))
        found = files.known(there)
        assert found is not None
        assert view.evaluate(ANSWERS) == words(from_simulated(there, found, Budget()))
        for name, text in chosen.items():
            assert view.locator(f"#w-{name}-at").text_content() == text


def number(text: str) -> int:
    return int(text.replace(",", ""))


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_hostile_names_are_text(place: int, pages: dict[str, Path], opened: Any) -> None:
    page = opened(pages[f"hostile-{place}"])
    assert page.said == []
    shown = page.view.locator("body").inner_text()
    assert HOSTILE[place].replace("\u202e", "?") in shown
    assert page.view.locator("script").count() == 1
    assert page.view.locator("main img, main b").count() == 0


def test_it_prints_whole(pages: dict[str, Path], opened: Any) -> None:
    """On paper what is folded is open, and controls are left out."""
    view = opened(pages["recommendation"], 800).view
    view.evaluate("dispatchEvent(new Event('beforeprint'))")
    view.emulate_media(media="print")
    assert view.locator("details:not([open])").count() == 0
    assert not view.locator(".sliders").is_visible()
    assert view.locator(".answer").is_visible()


def test_without_scripts_it_can_be_read(pages: dict[str, Path], opened: Any) -> None:
    view = opened_without_scripts(pages["recommendation"], opened)
    assert "Take " in view.locator(".answer").text_content()
    assert view.locator("svg.plot").count() > 5


def opened_without_scripts(path: Path, opened: Any) -> Any:
    page = opened(path.with_name("file.html"), java_script_enabled=False)
    page.view.unroute("**/*")
    page.view.goto(path.as_uri())
    return page.view


ANSWERS = """Object.fromEntries([...document.querySelectorAll('[data-answer]')].map(
  cell => [cell.dataset.answer, cell.textContent]))"""

# Texts of one drawing that lie on each other, and parts of the page that do.
OVERLAPPING = """(() => {
  const found = [];
  const hit = (a, b, slack) => a.left < b.right - slack && b.left < a.right - slack
    && a.top < b.bottom - slack && b.top < a.bottom - slack;
  const pairs = (elements, slack) => {
    const boxes = elements.map(e => [e, e.getBoundingClientRect()]).filter(([, b]) => b.width);
    boxes.forEach(([e, a], n) => boxes.slice(n + 1).forEach(([f, b]) => {
      if (hit(a, b, slack)) found.push([e.textContent.slice(0, 40), f.textContent.slice(0, 40)]);
    }));
  };
  for (const svg of document.querySelectorAll('svg.plot'))
    pairs([...svg.querySelectorAll('text:not(.in)')], 2);
  pairs([...document.querySelectorAll('header, main > section, footer')], 0);
  document.querySelectorAll('section').forEach(s => pairs([...s.children], 0));
  document.querySelectorAll('.tiles').forEach(t => pairs([...t.children], 0));
  document.querySelectorAll('.slider').forEach(t => pairs([...t.children], 0));
  return found;
})()"""

EMPTY = """[...document.querySelectorAll('svg.plot')].filter(svg => {
  const box = svg.getBoundingClientRect();
  const marks = [...svg.querySelectorAll('path:not(.tick):not(.frame), rect, circle, polygon')];
  const drawn = marks.filter(m => {
    const b = m.getBoundingClientRect();
    return b.width + b.height > 1;
  });
  return box.width < 200 || box.height < 60 || !drawn.length;
}).map(svg => svg.getAttribute('aria-label'))"""

SMALLEST = """Math.min(99, ...[...document.querySelectorAll('svg.plot text')].map(text => {
  const svg = text.ownerSVGElement;
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return parseFloat(getComputedStyle(text).fontSize) * scale;
}))"""
