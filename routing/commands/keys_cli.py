"""``routing keys`` and ``routing completion``: what can be written on the command line."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.argument("start", default="", metavar="[KEY]")
def keys(start: str) -> None:
    """The keys of a run with type, default and description; with KEY, those that begin so: model.experts"""
    from routing.commands.console import table
    from routing.errors import InputError, nearest

    found = [row for row in _rows() if row["key"].startswith(start)]
    if not found:
        raise InputError(f"no key begins with '{start}'{nearest(start, [row['key'] for row in _rows()])}")
    table(found, {"key": "key", "type": "type", "default": "default", "of": "of", "description": "description"})


def _rows() -> list[dict[str, Any]]:
    """Return a row per key; one that several models or data sets share alike is one row."""
    from routing.config.registry import DATASETS, MODELS
    from routing.config.run import RunConfig

    rows = _of_section(RunConfig, "", "")
    for section, registry in (("dataset", DATASETS), ("model", MODELS)):
        shared: dict[tuple[Any, ...], tuple[dict[str, Any], list[str]]] = {}
        for name in registry:
            for row in _of_section(registry.get(name), f"{section}.", name):
                shared.setdefault(tuple(row[k] for k in ("key", "type", "default")), (row, []))[1].append(name)
        rows += [{**row, "of": ", ".join(owners)} for row, owners in shared.values()]
    return sorted(rows, key=lambda row: row["key"])


def _of_section(section: Any, prefix: str, owner: str) -> list[dict[str, Any]]:
    from routing.config.section import DatasetSection, ModelSection, Section

    rows: list[dict[str, Any]] = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, (DatasetSection, ModelSection)):
            continue
        if isinstance(kind, type) and issubclass(kind, Section):
            rows += _of_section(kind, f"{prefix}{name}.", owner)
            continue
        words = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        limits = [f"{sign} {limit}" for bound, sign in _SIGNS.items() for limit in _limits(field, bound)]
        default = "" if field.is_required() else str(field.get_default(call_default_factory=True))
        key = {"key": f"{prefix}{name}", "type": ", ".join([words, *limits]), "default": default, "of": owner}
        rows.append({**key, "description": field.description or ""})
    return rows


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _limits(field: Any, bound: str) -> list[Any]:
    return [getattr(limit, bound) for limit in field.metadata if getattr(limit, bound, None) is not None]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of a shell: commands, options, shipped studies.

    \b
    bash: eval "$(routing completion bash)"     in ~/.bashrc
    zsh:  eval "$(routing completion zsh)"      in ~/.zshrc
    fish: routing completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "routing", "_ROUTING_COMPLETE").source())
