"""What a shell completes: names of models, GPUs and methods, and files. Catalogs alone are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def files(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows its files."""
    return [CompletionItem(typed, type="file")]


def models(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """Ids of bundled models, also by their last part; else files, for a config.json."""
    from peftadvisor.data.models import model_ids

    ids = model_ids()
    short = [] if "/" in typed or not typed else [name.rpartition("/")[2] for name in ids]
    return _starting(typed, short) or _starting(typed, ids) or files(ctx, parameter, typed)


def gpus(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Ids of the catalog, and auto."""
    from peftadvisor.data.gpus import load_gpus

    return _starting(typed, ["auto", *load_gpus()])


def methods(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names of methods."""
    from peftadvisor.methods import method_names

    return _starting(typed, method_names())


def several_methods(_: click.Context, __: click.Parameter, typed: str) -> list[CompletionItem]:
    """Names behind those that are there already, as in ``lora,ia``; or all of them."""
    from peftadvisor.methods import method_names

    before, comma, last = typed.rpartition(",")
    there = set(before.split(","))
    names = [name for name in method_names() if name not in there]
    if not comma:
        names.append("all")
    return [
        CompletionItem(f"{before}{comma}{item.value}") for item in _starting(last, sorted(names))
    ]


def filters(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
    """What ``list`` can be asked for, by the kind that stands before."""
    complete = _OF_KIND.get(ctx.params.get("kind", ""))
    return complete(ctx, parameter, typed) if complete else []


def _starting(typed: str, names: Iterable[str]) -> list[CompletionItem]:
    wanted = typed.lower()
    return [CompletionItem(name) for name in names if name.lower().startswith(wanted)]


_OF_KIND: dict[str, Complete] = {"gpus": gpus, "methods": methods, "models": models}
