"""Imports go one way, and heavy libraries stay where they belong: read from the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import peftadvisor

PACKAGE = Path(peftadvisor.__file__).parent

# From the bottom up; a layer may import what stands in an earlier line, and itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("units",),
    ("specs",),
    ("profiles",),
    ("cuda", "data"),
    ("methods",),
    ("simulator",),
    ("profilers",),
    ("cost_model",),
    ("advisor",),
    ("integrations",),
    ("report",),
    ("cli",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}

# Third-party packages that only some layers may import, function-level imports included.
HOMES = {
    "torch": {"simulator", "profilers", "methods"},
    "transformers": {"simulator", "profilers", "methods"},
    "peft": {"simulator", "profilers", "methods"},
    "fvcore": {"simulator", "profilers", "methods"},
    "accelerate": {"profilers"},
    "bitsandbytes": {"profilers"},
    "psutil": {"profilers"},
    "pynvml": {"cuda"},
    "sklearn": {"cost_model"},
    "plotly": {"report"},
    "rich": {"report", "cli"},
    "tokenizers": {"integrations"},
    "jinja2": {"integrations", "report"},
    "click": {"cli"},
    "yaml": {"integrations"},
}
NEVER = {"pandas", "requests", "scipy", "setuptools", "pkg_resources"}


def layer_of(path: Path) -> str:
    """The first part below the package: ``data/gpus.py`` is in ``data``, ``specs.py`` is itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, at whatever depth it stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            if node.module == "peftadvisor":
                yield from ((node.lineno, f"peftadvisor.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


# The package's own __init__ is the public interface, above all layers.
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path not in {PACKAGE / "__init__.py"})


def upward(path: Path) -> list[str]:
    """Imports of a layer that is not below this file's own."""
    own = layer_of(path)
    found = []
    for line, name in imports(path):
        root, _, rest = name.partition(".")
        if root != "peftadvisor":
            continue
        other = rest.partition(".")[0]
        assert other in HEIGHT, f"{path}:{line}: {name} is in no layer"
        if other != own and HEIGHT[other] >= HEIGHT[own]:
            found.append(f"{path.relative_to(PACKAGE)}:{line}: {own} imports {name}")
    return found


def misplaced(path: Path) -> list[str]:
    """Third-party imports outside the layers that may have them."""
    own = layer_of(path)
    return [
        f"{path.relative_to(PACKAGE)}:{line}: {own} imports {name}"
        for line, name in imports(path)
        if (root := name.partition(".")[0]) in NEVER or own not in HOMES.get(root, {own})
    ]


def test_every_folder_is_in_a_layer() -> None:
    assert {layer_of(path) for path in SOURCES} <= set(HEIGHT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    assert upward(path) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_at_home(path: Path) -> None:
    assert misplaced(path) == []


def test_the_checks_see_function_level_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f():\n    import torch.nn\n    from peftadvisor.cli import main\n"
    path = PACKAGE / "data" / "imaginary.py"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: source)
    assert misplaced(path) == ["data/imaginary.py:2: data imports torch.nn"]
    assert upward(path) == ["data/imaginary.py:3: data imports peftadvisor.cli"]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{n.partition('.')[0] for n in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


HEAVY = {
    "torch",
    "transformers",
    "peft",
    "fvcore",
    "sklearn",
    "plotly",
    "pynvml",
    "scipy",
    "jinja2",
}


@pytest.mark.parametrize(
    "statement",
    [
        "import peftadvisor",
        "import peftadvisor.methods",
        "import peftadvisor.advisor.question",
        "import peftadvisor.report.text",
        "from peftadvisor.cli.main import main; main(['list', 'gpus'])",
        "from peftadvisor.cli.main import main; main(['estimate', '--help'])",
    ],
)
def test_nothing_heavy_is_loaded(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


def test_advice_on_a_bundled_model_loads_nothing_heavy() -> None:
    arguments = ["recommend", "--model", "t5-11b", "--gpu", "a100-40g"]
    statement = f"from peftadvisor.cli.main import main; assert main({arguments}) == 0"
    assert loaded_by(statement) & HEAVY == set()


def test_the_package_itself_loads_nothing() -> None:
    assert loaded_by("import peftadvisor") & {"click", "rich", "numpy"} == set()
