"""Many runs one after another, each kept when it ends, so that a sweep goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peftadvisor.errors import UsageError
from peftadvisor.profilers.child import ChildDiedError
from peftadvisor.profilers.recorded import Say, recorded
from peftadvisor.profilers.records import StoreError
from peftadvisor.profilers.store import open_store
from peftadvisor.profiles import Profile

AGAIN = ("interrupted",)
"""Runs that ended so are made again: the others would end the same way."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A run to be made: ``run`` as plain data, by which it is known again, and what makes it."""

    run: Mapping[str, Any]
    work: Callable[[Say], Profile]

    @property
    def key(self) -> str:
        """The same for the same run, whatever the order of its parts."""
        return key_of(self.run)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run of the sweep: its profile, or why it has none."""

    planned: Planned
    profile: Profile | None = None
    failure: str = ""


def key_of(run: Mapping[str, Any]) -> str:
    """A run as canonical JSON."""
    return json.dumps(run, sort_keys=True)


def ended_runs(address: str) -> set[str]:
    """Keys of the runs in a store that need not be made again."""
    with open_store(address) as store:
        return {key_of(record.run) for record in store.records() if record.status not in AGAIN}


def sweep(address: str, plan: Iterable[Planned], say: Say) -> Iterator[Ended]:
    """Make the runs of a plan that the store does not have yet, and keep each as it ends.

    A run that dies, fails or is refused does not end the sweep. The plan is asked for a run when
    the one before has ended.

    Raises:
        StoreError: the store cannot be used.
    """
    have = ended_runs(address)
    for planned in plan:
        if planned.key in have:
            continue
        try:
            profile = recorded(address, planned.run, planned.work, say)
        except StoreError:
            raise
        except (ChildDiedError, UsageError) as error:
            yield Ended(planned, failure=str(error))
        else:
            yield Ended(planned, profile)
