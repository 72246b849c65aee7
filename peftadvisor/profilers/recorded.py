"""Runs that leave a record, however they end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from peftadvisor.profilers.child import ChildDiedError
from peftadvisor.profilers.records import Record, Status
from peftadvisor.profilers.store import open_store
from peftadvisor.profiles import Engine, Profile
from peftadvisor.specs import MethodSpec, ModelSpec, TrainingSpec

Say = Callable[[str], None]


def run_of(
    engine: Engine, model: ModelSpec, method: MethodSpec, training: TrainingSpec, device: str
) -> dict[str, Any]:
    """A run as plain data, as records hold it."""
    return {
        "engine": engine,
        "model": model.id,
        "method": method.name,
        "settings": dict(method.settings),
        "training": asdict(training),
        "device": device,
    }


def recorded(
    address: str | None, run: Mapping[str, Any], work: Callable[[Say], Profile], say: Say
) -> Profile:
    """The profile that ``work`` makes, kept in the store at ``address`` (None: nowhere).

    A run that dies, fails or is interrupted is a record as well; one that is refused is none.

    Raises:
        UsageError: the run is refused, or the store cannot be used; that is found out first.
        ChildDiedError: the run died or failed.
    """
    reached = "the start"

    def heard(text: str) -> None:
        nonlocal reached
        reached = text
        say(text)

    def keep(status: Status, profile: Profile | None = None) -> None:
        if address is not None:
            made = None if profile is None else profile.to_dict()
            with open_store(address) as store:
                store.add(Record(status=status, reached=reached, run=run, profile=made))

    if address is not None:
        with open_store(address):
            pass  # a store that cannot be used is known before the work, not after it
    try:
        profile = work(heard)
    except ChildDiedError as error:
        keep(error.status)
        raise
    except KeyboardInterrupt:
        keep("interrupted")
        raise
    reached = "the end"
    keep("done", profile)
    return profile
