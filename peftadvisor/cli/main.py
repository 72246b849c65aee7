"""The command group, and the one place where errors become one line and an exit code.

Results go to stdout, everything else to stderr. Exit codes: 0 done; 1 internal failure; 2 bad
input; 3 would not fit and 4 fits only above the accepted risk (``check``, ``estimate --strict``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click

from peftadvisor.errors import PeftAdvisorError, UsageError

_COMMANDS = {
    "calibrate": "peftadvisor.cli.calibrate",
    "check": "peftadvisor.cli.check",
    "compare": "peftadvisor.cli.compare",
    "doctor": "peftadvisor.cli.doctor",
    "estimate": "peftadvisor.cli.estimate",
    "list": "peftadvisor.cli.list_",
    "profile": "peftadvisor.cli.profile",
    "recommend": "peftadvisor.cli.recommend",
    "report": "peftadvisor.cli.report",
    "validate": "peftadvisor.cli.validate",
}
_EXIT_INTERNAL, _EXIT_USAGE, _EXIT_INTERRUPTED = 1, 2, 130


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, sorted."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of that name, None where there is none."""
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(_COMMANDS[cmd_name]).command
        return command


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(_versions() if ctx.params["verbose"] else f"peftadvisor {_version()}")
        ctx.exit()


def _version() -> str:
    from importlib.metadata import version

    return version("peftadvisor")


def _versions() -> str:
    from peftadvisor.integrations.examining import health
    from peftadvisor.report.health import block

    return block(health())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.option(
    "--verbose",
    is_flag=True,
    is_eager=True,  # read first, whatever the order, since --version asks for it
    help="With --version: all that a bug report needs.",
)
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    help="Show the traceback of an error (also: PEFTADVISOR_DEBUG=1).",
)
def cli(verbose: bool) -> None:
    """Will this fine-tuning run fit, which method, how long, how much money?

    Answers come from recordings of the real models and methods; no GPU, weights or network are
    needed.

    Exit codes: 0 done, 1 internal failure, 2 bad input; check and estimate --strict: 3 would not
    fit, 4 fits only above the accepted risk.
    """
    if verbose:
        raise UsageError("--verbose goes with --version; give both, or neither")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # numpy does integer work here; starting the threads of its linear algebra takes longer
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return _translated(lambda: _run(arguments), debug=_wants_traceback(arguments))


def _run(arguments: list[str]) -> int:
    try:
        code = cli.main(args=arguments, prog_name="peftadvisor", standalone_mode=False)
    except SystemExit as done:  # what completes for a shell ends so
        code = done.code
    return code if isinstance(code, int) else 0


def _wants_traceback(arguments: Sequence[str]) -> bool:
    return "--debug" in arguments or os.environ.get("PEFTADVISOR_DEBUG", "") not in ("", "0")


def _translated(action: Callable[[], int], debug: bool) -> int:
    """Run the action; errors of every kind become one line on stderr and a code."""
    try:
        return action()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return _EXIT_USAGE
    except PeftAdvisorError as error:
        return _complain(f"error: {error}", error.exit_code, debug)
    except click.ClickException as error:
        return _complain(f"error: {_click_message(error)}", error.exit_code, debug)
    except (click.Abort, KeyboardInterrupt):
        return _complain("error: interrupted", _EXIT_INTERRUPTED, debug)
    except BrokenPipeError:
        return 0
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        hint = "please report it; --debug before the command shows where"
        return _complain(f"internal error: {cause} ({hint})", _EXIT_INTERNAL, debug)


def _click_message(error: click.ClickException) -> str:
    context: Any = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    return f"{message}; see: {context.command_path} --help" if context else message


def _complain(text: str, code: int, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    if sys.stderr is not None:
        print(f"peftadvisor: {line}", file=sys.stderr)
    return code
