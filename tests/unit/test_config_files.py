"""Local config files: what is read from a good one, and what is said about a bad one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peftadvisor.data.models import find_model, load_model_file
from peftadvisor.errors import UsageError


def test_a_config_file_and_its_folder(tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 8, "torch_dtype": "bfloat16"}
    file = tmp_path / "config.json"
    file.write_text("\ufeff" + json.dumps(config), encoding="utf-8")  # editors write BOMs
    model = load_model_file(file)
    assert model.id == str(file)
    assert model.config == config
    assert (
        model.config_key == "2472a039b0418f50"
    )  # sha256 of {"hidden_size":8,"model_type":"llama"}: the dtype is cosmetic
    assert (model.parameters, model.checkpoint_parameters) == (None, None)
    assert model.provenance == f"local file {file}"
    assert load_model_file(str(tmp_path)).config == config


def test_a_bundled_config_from_disk_has_the_bundled_key(tmp_path: Path) -> None:
    bundled = find_model("t5-11b")
    (tmp_path / "config.json").write_text(json.dumps(dict(bundled.config)), encoding="utf-8")
    assert load_model_file(tmp_path).config_key == bundled.config_key


def _file(content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "config.json").write_bytes(content)
        return folder / "config.json"

    return make


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def _loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def _folder_in_place(folder: Path) -> Path:
    (folder / "config.json").mkdir()
    return folder


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "gone.json", "gone.json does not exist"),
    "folder without config": (lambda folder: folder, "holds no config.json"),
    "config.json is a folder": (_folder_in_place, "is not a regular file"),
    "fifo": (_fifo, "is not a regular file"),
    "link to itself": (_loop, "does not exist"),
    "zero byte in path": (lambda folder: folder / "a\0b", "?b does not exist"),
    "endless name": (lambda folder: folder / ("n" * 5000), "cannot be read"),
    "below a file": (lambda folder: _file(b"{}")(folder) / "config.json", "does not exist"),
    "empty": (_file(b""), "is empty"),
    "blank": (_file(b" \n\t"), "is empty"),
    "not JSON": (_file(b"model_type: llama\n"), "is not valid JSON (line 1, column 1"),
    "cut off": (_file(b'{"model_type": "llama",\n'), "is not valid JSON (line 2, column 1"),
    "binary": (_file(b"\x80\x02}q\x00\xff\xfe"), "is not UTF-8 text"),
    "UTF-16": (_file('{"model_type": "llama"}'.encode("utf-16")), "is not UTF-8 text"),
    "list": (_file(b'[{"model_type": "llama"}]'), "holds a JSON list, not an object"),
    "string": (_file(b'"llama"'), "holds a JSON string, not an object"),
    "number": (_file(b"42"), "holds a JSON number, not an object"),
    "null": (_file(b"null"), "holds a JSON null, not an object"),
    "no model_type": (_file(b'{"hidden_size": 8}'), "has no key 'model_type'"),
    "null model_type": (_file(b'{"model_type": null}'), "has no key 'model_type'"),
    "model_type not a string": (_file(b'{"model_type": 7}'), "'model_type' is 7; write a name"),
    "model_type empty": (_file(b'{"model_type": ""}'), "'model_type' is \"\"; write a name"),
    "model_type of two lines": (_file(b'{"model_type": "a\\nb"}'), "'model_type' is \"a\\nb\""),
    "nested without end": (_file(b"[" * 200_000), "nesting beyond any config"),
    "endless number": (_file(b'{"model_type": ' + b"9" * 5000 + b"}"), "holds numbers"),
    "over 10 MB": (_file(b" " * 10_000_001), "is larger than 10 MB"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_config_files_are_one_line_usage_errors(tmp_path: Path, kind: str) -> None:
    make, problem = BAD_FILES[kind]
    path = make(tmp_path)
    with pytest.raises(UsageError) as caught:
        load_model_file(path)
    message = str(caught.value)
    assert problem in message
    assert str(tmp_path) in message
    assert "\n" not in message
    assert len(message) < 500
    if "write a name" not in message:
        assert message.endswith(
            "pass the config.json of a Hugging Face model, or a folder that holds one"
        )


def test_a_file_of_exactly_10_mb_is_read(tmp_path: Path) -> None:
    text = b'{"model_type": "llama"}'
    (tmp_path / "config.json").write_bytes(text + b" " * (10_000_000 - len(text)))
    assert load_model_file(tmp_path).model_type == "llama"
