"""A report's page, whatever it tells of: the question, the answer, and the sections in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from peftadvisor.advisor.advised import Advised, Finding
from peftadvisor.advisor.studying import Study
from peftadvisor.integrations.answers import Story
from peftadvisor.integrations.told import Told, ToldComparison, ToldProfiles, ToldRecommendation
from peftadvisor.report import carried, profiled, studied, told
from peftadvisor.report.blocks import Document, Remarks, Section, Table, Terms
from peftadvisor.report.counsel import pilot_words, value_words
from peftadvisor.report.grid import Column, Grid, plain_grid
from peftadvisor.report.grid import Section as GridSection
from peftadvisor.report.methods import evidence_words, front_section, methods_section
from peftadvisor.units import format_bytes

_ROLES = {"safest": "Safest", "cheapest": "Cheapest", "smallest": "Smallest"}
_MARKS = {"supports": "for", "warns": "against", "conflict": "in dispute"}
_NO_STUDY = (
    "Not here, since a file of JSON holds no recording: memory over the step, saved bytes per "
    "token, kernels, sweeps, prices of other GPUs and the what-if. To have them: peftadvisor "
    "report --model NAME --gpu NAME."
)


def document(story: Story) -> Document:
    """What the page is made of."""
    return _DOCUMENTS[type(story.answer)](story, story.answer)


def _of_one(story: Story, answer: Told) -> Document:
    words = Terms((("Evidence", evidence_words(answer.evidence)),))
    because = Remarks(answer.reasons)
    short = Section(key="answer", title="In short", blocks=(told.tiles(answer), words, because))
    return Document(
        title=told.where_words(answer),
        answer=told.answer_words(answer),
        mood=answer.verdict,
        lead=told.settings_words(answer),
        sections=(
            short,
            told.memory_section(answer),
            *_study(story.study, answer),
            told.compute_section(answer),
            told.grounds_section([answer], _left_out(story), story.source),
        ),
    )


def _of_several(story: Story, answer: ToldComparison) -> Document:
    estimates = answer.estimates
    first = estimates[0]
    fit = sum(one.verdict == "fits" for one in estimates)
    short = Section(key="answer", title="The first of them", blocks=(told.tiles(first),))
    refused = [(one.method, one.reason) for one in answer.refused]
    return Document(
        title=f"Methods for {first.run.model} on {_cards(first)}",
        answer=f"{fit} of {len(estimates) + len(refused)} methods fit",
        mood="fits" if fit else "oom",
        lead=told.settings_words(first),
        sections=(
            methods_section(estimates),
            front_section(estimates),
            short,
            *_study(story.study, first),
            told.compute_section(first),
            *_named("refused", "Not estimated", refused),
            told.grounds_section(estimates, _left_out(story), story.source),
        ),
    )


def _of_advice(story: Story, answer: ToldRecommendation) -> Document:
    question = answer.question
    if not answer.recommendations:
        return _nothing_fits(story, answer)
    best = answer.recommendations[0]
    return Document(
        title=f"Which method for {question.model} on {_cards(best)}?",
        answer=f"Take {best.run.method}: {_lower(told.answer_words(best))}",
        mood=best.verdict,
        lead=told.settings_words(best),
        sections=(
            Section(key="answer", title="In short", blocks=(told.tiles(best), *_picks(answer))),
            told.memory_section(best),
            methods_section(answer.recommendations),
            front_section(answer.recommendations),
            *_study(story.study, best),
            told.compute_section(best),
            *_advised(best),
            *_pilot(answer),
            *_rejected(answer),
            _grounds(story, answer),
        ),
    )


def _nothing_fits(story: Story, answer: ToldRecommendation) -> Document:
    estimates = [one.estimate for one in answer.rejected if one.estimate]
    ways = [Section(key="ways", title="What would help", blocks=(Remarks(answer.ways_out),))]
    return Document(
        title=f"Which method for {answer.question.model}?",
        answer="Nothing fits",
        mood="oom",
        lead=f"{len(answer.rejected)} methods were ruled out.",
        sections=(
            *(ways if answer.ways_out else []),
            *([methods_section(estimates)] if estimates else []),
            *_rejected(answer),
            *([_grounds(story, answer)] if estimates else []),
        ),
    )


def _of_profiles(story: Story, answer: ToldProfiles) -> Document:
    return profiled.document(answer.profiles, story.source)


def _cards(one: Told) -> str:
    return f"{one.run.gpus} × {one.gpu.id}" if one.run.gpus > 1 else one.gpu.id


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]


def _study(study: Study | None, answer: Told) -> Iterable[Section]:
    if study is None:
        return
    yield from studied.sections(study, told.card_limit(answer))
    if study.what_if:
        yield carried.section(study.what_if, study.method)


def _left_out(story: Story) -> Sequence[str]:
    if story.study is None:
        return (_NO_STUDY,)
    return tuple(f"Left out: {missing}." for missing in story.study.missing)


def _picks(answer: ToldRecommendation) -> Iterable[Table]:
    heads = Column("Answer", numeric=False), Column("Because", numeric=False)
    named = [
        GridSection(
            name=f"{_ROLES[pick.role]}: {pick.estimate.run.method}",
            note=told.answer_words(pick.estimate),
            rows=(
                ("why", pick.why),
                ("not the next one", pick.not_next),
                ("limited by", pick.limited_by),
                *((("what would change it", "; ".join(pick.changes)),) if pick.changes else ()),
            ),
        )
        for pick in answer.picks
    ]
    grid = Grid(key="picks", caption="Named answers", columns=heads, sections=tuple(named))
    return [Table(grid)] if named else []


def _advised(best: Told) -> Iterable[Section]:
    if best.hyperparameters:
        heads = (Column("Setting", numeric=False), Column("Value"), Column("Range"))
        more = tuple(Column(head, numeric=False) for head in ("Rule", "Source", "Confidence"))
        cells = [_advice(one) for one in best.hyperparameters]
        grid = plain_grid(
            "advised", f"Hyperparameters of {best.run.method}", (*heads, *more), cells
        )
        yield Section(
            key="hyperparameters", title="Hyperparameters, rules, sources", blocks=(Table(grid),)
        )
    if best.findings:
        heads_ = ("Finding", "Says", "Statement", "Source", "Confidence")
        columns = tuple(Column(head, numeric=False) for head in heads_)
        found = [_finding(one) for one in best.findings]
        grid = plain_grid("findings-table", f"What is known of {best.run.method}", columns, found)
        yield Section(key="findings", title="For, against, in dispute", blocks=(Table(grid),))


def _advice(one: Advised) -> tuple[str, ...]:
    spread = ""
    if one.low is not None and one.high is not None:
        spread = f"{one.low:.3g}" if one.low == one.high else f"{one.low:.3g}–{one.high:.3g}"
    return (one.name, value_words(one.value), spread, one.rule, one.source, one.confidence)


def _finding(one: Finding) -> tuple[str, ...]:
    return (one.rule, _MARKS[one.kind], one.statement, one.source, one.confidence)


def _pilot(answer: ToldRecommendation) -> Iterable[Section]:
    if answer.pilot:
        lines = tuple(pilot_words(answer.pilot))
        yield Section(key="pilot", title="What to run first", blocks=(Remarks(lines),))


def _rejected(answer: ToldRecommendation) -> Iterable[Section]:
    cells = [
        (
            one.method,
            "–" if one.over_by_bytes is None else format_bytes(one.over_by_bytes),
            one.reason,
        )
        for one in answer.rejected
    ]
    heads = Column("Method", numeric=False), Column("Too much by"), Column("Reason", numeric=False)
    grid = plain_grid("rejected-table", "Methods that were ruled out", heads, cells)
    if cells:
        yield Section(key="rejected", title="Ruled out", blocks=(Table(grid),))


def _named(key: str, title: str, entries: Sequence[tuple[str, str]]) -> Iterable[Section]:
    if entries:
        yield Section(key=key, title=title, blocks=(Terms(tuple(entries)),))


def _grounds(story: Story, answer: ToldRecommendation) -> Section:
    listed = ", ".join(answer.further)
    further = [f"May fit too, ranked lower: {listed}."] if listed else []
    estimates = answer.recommendations or [r.estimate for r in answer.rejected if r.estimate]
    notes = (*answer.notes, *further, *_left_out(story))
    return told.grounds_section(estimates, notes, story.source)


_DOCUMENTS: Mapping[type, Callable[[Story, Any], Document]] = {
    Told: _of_one,
    ToldComparison: _of_several,
    ToldRecommendation: _of_advice,
    ToldProfiles: _of_profiles,
}
