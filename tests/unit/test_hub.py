"""Fetching one config.json, with the network played by a local server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from peftadvisor.errors import UsageError
from peftadvisor.integrations.hub import fetch_model, is_hub_id

FILES = {
    "/acme/tiny/resolve/main/config.json": b'{"model_type": "llama", "hidden_size": 64}',
    "/acme/broken/resolve/main/config.json": b"not JSON",
}


class Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:  # noqa: N802
        content = FILES.get(self.path)
        self.send_response(200 if content else 404)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.usefixtures("hub")
def test_a_config_becomes_a_model() -> None:
    model = fetch_model("acme/tiny")
    assert model.id == "acme/tiny"
    assert model.model_type == "llama"
    assert model.parameters is None
    assert model.provenance == "config.json of acme/tiny on the Hugging Face Hub"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme/none", "does not exist on the Hub, or is gated; pass its config.json"),
        ("acme/broken", "^config.json of acme/broken is not valid JSON"),
    ],
)
def test_failures_are_one_line(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        fetch_model(name)
    assert "\n" not in str(caught.value)


def test_no_connection_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UsageError, match="the Hub cannot be reached"):
        fetch_model("acme/tiny")


def test_offline_is_honoured() -> None:
    with pytest.raises(UsageError, match="HF_HUB_OFFLINE is set"):
        fetch_model("acme/tiny")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("acme/tiny", True), ("t5-11b", False), ("a/b/c", False), ("../x", False), ("a/b\n", False)],
)
def test_what_a_hub_id_looks_like(name: str, expected: bool) -> None:
    assert is_hub_id(name) is expected
