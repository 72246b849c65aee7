"""Readers of the formats that pipelines take, written from their documentation, for tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema

CONTRACT = Path(__file__).parent / "contract"
SARIF = jsonschema.Draft4Validator(
    json.loads((CONTRACT / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))
)
_URI = re.compile(r"(?:[A-Za-z0-9._~/-]|%[0-9A-F]{2})+")
_XS = "{http://www.w3.org/2001/XMLSchema}"


@dataclass(frozen=True, slots=True)
class Annotation:
    """One workflow command."""

    command: str
    properties: dict[str, str]
    message: str


def github_commands(text: str) -> list[Annotation]:
    """Each line as GitHub's runner takes it apart: ``::command key=value,...::message``."""
    assert text.endswith("\n")
    return [_annotation(line) for line in re.split(r"\r\n|\r|\n", text[:-1])]


def _annotation(line: str) -> Annotation:
    assert line.startswith("::")
    head, _, data = line[2:].partition("::")
    command, _, properties = head.partition(" ")
    pairs = [pair.split("=", 1) for pair in properties.strip().split(",")]
    found = {name: _unescaped(value, ("%0D", "%0A", "%3A", "%2C")) for name, value in pairs}
    assert set(found) <= {"file", "line", "title"}
    return Annotation(command, found, _unescaped(data, ("%0D", "%0A")))


def _unescaped(text: str, escapes: tuple[str, ...]) -> str:
    for escape in (*escapes, "%25"):
        text = text.replace(escape, chr(int(escape[1:], 16)))
    return text


def sarif_run(text: str) -> Any:
    """The one run of a log that keeps to the schema, and to what a schema cannot say."""
    assert text.isascii()
    log = json.loads(text)
    SARIF.validate(log)
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    for found in _all(run, "uri"):
        assert _URI.fullmatch(found.removeprefix("file://"))
    return run


def sarif_text(message: dict[str, str]) -> str:
    """What a viewer shows: there are no placeholders and no links left."""
    text = message["text"]
    assert not re.search(r"\{\d+\}", text.replace("{{", "").replace("}}", ""))
    assert "](" not in text
    return text.replace("{{", "{").replace("}}", "}").replace("] (", "](")


def _all(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (found for key, found in value.items() if key == name)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for part in inner:
        yield from _all(part, name)


def junit_root(text: str) -> ElementTree.Element:
    """The root of a document that keeps to the schema, its counts being those of its cases."""
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert root.tag == "testsuites"
    for element in root.iter():
        _keeps_to_schema(element)
    for suite in root.iter("testsuite"):
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        assert suite.get("failures") == str(len(suite.findall("testcase/failure")))
        names = [(case.get("classname"), case.get("name")) for case in suite.iter("testcase")]
        assert len(set(names)) == len(names)
    assert root.get("tests") == str(len(list(root.iter("testcase"))))
    assert root.get("failures") == str(len(list(root.iter("failure"))))
    return root


def _keeps_to_schema(element: ElementTree.Element) -> None:
    """Attributes and children are those that the XSD has for the element; text where it has it."""
    declared = _ELEMENTS[element.tag]
    attributes = {one.get("name"): one for one in declared.iter(f"{_XS}attribute")}
    needed = {name for name, one in attributes.items() if one.get("use") == "required"}
    assert needed <= set(element.attrib) <= set(attributes)
    children = {one.get("ref") for one in declared.iter(f"{_XS}element")} - {None}
    assert {child.tag for child in element} <= children
    kind = declared.find(f"{_XS}complexType")
    has_text = kind is None or kind.get("mixed") == "true"
    assert has_text or not (element.text or "").strip()
    assert not (element.tail or "").strip()


_ELEMENTS = {
    str(one.get("name")): one
    for one in ElementTree.parse(CONTRACT / "junit-10.xsd").getroot().findall(f"{_XS}element")
}
