"""Build the package as it would be released, and use what is installed from it.

    python benchmarks/check_package.py

In throwaway environments, from a copy of the files that git knows or would take: a wheel of the
source, an sdist, and a wheel of the sdist, which must hold the same bytes; ``twine check
--strict``; the metadata against pyproject.toml; all data files; and the commands that a light
install is for. Needs a package index. Ends with 1 at the first thing that is wrong.
"""

from __future__ import annotations

import email
import email.message
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RUN = ["--model", "Llama-3.1-8B", "--gpu", "a100-40g", "--method", "lora"]
USES = (
    (["doctor"], "allocator replay  compiled"),
    (["--version", "--verbose"], "recordings: "),
    (["list", "methods", "lora-all"], "LoRA on all linear layers"),
    (["recommend", "--model", "t5-11b", "--gpu", "a100-40g"], "Take "),
    (["compare", "--model", "t5-11b", "--gpu", "a100-40g"], "methods fit"),
    (["estimate", *RUN, "--format", "json", "--out", "run.json"], ""),
    (["check", "run.json", "--gpu", "a100-40g"], "fits"),
    (["report", "run.json", "--out", "run.html"], ""),
)
"""Commands of a light install, and what each prints."""


def main() -> None:
    """All of it, with a line for each thing that was found right."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = copied(folder / "source")
        tools = environment(folder / "tools", "build", "twine")
        wheel = built(tools, source, "wheel", folder / "first")
        sdist = built(tools, source, "sdist", folder / "sdist")
        again = built(tools, unpacked(sdist, folder / "unpacked"), "wheel", folder / "second")
        same(wheel, again)
        called(tools, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        print("twine check --strict: passed")
        metadata(wheel)
        data_files(wheel, source)
        used(environment(folder / "light", str(wheel)), folder)


def copied(to: Path) -> Path:
    """The files that git knows or would take, without what earlier builds left."""
    asked = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to / name)
    return to


def environment(folder: Path, *packages: str) -> Path:
    """The Python of a new virtual environment with these packages."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    called(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages)
    return python


def called(python: Path, *arguments: str, at: Path | None = None) -> str:
    """What a Python prints; its errors end the check."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PEFTADVISOR"))}
    home = {} if at is None else {"HOME": str(at), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [str(python), *arguments], capture_output=True, text=True, cwd=at, env={**clean, **home}
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def built(python: Path, source: Path, kind: str, to: Path) -> Path:
    """A wheel or an sdist of a source tree."""
    called(python, "-m", "build", f"--{kind}", "--outdir", str(to), str(source))
    (made,) = to.iterdir()
    print(f"{kind}: {made.name}, {made.stat().st_size / 2**20:.1f} MiB")
    return made


def unpacked(sdist: Path, to: Path) -> Path:
    """The source tree of an sdist."""
    with tarfile.open(sdist) as archive:
        archive.extractall(to, filter="data")
    (source,) = to.iterdir()
    return source


def hashes(wheel: Path) -> dict[str, str]:
    """A hash of every file in a wheel, but of none that tells builds of one source apart.

    Those are the compiled module, which holds paths, and the list with its hash.
    """
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if not n.endswith((".so", ".pyd", "RECORD"))]
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def same(one: Path, other: Path) -> None:
    """Both wheels hold the same files with the same bytes."""
    first, second = hashes(one), hashes(other)
    differ = sorted(k for k in first.keys() | second.keys() if first.get(k) != second.get(k))
    require(not differ, f"wheels of source and of sdist differ: {', '.join(differ)}")
    print(f"wheel of the sdist: the same {len(first)} files")


def metadata(wheel: Path) -> None:
    """What the wheel says of itself is what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        said = email.message_from_bytes(archive.read(name))
        points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
        licence = name.replace("METADATA", "licenses/LICENSE") in archive.namelist()
    for key, value in _expected(project).items():
        require(said.get_all(key) == value, f"{key} is {said.get_all(key)}, not {value}")
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    require(len(needed) == len(project["dependencies"]), f"needs {needed}")
    require("peftadvisor = peftadvisor.cli.main:main" in points, "no console script")
    require(licence, "no LICENSE")
    require(_text(said).startswith("# peftadvisor"), "the README is not the description")
    print(f"metadata: {said['Name']} {said['Version']}, {said['License-Expression']}, as written")


def _expected(project: dict[str, Any]) -> dict[str, list[str]]:
    return {
        "Name": [project["name"]],
        "Version": [project["version"]],
        "Summary": [project["description"]],
        "License-Expression": [project["license"]],
        "Requires-Python": [project["requires-python"]],
        "Description-Content-Type": ["text/markdown"],
        "Classifier": project["classifiers"],
        "Provides-Extra": list(project["optional-dependencies"]),
    }


def _text(said: email.message.Message) -> str:
    payload = said.get_payload()
    return payload if isinstance(payload, str) else ""


def data_files(wheel: Path, source: Path) -> None:
    """Every file of the package is in the wheel, and nothing of tests or tools."""
    inside = {name for name in hashes(wheel) if ".dist-info/" not in name}
    there = {
        str(path.relative_to(source))
        for path in (source / "peftadvisor").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    missing = sorted(name for name in there - inside if not name.endswith(".md"))
    require(not missing, f"not in the wheel: {', '.join(missing)}")
    require(inside <= there, f"strangers in the wheel: {', '.join(sorted(inside - there))}")
    print(f"contents: all {len(inside)} files of the package, nothing else")


def used(python: Path, folder: Path) -> None:
    """The console script of a light install, in an empty home."""
    home = folder / "home"
    home.mkdir()
    script = python.with_name("peftadvisor")
    for arguments, expected in USES:
        printed = called(script, *arguments, at=home)
        require(expected in printed, f"{' '.join(arguments)} prints\n{printed}")
        print(f"peftadvisor {' '.join(arguments)}: as expected")
    health = json.loads(called(script, "doctor", "--format", "json", at=home))
    faults = [check for check in health["checks"] if check["state"] == "fault"]
    require(health["works"] and not faults, f"doctor finds {faults}")
    torch = next(check for check in health["checks"] if check["name"] == "torch")
    require(torch["found"] == "is not installed", "torch came along with a light install")


def require(true: Any, complaint: str) -> None:
    """End where something is wrong."""
    if not true:
        sys.exit(complaint)


if __name__ == "__main__":
    main()
