"""Reports of checks: a run that does not fit, and several configs at once."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import pytest

from peftadvisor.integrations.checked import Checked
from peftadvisor.profiles import Estimate
from peftadvisor.report import RENDERERS, Page
from tests.verdicts import PROBLEMS, fix_of, tight, verdict_of

Golden = Callable[[str, str], None]
FORMATS = {"junit": "xml", "github": "txt", "sarif": "json"}


@pytest.fixture
def one(estimate: Estimate, oom_estimate: Estimate) -> Checked:
    verdict = verdict_of(oom_estimate, problems=PROBLEMS, fix=fix_of(estimate))
    return Checked(verdicts=(verdict,), limits=("max-hours", "max-usd"))


@pytest.fixture
def several(one: Checked, estimate: Estimate) -> Checked:
    fits = verdict_of(estimate, path="configs/small.yaml")
    missed = verdict_of(estimate, path="configs/long.yaml", problems=PROBLEMS[:1])
    risky = verdict_of(tight(estimate), path="configs/risky.yaml")
    return Checked(verdicts=(fits, *one.verdicts, missed, risky), limits=one.limits)


@pytest.mark.parametrize("width", [60, 100])
def test_text(one: Checked, width: int, golden: Golden) -> None:
    text = RENDERERS["text"](one, Page(width=width))
    assert max(map(len, text.splitlines())) <= width
    golden(f"check-{width}.txt", text)


def test_text_of_several(several: Checked, golden: Golden) -> None:
    golden("check-several.txt", RENDERERS["text"](several, Page()))


@pytest.mark.parametrize("fmt", FORMATS)
def test_pipelines(fmt: str, several: Checked, golden: Golden) -> None:
    text = RENDERERS[fmt](several, Page())
    released = f'"version": "{version("peftadvisor")}"'
    golden(f"check-{fmt}.{FORMATS[fmt]}", text.replace(released, '"version": "VERSION"'))
