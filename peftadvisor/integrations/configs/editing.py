"""Values put into a config's own text: comments, order and everything else stay as they are.

The text is parsed once for where values stand, and new ones are spliced in. What comes out is
parsed again: if it holds anything but the old values and the new ones, there is no edit.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import yaml

from peftadvisor.integrations.configs.value import ConfigFile, Edit, Language, Path


def edited(file: ConfigFile, edits: Iterable[Edit]) -> str | None:
    """The text with the edits; None where they cannot be made without touching more."""
    text, wanted = file.text, copy.deepcopy(dict(file.values))
    for edit in edits:
        changed = _spliced(text, file.language, edit)
        if changed is None:
            return None
        text = changed
        _put(wanted, edit)
    return text if _parsed(text, file.language) == wanted else None


def lines(file: ConfigFile) -> Mapping[str, int]:
    """The line of every dotted key, counted from 1."""
    root = _composed(file.text)
    return {} if root is None else dict(_lines(root, ""))


def _lines(node: yaml.MappingNode, above: str) -> Iterator[tuple[str, int]]:
    for key, value in node.value:
        dotted = f"{above}{key.value}"
        yield dotted, key.start_mark.line + 1
        if isinstance(value, yaml.MappingNode) and value.start_mark.index > key.start_mark.index:
            yield from _lines(value, f"{dotted}.")


def _put(values: dict[str, Any], edit: Edit) -> None:
    *above, last = edit.path
    here = values
    for name in above:
        inner = here.get(name)
        here[name] = dict(inner) if isinstance(inner, dict) else {}
        here = here[name]
    here[last] = edit.value


def _parsed(text: str, language: Language) -> Any:
    try:
        return json.loads(text) if language == "json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return None


def _composed(text: str) -> yaml.MappingNode | None:
    """Where everything stands. JSON is read as YAML, in which a tab is no blank."""
    try:
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    return node if isinstance(node, yaml.MappingNode) else None


def _spliced(text: str, language: Language, edit: Edit) -> str | None:
    node = _composed(text)
    if node is None:
        return None
    path = edit.path
    while True:
        name, *below = path
        pair = next((pair for pair in node.value if pair[0].value == name), None)
        if pair is None:
            return _inserted(text, language, node, Edit(path, edit.value))
        key, value = pair
        if below and isinstance(value, yaml.MappingNode) and _is_here(key, value):
            node, path = value, tuple(below)
            continue
        return _replaced(text, language, pair, _nested(tuple(below), edit.value))


def _is_here(key: yaml.Node, value: yaml.Node) -> bool:
    """Whether a value stands behind its key: an alias's stands where its anchor is."""
    return bool(value.start_mark.index >= key.end_mark.index)


def _replaced(
    text: str, language: Language, pair: tuple[yaml.Node, yaml.Node], value: Any
) -> str | None:
    key, old = pair
    start = text.index(":", key.end_mark.index) + 1
    if not _is_here(key, old):
        begin, end = _alias(text, key)
    elif isinstance(old, yaml.ScalarNode) or old.flow_style:
        begin, end = old.start_mark.index, old.end_mark.index
    else:
        return None
    if begin == end:  # nothing stands there
        return f"{text[:start]} {_written(value, language)}{text[start:]}"
    return text[:begin] + _written(value, language) + text[end:]


def _alias(text: str, key: yaml.Node) -> tuple[int, int]:
    """Where the alias behind a key stands: from its asterisk up to the next blank or bracket."""
    begin = text.index("*", key.end_mark.index)
    return begin, begin + len(text[begin:].split(maxsplit=1)[0].rstrip(",]}"))


def _inserted(text: str, language: Language, node: yaml.MappingNode, edit: Edit) -> str | None:
    """A new last key of a mapping."""
    name, *below = edit.path
    value = _written(_nested(tuple(below), edit.value), language)
    key = json.dumps(name) if language == "json" else _written(name, language)
    if not node.value:
        return None
    first, (last_key, last) = node.value[0][0], node.value[-1]
    end = _end(last) if _is_here(last_key, last) else _alias(text, last_key)[1]
    if end is None:
        return None
    if node.flow_style:
        apart = (
            first.start_mark.line != last_key.start_mark.line
            or "\n" in text[node.start_mark.index : first.start_mark.index]
        )
        blank = "\n" + " " * first.start_mark.column if apart else " "
        return f"{text[:end]},{blank}{key}: {value}{text[end:]}"
    rest = text.find("\n", end)
    rest = len(text) if rest < 0 else rest
    if text[end - 1 : end] == "\n":  # a block of text ends behind its last line
        rest = end - 1
    return f"{text[:rest]}\n{' ' * first.start_mark.column}{key}: {value}{text[rest:]}"


def _end(node: yaml.Node) -> int | None:
    """Where the text of a value ends; that of a block ends with its last value."""
    while not isinstance(node, yaml.ScalarNode) and not node.flow_style:
        if not node.value:
            return None
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)


def _nested(path: Path, value: Any) -> Any:
    for name in reversed(path):
        value = {name: value}
    return value


def _written(value: Any, language: Language) -> str:
    """A value on one line; in YAML such that it means the same inside brackets too."""
    if language == "json":
        return json.dumps(value)
    if isinstance(value, dict):
        pairs = (f"{_written(k, language)}: {_written(v, language)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(item, language) for item in value) + "]"
    if isinstance(value, str):
        plain = re.fullmatch(r"[\w./-]+", value) and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    return str(yaml.safe_dump(value)).split("\n")[0]
