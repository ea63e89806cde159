"""One run or a few: ``train``, ``compare``, ``evaluate``, ``bench``; and the pictures of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from routing.bench import GROUPS
from routing.cli.complete import KEYS, RunCommand, complete_value
from routing.errors import RoutingError


@click.command(cls=RunCommand, context_settings=KEYS)
@click.option("--config", "config_file", type=click.Path(), help="YAML file of the run; all defaults without it.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default runs/<data>-<model>-seed<n>.")
@click.option("--figures/--no-figures", default=True, help="Draw the run's figures into its folder.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_value)
def train(config_file: str | None, out: Path | None, figures: bool, overrides: tuple[str, ...]) -> None:
    """Train and evaluate one run. Any key of `routing schema run` can follow: --model.router.mode top_k"""
    from routing.commands.console import say
    from routing.commands.findings import say_drawn
    from routing.commands.train import default_folder
    from routing.commands.train import train as train_run
    from routing.config.run import RunConfig

    config = RunConfig.from_yaml(config_file, overrides)
    folder = out or default_folder(config)
    train_run(config, folder, say)
    if figures:
        say_drawn(draw_run, folder)


def draw_run(folder: Path) -> list[Path]:
    from analysis.figures.run import draw_run
    from routing.commands.inspection import inspect_run
    from routing.files.results_folder import FIGURES_FOLDER

    return draw_run(inspect_run(folder), folder / FIGURES_FOLDER)


def draw_model(folder: Path) -> None:
    """Draw a model of a front for the report; its data may be on another machine."""
    from routing.commands.console import say

    try:
        draw_run(folder)
    except (RoutingError, OSError) as error:
        say(f"no pictures of {folder}: {error}")


@click.command(cls=RunCommand, context_settings=KEYS)
@click.option("--config", "config_file", type=click.Path(), help="YAML file of the run; all defaults without it.")
@click.option("--models", default="", help="Models and router modes: a,b,c; default: the run, controls, baselines.")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Seeds of every model.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs; default runs/compare-<data>-<model>.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_value)
def compare(config_file: str | None, models: str, seeds: int, out: Path | None, overrides: tuple[str, ...]) -> None:
    """Train a routed model and its baselines alike: one table, one figure. What is trained already is kept."""
    from routing.commands.compare import columns
    from routing.commands.compare import compare as compare_models
    from routing.commands.console import say, table
    from routing.commands.findings import say_drawn
    from routing.config.run import RunConfig

    config = RunConfig.from_yaml(config_file, overrides)
    folder = out or Path("runs") / f"compare-{config.dataset.name}-{config.model.name}"
    names = [name.strip() for name in models.split(",") if name.strip()]
    compared = compare_models(config, names, seeds, folder, say)
    table(compared.rows, columns(compared), title=f"{compared.title}, validation split")
    say(f"wrote {folder / 'compare.csv'}")
    say_drawn(_draw_comparison, compared, folder)


def _draw_comparison(compared: Any, folder: Path) -> list[Path]:
    from analysis.figures.compare import draw_comparison

    return draw_comparison(compared, folder)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--operating-points", is_flag=True, help="Every value of the compute knob, not only the default.")
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="After the last epoch, or after the one with the best validation.",
)
@click.option("--figures", is_flag=True, help="Draw the figures of each run into its folder.")
def evaluate(runs: tuple[Path, ...], split: str, operating_points: bool, weights: Any, figures: bool) -> None:
    """Evaluate saved runs side by side."""
    from routing.commands.console import Phase, point_columns, say, table
    from routing.commands.findings import say_drawn
    from routing.saved import evaluate_saved, read_config, save_evaluation

    rows = []
    for run in runs:
        with Phase(f"evaluating {run}"):
            points = evaluate_saved(run, split, curve=operating_points, weights=weights)
        say(f"wrote {save_evaluation(run, split, points, weights)}")
        keys = read_config(run).dotted()
        rows += [{"run": str(run), **keys, **point.row()} for point in points]
        if figures:
            say_drawn(draw_run, run)
    table(rows, {"run": "run", **point_columns(rows)})


@click.command()
@click.argument("what", type=click.Choice([*GROUPS, "all"]), default="all")
@click.option("--quick", is_flag=True, help="Fewer rounds and sizes.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench.json"), show_default=True)
@click.option("--markdown", type=click.Path(path_type=Path), help="Also append the tables to this file.")
def bench(what: str, quick: bool, out: Path, markdown: Path | None) -> None:
    """Speed, as ratios measured side by side in one run; on a machine that does nothing else."""
    from routing.bench.groups import run_groups

    run_groups(list(GROUPS) if what == "all" else [what], quick, out, markdown)
