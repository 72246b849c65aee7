"""Find recordings: those that ship with the package, then those in the user's cache.

One zip per model shape (named by the config's key), one member per method, variant and regime.
No torch here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from peftadvisor.errors import UsageError
from peftadvisor.methods import find_method
from peftadvisor.simulator.polynomials import Point
from peftadvisor.simulator.recording import Recording
from peftadvisor.simulator.recording_files import FORMAT, pack, unpack
from peftadvisor.simulator.regimes import Regime
from peftadvisor.specs import GpuSpec, MethodSpec, ModelSpec, TrainingSpec

Kernels = Literal["flash", "cudnn", "efficient", "cpu"]
"""Attention kernels that a device prefers: what a recording depends on of the device."""

BUNDLED = Path(__file__).resolve().parent.parent / "data" / "recordings"

REPRESENTATIVE: dict[Kernels, tuple[int, int] | None] = {
    "flash": (8, 0),
    "cudnn": (9, 0),
    "efficient": (7, 5),
    "cpu": None,
}
"""The compute capability that is simulated for each."""


def attention_kernels(gpu: GpuSpec) -> Kernels:
    """What a GPU's scaled_dot_product_attention prefers (torch 2.13, see ``attention``).

    GPUs that are not NVIDIA's run flash attention too (AOTriton, Habana): recorded as flash.
    """
    capability = gpu.compute_capability
    if capability is None or gpu.vendor != "nvidia":
        return "flash"
    if capability in ((9, 0), (10, 0), (10, 3)):
        return "cudnn"
    return "flash" if capability >= (8, 0) else "efficient"


@dataclass(frozen=True, slots=True)
class Variant:
    """Everything but batch and lengths that a recording depends on."""

    model: ModelSpec
    method: MethodSpec
    training: TrainingSpec
    kernels: Kernels

    def member(self, regime: Regime) -> str:
        """The name inside the zip."""
        return f"{self._settings()}.{regime.key}"

    @property
    def general(self) -> Variant:
        """The variant whose recording serves for every size of the method, as every rank."""
        method = find_method(self.method.name)
        kept = dict(method.same_shapes(self.method).settings)
        if self.size is not None:
            del kept[str(method.size)]
        return replace(self, method=MethodSpec(name=self.method.name).with_settings(**kept))

    @property
    def size(self) -> int | None:
        """The method's size where the user changed it, as the rank; else None."""
        method = find_method(self.method.name)
        size = dict(method.same_shapes(self.method).settings).get(method.size or "")
        return size if type(size) is int and size > 0 else None

    def _settings(self) -> str:
        t = self.training
        parts = [
            self._method_name(),
            t.dtype,
            *(["amp"] if t.amp else []),
            *(["padded"] if t.padded else []),
            t.quantization,
            t.optimizer,
            t.gradient_checkpointing,
            t.attention,
            "clip" if t.max_grad_norm else "noclip",
            *([t.kbit_preparation] if t.kbit_preparation != "peft" else []),
            *([t.loss] if t.loss != "torch" else []),
            *([t.loop] if t.loop != "plain" else []),
            *([f"transformers{t.transformers}"] if t.transformers != "5" else []),
            self.kernels,
        ]
        return ".".join(parts)

    def _method_name(self) -> str:
        told = find_method(self.method.name).same_shapes(self.method).settings
        if not told:
            return self.method.name
        settings = json.dumps(told, sort_keys=True, default=str)
        return f"{self.method.name}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}"

    def refusal(self) -> str | None:
        """Why the model cannot take the method, where that was found: so on every device."""
        bundled, cached = self._paths()
        data = _bytes(bundled, f"{self._refused()}.refused")
        data = data or _bytes(cached, f"{self._refused()}.refused-{_libraries()}")
        return None if data is None else data.decode()

    def _refused(self) -> str:
        """The settings without what refusals do not depend on: size, device and dtype."""
        there = replace(self, kernels="flash", training=replace(self.training, dtype="bf16"))
        return there.general._settings()

    def on_file(self) -> bool:
        """Whether anything of this variant is recorded (in any regime), or refused."""
        own, general = f"{self._settings()}.", f"{self.general._settings()}."
        names = [(path, name) for path in self._paths() for name in _members(path)]
        if self.size is None or any(name.startswith(own) for _, name in names):
            return any(name.startswith(own) for _, name in names)
        return any(
            ".refused" in name or _read(path, name, self.size) is not None
            for path, name in names
            if name.startswith(general)
        )

    def keep_refusal(self, reason: str, folder: Path | None = None) -> None:
        """Write down why the model cannot take the method.

        In the user's cache (without a folder) it holds for the libraries that are installed.

        Raises:
            UsageError: the folder cannot be written.
        """
        versions = "" if folder else f"-{_libraries()}"
        member = f"{self._refused()}.refused{versions}"
        self._add(folder or cache_folder(), member, reason.encode())

    def find(self, regime: Regime) -> Recording | None:
        """The recording of this variant in the package or the cache, or None.

        One that was made at another size of the method serves if it holds for this size.
        """
        for path in self._paths():
            found = _read(path, self.member(regime))
            if found is None and self.size is not None:
                found = _read(path, self.general.member(regime), self.size)
            if found is not None:
                return found
        return None

    def _paths(self) -> list[Path]:
        """The files that may hold it: in the package, then in the cache."""
        return [folder / f"{self.model.config_key}.zip" for folder in (BUNDLED, cache_folder())]

    def find_at(self, point: Point) -> Recording | None:
        """What was simulated at this very point, where no recording has variables; or None."""
        return _read(cache_folder() / f"{self.model.config_key}.zip", self._member_at(point))

    def keep_at(self, point: Point, recording: Recording) -> None:
        """Add what was simulated at one point to the user's cache.

        Raises:
            UsageError: the folder cannot be written.
        """
        self._add(cache_folder(), self._member_at(point), pack(recording))

    def _member_at(self, point: Point) -> str:
        return f"{self._settings()}.at-{'-'.join(map(str, point))}"

    def keep(self, regime: Regime, recording: Recording, folder: Path | None = None) -> None:
        """Add a recording to the user's cache (or to another folder).

        One that holds for every size of the method takes the place of one that does not.

        Raises:
            UsageError: the folder cannot be written.
        """
        grows = recording.growth is not None
        self._add(folder or cache_folder(), self.member(regime), pack(recording), replaces=grows)

    def _add(self, folder: Path, member: str, data: bytes, *, replaces: bool = False) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _append(folder / f"{self.model.config_key}.zip", member, data, replaces=replaces)
        except (OSError, zipfile.BadZipFile) as error:
            raise UsageError(
                f"cannot keep the recording in {folder} ({getattr(error, 'strerror', error)}); "
                "set XDG_CACHE_HOME to a folder that can be written"
            ) from error


