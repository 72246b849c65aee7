"""Edits of config files: the value is there, and nothing else has moved."""

from __future__ import annotations

import difflib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from peftadvisor.integrations.configs.editing import edited, lines
from peftadvisor.integrations.configs.value import ConfigFile, Edit

YAML = """\
# a run
base_model: meta-llama/Llama-3.1-8B   # the base
lora_target_modules:
  - q_proj
  - v_proj   # both
micro_batch_size: 8  # too many
optimizer: "adamw_torch"
kwargs: {use_reentrant: true}
nothing:
text: |
  two
  lines
deep:
  # first
  inner: 1
"""


def config(text: str, language: Any = "yaml") -> ConfigFile:
    values = json.loads(text) if language == "json" else yaml.safe_load(text)
    return ConfigFile(path="config", text=text, language=language, values=values)


def changed_lines(before: str, after: str) -> list[str]:
    diff = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line for line in diff if line[0] in "+-"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            ("micro_batch_size",),
            2,
            ["- micro_batch_size: 8  # too many", "+ micro_batch_size: 2  # too many"],
        ),
        (
            ("optimizer",),
            "adamw_8bit",
            ['- optimizer: "adamw_torch"', "+ optimizer: adamw_8bit"],
        ),
        (
            ("kwargs", "use_reentrant"),
            False,
            ["- kwargs: {use_reentrant: true}", "+ kwargs: {use_reentrant: false}"],
        ),
        (("nothing",), True, ["- nothing:", "+ nothing: true"]),
        (("deep", "inner"), 2, ["-   inner: 1", "+   inner: 2"]),
        (("deep", "new"), 3, ["+   new: 3"]),
        (("load_in_4bit",), True, ["+ load_in_4bit: true"]),
        (("kw", "use_reentrant"), False, ["+ kw: {use_reentrant: false}"]),
        (
            ("kwargs", "other"),
            1,
            ["- kwargs: {use_reentrant: true}", "+ kwargs: {use_reentrant: true, other: 1}"],
        ),
    ],
)
def test_an_edit_touches_its_line_alone(path: Any, value: Any, expected: list[str]) -> None:
    after = edited(config(YAML), [Edit(path, value)])
    assert after is not None
    assert changed_lines(YAML, after) == expected


def test_a_key_behind_a_block_of_text_or_a_list() -> None:
    for text in ("a: 1\nlast: |\n  two\n  lines\n", "a: 1\nlast:\n- b\n- c  # d\n", "last: 1"):
        after = edited(config(text), [Edit(("new",), 2)])
        assert after is not None
        assert yaml.safe_load(after) == {**yaml.safe_load(text), "new": 2}
        assert set(text.splitlines()) < set(after.splitlines())


def test_an_alias_is_replaced_and_its_anchor_left() -> None:
    text = "size: &n 8\nother: *n\n"
    assert edited(config(text), [Edit(("other",), 2)]) == "size: &n 8\nother: 2\n"


def test_an_anchor_that_others_use_is_not_replaced() -> None:
    assert edited(config("size: &n 8\nother: *n\n"), [Edit(("size",), 2)]) is None


def test_a_merged_key_is_set_beside_the_merge() -> None:
    text = "base: &b {size: 8}\nrun:\n  <<: *b\n"
    after = edited(config(text), [Edit(("run", "size"), 2)])
    assert after == "base: &b {size: 8}\nrun:\n  <<: *b\n  size: 2\n"


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_keeps_its_layout(indent: Any) -> None:
    values = {"a": 1, "inner": {"b": [1, 2]}, "c": "x\ty"}
    text = json.dumps(values, indent=indent)
    after = edited(config(text, "json"), [Edit(("a",), 2), Edit(("inner", "d"), None)])
    assert after is not None
    assert json.loads(after) == {"a": 2, "inner": {"b": [1, 2], "d": None}, "c": "x\ty"}
    assert after.count("\n") in (text.count("\n"), text.count("\n") + 1)


def test_lines_of_keys() -> None:
    found = lines(config(YAML))
    assert found["base_model"] == 2
    assert found["micro_batch_size"] == 6
    assert found["deep.inner"] == 15


scalars = st.one_of(st.integers(-9, 10**6), st.booleans(), st.text(max_size=8), st.none())
ours = st.one_of(
    st.integers(0, 10**6),
    st.booleans(),
    st.none(),
    st.text(st.characters(min_codepoint=32, max_codepoint=126)),
)
names = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=6)
mappings = st.dictionaries(names, st.one_of(scalars, st.dictionaries(names, scalars)), min_size=1)


@settings(deadline=None)
@given(mappings, names, ours, st.booleans(), st.booleans())
def test_what_is_edited_reads_back(
    values: dict[str, Any], name: str, value: Any, flow: bool, as_json: bool
) -> None:
    """Or is refused: never another value changed."""
    if as_json:
        text, language = json.dumps(values, ensure_ascii=False), "json"
    else:
        dumped = yaml.safe_dump(values, default_flow_style=flow, allow_unicode=True)
        text, language = dumped, "yaml"
    before = config(text, language)
    after = edited(before, [Edit((name,), value)])
    if after is not None:
        read = json.loads(after) if as_json else yaml.safe_load(after)
        assert read == {**before.values, name: value}
    else:  # a block is put in no value's stead, and YAML has no word for some characters of JSON
        assert isinstance(values.get(name), dict) or (as_json and not text.isprintable())
