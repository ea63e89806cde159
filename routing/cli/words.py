"""What can be written: ``keys``, ``schema``, and the ``completion`` of shells."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("start", default="", metavar="[KEY]")
def keys(start: str) -> None:
    """The keys of a run with type, default and description; with KEY, those that begin so: model.experts"""
    from routing.commands.console import table
    from routing.commands.keys import key_rows
    from routing.errors import InputError, nearest

    rows = key_rows()
    found = [row for row in rows if row["key"].startswith(start)]
    if not found:
        raise InputError(f"no key begins with '{start}'{nearest(start, [row['key'] for row in rows])}")
    table(found, {"key": "key", "type": "type", "default": "default", "of": "of", "description": "description"})


@click.command()
@click.argument("what", type=click.Choice(["run", "study"]))
def schema(what: str) -> None:
    """Print the JSON Schema of a run or of a study, for completion in an editor."""
    if what == "run":
        from routing.config.run import json_schema
    else:
        from search_spaces.study.json_schema import json_schema
    click.echo(json.dumps(json_schema(), indent=2))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion of a shell: commands, options, shipped studies, keys of a run and their values.

    \b
    bash: eval "$(routing completion bash)"     in ~/.bashrc
    zsh:  eval "$(routing completion zsh)"      in ~/.zshrc
    fish: routing completion fish | source
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "routing", "_ROUTING_COMPLETE").source())