@cache
def _libraries() -> str:
    """Versions that decide what a model can take."""
    found = []
    for name in ("transformers", "peft"):
        try:
            found.append(version(name))
        except PackageNotFoundError:
            found.append("none")
    return "-".join(found)


def bundled_keys() -> frozenset[str]:
    """Config keys of the models whose recordings ship with the package."""
    return frozenset(path.stem for path in BUNDLED.glob("*.zip"))


def cache_folder() -> Path:
    """The user's cache of recordings (``$XDG_CACHE_HOME`` or ``~/.cache``)."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "peftadvisor" / f"recordings-{FORMAT}"


def _read(path: Path, member: str, size: int | None = None) -> Recording | None:
    return _unpacked(path, member, path.stat().st_mtime_ns, size) if path.exists() else None


@lru_cache(maxsize=256)
def _unpacked(path: Path, member: str, changed_ns: int, size: int | None) -> Recording | None:
    """A recording of one version of a file; read again when the file changes.

    With ``size``, set to this size of its method; None if it does not hold for it.
    """
    if size is not None:
        found = _unpacked(path, member, changed_ns, None)
        holds = found and found.growth and found.growth.holds_for(size)
        return found.at_size(size) if found and holds else None
    data = _bytes(path, member)
    return None if data is None else unpack(data)


def _bytes(path: Path, member: str) -> bytes | None:
    with _readable(path):
        return _archive(path, path.stat().st_mtime_ns).read(member)
    return None


def _members(path: Path) -> list[str]:
    with _readable(path):
        return _archive(path, path.stat().st_mtime_ns).namelist()
    return []


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Pass over a file or member that is not there; complain about a damaged file."""
    try:
        yield
    except (FileNotFoundError, KeyError):
        pass
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{path} cannot be read ({error}); delete it and run again") from error


def _append(path: Path, member: str, data: bytes, *, replaces: bool) -> None:
    """Add a member by replacing the file, so that nobody ever reads half of one."""
    content = io.BytesIO(path.read_bytes() if path.exists() else b"")
    with zipfile.ZipFile(content, "a") as archive:
        there = member in archive.namelist()
        if there and not replaces:
            return
        if not there:
            archive.writestr(member, data)
    if there:
        content = _with_member(content, member, data)
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_bytes(content.getvalue())
    unfinished.replace(path)


def _with_member(content: io.BytesIO, member: str, data: bytes) -> io.BytesIO:
    """A copy of the zip with another content of one member."""
    copy = io.BytesIO()
    with zipfile.ZipFile(content) as old, zipfile.ZipFile(copy, "w") as new:
        for info in old.infolist():
            new.writestr(info, data if info.filename == member else old.read(info))
    return copy


@lru_cache(maxsize=8)
def _archive(path: Path, changed_ns: int) -> zipfile.ZipFile:
    """The file read into memory: an open file would share its position with forked processes."""
    return zipfile.ZipFile(io.BytesIO(path.read_bytes()))
