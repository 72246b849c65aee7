"""The command line's surface: every option and every word of help is on purpose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peftadvisor.cli.main import main


@pytest.mark.parametrize(
    "command",
    [
        *("", "calibrate", "check", "compare", "doctor", "estimate", "list", "profile"),
        *("recommend", "report", "validate"),
    ],
)
def test_help(
    command: str, golden: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), "--help"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    golden(f"help-{command or 'peftadvisor'}.txt", printed.out)
