"""What is worked out for a report: it agrees with the recording and the estimate it is of."""

from __future__ import annotations

import random

import numpy as np
import pytest

from peftadvisor.advisor import stops
from peftadvisor.advisor.estimating import estimate, from_simulated
from peftadvisor.advisor.studying import Study, study
from peftadvisor.integrations.answers import Story
from peftadvisor.integrations.lookup import gpu_spec, model_spec
from peftadvisor.integrations.stories import told
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from peftadvisor.simulator.course import course_of, saved_bytes_per_token
from peftadvisor.simulator.obtain import Simulated
from peftadvisor.simulator.tape import tape_of
from peftadvisor.simulator.trace import Owner
from peftadvisor.specs import Budget, MethodSpec, RunSpec, TrainingSpec

BUDGET = Budget(total_tokens=10_000_000)
RUN = RunSpec(
    model=model_spec("meta-llama/Llama-3.1-8B"),
    method=MethodSpec(name="lora"),
    training=TrainingSpec(micro_batch_size=2, gradient_accumulation_steps=2),
    gpu=gpu_spec("rtx-4090", None),
)


@pytest.fixture(scope="module")
def predicted() -> Estimate:
    return estimate(RUN, budget=BUDGET)


@pytest.fixture(scope="module")
def found(predicted: Estimate) -> Study:
    return study(predicted, BUDGET)


@pytest.fixture(scope="module")
def simulated() -> Simulated:
    known = stops.Files().known(RUN)
    assert known is not None
    return known


def test_the_course_has_the_peak(simulated: Simulated) -> None:
    course, peak = course_of(simulated), simulated.peak()
    fullest = max(course.moments, key=lambda moment: moment.held_bytes)
    assert fullest.held_bytes == peak.allocated_bytes
    assert (fullest.phase, fullest.operator) == ("backward", peak.operator.partition(".")[0])
    held = dict(zip(course.owners, fullest.by_owner, strict=True))
    assert {Owner[name.upper()]: n for name, n in held.items() if n} == peak.by_owner
    assert [(s.phase, s.step) for s in course.spans[:4]] == [
        ("load", ""),
        ("forward", "step 1"),
        ("backward", "step 1"),
        ("optimizer", "step 1"),
    ]
    ends = [(s.start, s.end) for s in course.spans]
    assert ends[0][0] == 0
    assert ends[-1][1] == course.events
    assert all(end == start for (_, end), (start, _) in zip(ends, ends[1:], strict=False))


def test_saved_bytes_are_those_of_the_document(simulated: Simulated) -> None:
    """docs/saved_activations.md has about 0.85 of full fine-tuning's per token and layer.

    More of what is counted is outside the layers: the embedding's output and the final norm.
    """
    per_layer = saved_bytes_per_token(simulated) / 32
    assert 160_000 < per_layer < 185_000


def test_sweeps_hold_the_run_itself(found: Study, predicted: Estimate) -> None:
    batch, length = found.sweeps
    assert (batch.name, batch.own, length.name, length.own) == ("batch", 2, "length", 512)
    for sweep in found.sweeps:
        own = next(point for point in sweep.points if point.value == sweep.own)
        assert own.device_bytes == predicted.memory.device_peak_bytes
        assert own.step_s == predicted.time.step_s
        sizes = [point.device_bytes for point in sweep.points]
        assert sizes == sorted(sizes)
        assert sweep.points[-1].verdict == "oom"


def test_offers_have_a_price_with_a_date(found: Study) -> None:
    verdicts = ["fits", "tight", "oom"]
    places = [verdicts.index(offer.verdict) for offer in found.offers]
    assert places == sorted(places)
    for offer in found.offers:
        assert offer.date
        assert offer.usd_per_hour > 0
        # hours of 10 million tokens, at that price
        hours = 1e7 / offer.tokens_per_s / 3600
        assert offer.usd_total == pytest.approx(hours * offer.usd_per_hour)
        assert offer.usd_per_million_tokens == pytest.approx(hours * offer.usd_per_hour / 10)


def test_spending_adds_up_to_the_step(found: Study, predicted: Estimate) -> None:
    assert found.spending is not None
    assert sum(found.spending.by_class.values()) == pytest.approx(predicted.time.step_s)
    assert sum(found.spending.by_bound.values()) == pytest.approx(predicted.time.step_s)
    seconds = [kernel.busy_s for kernel in found.spending.kernels]
    assert seconds == sorted(seconds, reverse=True)


def test_a_tape_is_the_recording(simulated: Simulated) -> None:
    tape, events_sizes = tape_of(simulated), simulated.expand()
    events, sizes = events_sizes
    live, made = [], 0
    order: list[int] = []  # storages as the tape numbers them, by their number in the recording
    for event, back in zip(events.tolist(), tape.reel.back.tolist(), strict=True):
        if back == 0:
            assert event > 0
            order.append(event)
            made += 1
            live.append(event)
        else:
            assert -event == order[made - back]
            live.remove(-event)
    point = np.array([simulated.point])
    terms = np.array([term.values(point)[0] for term in tape.terms])
    values = tape.coefficients @ terms + tape.constants
    assert values[tape.reel.formula].tolist() == sizes[np.array(order) - 1].tolist()
    uses = simulated.kernel_uses()
    flops = tape.flop_coefficients @ terms + tape.flop_constants
    assert flops.sum() == sum(use.count * use.flops for use in uses)


def test_the_what_if_starts_at_the_run(found: Study, predicted: Estimate) -> None:
    what_if = found.what_if
    assert what_if is not None
    gpu, size, batch, length = what_if.start
    assert what_if.cards[gpu].id == "rtx-4090"
    assert (what_if.batches[batch], what_if.lengths[length]) == (2, 512)
    assert what_if.sizes[size] == 8
    step = what_if.step_s[what_if.start]
    assert step == pytest.approx(predicted.time.step_s, rel=1e-12)


def test_steps_of_the_what_if_are_those_of_estimates(found: Study) -> None:
    what_if, files, chance = found.what_if, stops.Files(), random.Random(3)
    assert what_if is not None
    cards = {gpu.id: gpu for gpu in stops.gpus(RUN)}
    for _ in range(10):
        place = tuple(chance.randrange(n) for n in what_if.tape.shape)
        gpu, size, batch, length = place
        run = stops.with_size(stops.on(RUN, cards[what_if.cards[gpu].id]), what_if.sizes[size])
        run = stops.at(run, what_if.batches[batch], what_if.lengths[length])
        there = files.known(run)
        assert there is not None
        time = from_simulated(run, there, BUDGET).time
        assert what_if.step_s[place] == pytest.approx(time.step_s, rel=1e-12)


def test_the_page_is_small(found: Study, predicted: Estimate) -> None:
    story = Story(source="x", answer=told(predicted), study=found)
    page = RENDERERS["html"](story, Page())
    assert len(page.encode()) < 2_000_000
    for key in ("timeline", "saved", "time", "sweeps", "prices", "what-if"):
        assert f'id="{key}-section"' in page
    assert "Not here, since" not in page


def test_what_is_left_out_is_said() -> None:
    training = TrainingSpec(micro_batch_size=1)
    run = RunSpec(
        model=RUN.model,
        method=RUN.method,
        training=training,
        gpu=RUN.gpu,
        gpus=2,
        expandable_segments=True,
    )
    made = study(estimate(run, budget=BUDGET), BUDGET)
    assert made.what_if is None
    assert made.course is None
    assert len(made.missing) == 2
