"""One file from the Hugging Face Hub: the ``config.json`` of a model that is not bundled."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from peftadvisor.data.config_files import MAX_CONFIG_BYTES, load_model_file
from peftadvisor.errors import UsageError
from peftadvisor.specs import ModelSpec

_TIMEOUT_S = 4.0
_REMEDY = "pass its config.json: --model PATH"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"


def is_hub_id(name: str) -> bool:
    """Whether a name has the form ``owner/model``."""
    return re.fullmatch(f"{_PART}/{_PART}", name) is not None


def fetch_model(hub_id: str) -> ModelSpec:
    """The model that a Hub id names, from its published ``config.json``; nothing else is fetched.

    Honours HF_ENDPOINT and HF_HUB_OFFLINE. Parameter counts are None: they are known once the
    model is built.

    Raises:
        UsageError: offline, no such model, a gated one, or no usable config.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise UsageError(f"not bundled, and HF_HUB_OFFLINE is set; {_REMEDY}")
    content = _download(hub_id)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_bytes(content)
        try:
            spec = load_model_file(path)
        except UsageError as error:
            raise UsageError(str(error).replace(str(path), f"config.json of {hub_id}")) from None
    return replace(spec, id=hub_id, provenance=f"config.json of {hub_id} on the Hugging Face Hub")


def _download(hub_id: str) -> bytes:
    # 40 ms of import that only this function needs.
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        address = f"{endpoint.rstrip('/')}/{hub_id}/resolve/main/config.json"
        with urlopen(address, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read(MAX_CONFIG_BYTES + 1)
    except HTTPError as error:
        error.close()
        missing = "does not exist on the Hub, or is gated"
        reason = missing if error.code in (401, 403, 404) else f"Hub answered {error.code}"
        raise UsageError(f"{hub_id}: {reason}; {_REMEDY}") from None
    except (URLError, OSError, HTTPException, ValueError) as error:
        reason = str(getattr(error, "reason", error))
        raise UsageError(
            f"not bundled, and the Hub cannot be reached: {reason}; {_REMEDY}"
        ) from None
    return content
