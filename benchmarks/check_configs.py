"""Are configs of other tools read, refused with a reason, or is that our fault?

    python benchmarks/check_configs.py PATH...

reads every YAML and JSON file below the paths and prints one line for each: the tool, the model,
the method and what stands there that nobody here knows, or why it is refused. It ends with an exit
code of 1 if any file brings out an error that is no refusal. The configs that tools ship are found
in their source archives: ``pip download --no-deps --no-binary axolotl axolotl==0.19.0``.
"""

from __future__ import annotations

import argparse
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from peftadvisor.data.models import find_model
from peftadvisor.errors import UsageError
from peftadvisor.integrations.configs.files import read_config_file
from peftadvisor.integrations.configs.recognising import tool_of, tools
from peftadvisor.integrations.configs.value import ConfigFile, ReadConfig

ENDS = (".yaml", ".yml", ".json")
TOOLS = {tool.name: tool for tool in tools()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--tool", choices=TOOLS, help="take every file for this tool's")
    asked = parser.parse_args(arguments)
    counts = Counter(_line(path, _reader(asked.tool)) for path in _files(asked.paths))
    print(", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())))
    return 1 if counts["failed"] else 0


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.rglob("*") if p.suffix in ENDS and p.is_file())
        else:
            yield path


def _reader(name: str | None) -> Callable[[ConfigFile], ReadConfig]:
    """The reader of the named tool, else of the one that ``check`` takes a file for."""
    return TOOLS[name].read if name else lambda file: tool_of(file).read(file)


def _line(path: Path, read: Callable[[ConfigFile], ReadConfig]) -> str:
    """Print what came of a file; what kind of outcome it was."""
    try:
        found = read(read_config_file(path))
    except UsageError as error:
        print(f"{path}: refused: {error}")
        return "refused"
    except Exception:
        print(f"{path}: failed\n{traceback.format_exc()}")
        return "failed"
    unknown = f"; unknown {', '.join(found.unknown)}" if found.unknown else ""
    print(f"{path}: {found.tool}, {_model(found.model)}, {found.method.name}{unknown}")
    return "read with unknown keys" if found.unknown else "read"


def _model(name: str) -> str:
    try:
        return find_model(name).id
    except UsageError:
        return f"{name} (not bundled)"


if __name__ == "__main__":
    raise SystemExit(main())
