"""The subcommands ``data`` and ``cache``; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("root", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--augment", is_flag=True, help="Also show samples as training.augment changes them.")
@click.option("--strict", is_flag=True, help="An image in two splits is an error.")
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder of the contact sheet.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def data(root: Path, overrides: tuple[str, ...], **options: Any) -> None:
    """Look at a folder of images before training: splits, classes, sizes, duplicates, samples on a contact sheet."""
    from routing.commands.console import say
    from routing.commands.data import look

    look(root, overrides, say=say, **options)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--clear", is_flag=True, help="Remove everything; what is needed is built again.")
@click.option("--prune", metavar="AGE", help="Remove what was not used for this long: 30d, 12h, 2w.")
def cache(clear: bool, prune: str | None) -> None:
    """List the data cache: data sets, sizes, last use."""
    from routing.commands.console import say
    from routing.commands.data import list_cache

    list_cache(clear=clear, prune=prune, say=say)
