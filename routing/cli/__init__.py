"""The command line: subcommands only. Each imports what it needs when it runs, so that ``--help`` is instant."""

from __future__ import annotations

import sys

import click

from routing import __version__
from routing.cli import data, inside, runs, studies, words
from routing.commands.guard import guarded


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="routing")
def cli() -> None:
    """Declare a study, run it on Ray, get an honest accuracy-versus-FLOPs front and a best config you can ship."""


for command in (
    *(runs.train, runs.compare, runs.evaluate, runs.bench),
    *(studies.sweep, studies.confirm, studies.analyze, studies.show, studies.export, studies.studies),
    *(studies.enqueue, studies.stop, studies.finish),
    *(inside.attention, inside.fusion, inside.zeroshot),
    *(data.data, data.cache),
    *(words.keys, words.schema, words.completion),
):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; bad input is one line and exit code 2, a failure one line and exit code 1."""
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return guarded(lambda: cli.main(words, prog_name="routing", standalone_mode=False, obj=words))
