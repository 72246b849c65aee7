"""README and docs: their commands run, their links lead somewhere, what is made is current."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

yaml: Any = pytest.importorskip("yaml")

from benchmarks.docs_reference import MAKERS  # noqa: E402
from benchmarks.docs_sessions import (  # noqa: E402
    ROOT,
    Ran,
    agrees,
    blocks,
    commands,
    pages,
    put_files,
    renewed,
    run,
    sessions,
)
from benchmarks.update_docs import made  # noqa: E402
from peftadvisor.cli.main import cli  # noqa: E402
from tests.docs_links import anchors, broken, links  # noqa: E402

DOCS = ROOT / "docs"
ALL = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")])
NOT_RUN = {
    "belongs into a start-up file",
    "builds and trains three small models",
    "installs",
    "needs a GPU",
    "times the machine that runs it",
}
"""Reasons for which a page may show a command that is not run."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


PAGES = [path for path in pages() if any(b.commands for b in blocks(path.read_text("utf-8")))]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_run_and_print_what_is_shown(page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    put_files(text, tmp_path)
    for block in blocks(text):
        if block.unrun:
            continue
        if not block.light:
            pytest.importorskip(block.marks["with"])
        if block.language == "console":
            for command, shown in sessions(block.body):
                (arguments,) = commands(command)
                ran = run(arguments, tmp_path, light=block.light)
                assert ran.code == block.code, ran.err
                assert agrees(shown, ran.out), f"{command}: python benchmarks/update_docs.py"
        else:
            for arguments in block.commands:
                ran = run(arguments, tmp_path, light=block.light)
                assert ran.code == block.code, (arguments, ran.err)


def test_every_page_is_in_the_sample() -> None:
    """All but the examples, which update_examples.py prints, and each of those is one command."""
    left = {path for path in DOCS.rglob("*.md") if path not in pages()}
    assert left == set((DOCS / "examples").glob("*.md"))
    assert left
    for path in left:
        (block,) = blocks(path.read_text(encoding="utf-8"))
        assert block.body.startswith("$ peftadvisor recommend --model ")


def test_few_commands_are_not_run() -> None:
    found = [
        block.unrun
        for path in pages()
        for block in blocks(path.read_text(encoding="utf-8"))
        if block.unrun
    ]
    assert set(found) == NOT_RUN
    assert len(found) <= 9


def test_every_command_is_shown_somewhere() -> None:
    shown = {
        arguments[0]
        for path in pages()
        for block in blocks(path.read_text(encoding="utf-8"))
        for arguments in block.commands
        if arguments
    }
    with_context = cli.make_context("peftadvisor", ["--help"], resilient_parsing=True)
    assert set(cli.list_commands(with_context)) <= shown


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_what_is_made_of_the_code_is_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if "<!-- made:python -->" in text:
        pytest.importorskip("torch")
    assert made(text) == text, "run python benchmarks/update_docs.py"


def test_all_that_is_made_stands_in_a_page() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in pages())
    assert set(re.findall(r"<!-- made:([a-z-]+) -->", text)) == set(MAKERS)


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_links(page: Path) -> None:
    within = DOCS if page.is_relative_to(DOCS) else ROOT
    assert list(broken(page, within)) == []


def _in_nav(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for inner in entry.values() if isinstance(entry, dict) else entry:
            yield from _in_nav(inner)


def test_the_navigation_has_every_page_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(_in_nav(site["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


# The checks themselves.


def test_commands_are_found() -> None:
    text = (
        "<!-- exits: 3 -->\n<!-- with: torch -->\n```sh\n"
        "pip install . && peftadvisor list \\\n  gpus  # all\npeftadvisors no\n```\n"
        "```python\npeftadvisor = 1\n```\n"
        "```console\n$ peftadvisor --version\npeftadvisor 0\n```\n"
    )
    first, second, third = blocks(text)
    assert first.marks == {"exits": "3", "with": "torch"}
    assert first.commands == [["list", "gpus"]]
    assert second.commands == []
    assert list(sessions(third.body)) == [("$ peftadvisor --version\n", "peftadvisor 0\n")]


def test_files_of_a_page(tmp_path: Path) -> None:
    put_files("<!-- file: a/b.yaml -->\n```yaml\nx: 1\n\ny: 2\n```\n", tmp_path)
    assert (tmp_path / "a" / "b.yaml").read_text() == "x: 1\n\ny: 2\n"
    put_files("<!-- copy: Makefile as b/c -->\n```sh\nls\n```\n", tmp_path)
    assert (tmp_path / "b" / "c").read_bytes() == (ROOT / "Makefile").read_bytes()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n\n", True),
        ("a\nb\n", "a\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("[...]\nb\n[...]\n", "a\nb\nc\n", True),
        ("[...]\nb\n", "a\nb\nc\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_what_agrees(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_what_is_shown_anew() -> None:
    assert renewed("old\n", "new 1\nnew 2\n\n") == "new 1\nnew 2\n"
    assert renewed("[...]\nTime  1\n[...]\n", "FLOPs 3\nTime  2\nCost 4\n") == (
        "[...]\nTime  2\n[...]\n"
    )


def test_run_is_as_without_torch(tmp_path: Path) -> None:
    ran = run(
        ["estimate", "--model", "t5-large", "--gpu", "t4", "--method", "ladder-side"], tmp_path
    )
    assert isinstance(ran, Ran)
    assert ran.code == 2
    assert "pip install 'peftadvisor[profile]'" in ran.err


def test_links_are_found_outside_of_code(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b` c!\n[x](#a-b-c) [y](#nowhere) `[z](none.md)`\n"
        "```\n[w](none.md)\n# no heading\n```\n[v](https://example.org/a_(b)) [u](gone.md)\n"
        "[t](http://plain) [s](../outside.md)\n## A b c\n"
    )
    (tmp_path.parent / "outside.md").write_text("")
    assert links(page.read_text())[0] == "#a-b-c"
    assert anchors(page.read_text()) == {"a-b-c", "a-b-c_1"}
    assert list(broken(page, tmp_path)) == [
        "#nowhere: no such heading",
        "gone.md: no such file",
        "http://plain: no address",
        f"../outside.md: outside of {tmp_path.name}",
    ]
