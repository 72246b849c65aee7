"""Look at an installation: packages and recordings here, what is around it in ``surroundings``.

Looks at metadata, files, the driver and the environment; torch is never imported.
"""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftadvisor.data.names import one_line
from peftadvisor.errors import PeftAdvisorError
from peftadvisor.integrations import surroundings
from peftadvisor.integrations.health import Area, Check, Health, State
from peftadvisor.integrations.installed import NEEDED, Package, found_version, packages, within

_EXTRA = "pip install 'peftadvisor[{}]'"
_BESIDE = ("accelerate", "bitsandbytes", "liger-kernel", "trl", "axolotl", "llamafactory")
"""Tools whose versions change what a run takes, or whose configs are read; none is needed."""

_DIFFER = (
    (
        "transformers",
        ">=5",
        "its runs keep other logits and experts than 5's: describe them with --transformers 4, "
        "or 4.45 up to that version",
    ),
    (
        "bitsandbytes",
        ">=0.50",
        "4-bit layers are simulated as 0.50 has them; this one has no kernel that unpacks as it "
        "goes, so few tokens take a little more",
    ),
)
"""Package, versions that are simulated, and how others differ: see ``simulator.older`` and
``simulator.quantized_layers``."""


def health() -> Health:
    """Look at everything; what cannot be looked at is a check that says so."""
    named = packages()
    return Health(
        version=found_version("peftadvisor") or "unknown",
        checks=(
            *_advice(named),
            *_recording(named),
            *surroundings.machine(),
            *surroundings.files(),
            *surroundings.environment(),
        ),
    )


def _advice(named: tuple[Package, ...]) -> Iterator[Check]:
    """What answers on bundled models rest on."""
    yield Check(
        area="advice",
        name="python",
        found=f"{platform.python_version()} ({platform.system()} {platform.machine()})",
    )
    if not named:
        yield Check(
            area="advice",
            name="peftadvisor",
            state="note",
            found="is not installed, so it names no versions",
            remedy="pip install .",
        )
    for package in named:
        if package.extra == NEEDED:
            yield _package("advice", package, "fault")
    yield _recordings()
    yield Check(area="advice", name="allocator replay", **_compiled())


def _recording(named: tuple[Package, ...]) -> Iterator[Check]:
    """What models that are not bundled, measuring and counting tokens take."""
    for package in named:
        if package.extra in ("profile", "data"):
            yield _package("recording", package, "note")
    for name in _BESIDE:
        found = found_version(name)
        if found is not None:
            yield Check(area="recording", name=name, **_compared(name, found))


def _package(area: Area, package: Package, short: State) -> Check:
    if package.found is None:
        extra = package.extra
        return Check(
            area=area,
            name=package.name,
            state=short,
            found="is not installed",
            remedy=_EXTRA.format(extra) if extra else f"pip install {package.name}",
        )
    if not package.fits:
        return Check(
            area=area,
            name=package.name,
            state=short,
            found=f"{package.found}, outside {package.wanted}",
            remedy=f"pip install '{package.name}{package.wanted}'",
        )
    return Check(area=area, name=package.name, **_compared(package.name, package.found))


def _compared(name: str, found: str) -> dict[str, Any]:
    """The version, and how it differs from the one that is simulated, where that is known."""
    for package, simulated, how in _DIFFER:
        if package == name and not within(found, simulated):
            return {"state": "note", "found": found, "remedy": how}
    return {"found": found}


def _compiled() -> dict[str, Any]:
    from peftadvisor.cuda.allocator import COMPILED

    if COMPILED:
        return {"found": "compiled"}
    remedy = "for answers in half the time, install again where there is a C compiler"
    return {"state": "note", "found": "runs interpreted", "remedy": remedy}


def _recordings() -> Check:
    from peftadvisor.data.models import config_keys
    from peftadvisor.simulator.library import BUNDLED, bundled_keys

    name = "recordings"
    files = sorted(BUNDLED.glob("*.zip"))
    if not files:
        return Check(
            area="advice",
            name=name,
            state="fault",
            found=f"none in {surroundings.shown(BUNDLED)}",
            remedy="install the package again",
        )
    try:
        versions = _versions_of(files)
    except (OSError, zipfile.BadZipFile, KeyError, PeftAdvisorError) as error:
        return Check(
            area="advice",
            name=name,
            state="fault",
            found=f"cannot be read ({one_line(str(error))})",
            remedy="install the package again",
        )
    made = ", ".join(f"{package} {version}" for package, version in versions.items())
    shipped = bundled_keys()
    models = sum(key in shipped for key in config_keys().values())
    return Check(area="advice", name=name, found=f"of {models} models, made with {made}")


def _versions_of(files: list[Path]) -> dict[str, str]:
    """Open every file, unpack one recording, and say what it was made with.

    Raises:
        OSError: a file cannot be read; BadZipFile, KeyError, PeftAdvisorError: it is damaged.
    """
    from peftadvisor.simulator.recording_files import unpack

    small: tuple[int, Path, str] | None = None
    for path in files:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if ".refused" not in info.filename and (small is None or info.file_size < small[0]):
                    small = (info.file_size, path, info.filename)
    if small is None:
        raise KeyError("no recording in any of them")
    with zipfile.ZipFile(small[1]) as archive:
        return dict(unpack(archive.read(small[2])).facts["versions"])
