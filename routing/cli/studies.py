"""From a study to what can be shipped: ``sweep``, ``confirm``, ``analyze``, ``show``, ``export``, ``studies``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from routing.cli.complete import StudyCommand, complete_study
from routing.cli.runs import draw_model
from routing.errors import RoutingError


@click.command(cls=StudyCommand)
@click.argument("study_file", metavar="STUDY", shell_complete=complete_study)
@click.option("--out", help="Results folder, or a URL to copy them to (s3://...); default results/<study>.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    help="Trials in all, instead of the study's; of an ablation, its first ones.",
)
@click.option("--time-budget", help="Stop after this long: 90s, 30m, 2h; --resume goes on.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Trials at once; default: as the CPUs allow.")
@click.option("--address", help="A running Ray cluster; default: start one on this machine.")
@click.option("--resume", is_flag=True, help="Go on with the sweep in --out; also extends a finished one.")
@click.option(
    "--warm-start", multiple=True, type=click.Path(path_type=Path), help="Results whose trials inform this one."
)
@click.option("--storage", help="sqlite:///file.db or postgresql://..., instead of the journal in --out.")
@click.option("--retry-failed", is_flag=True, help="Run the failed trials of --out again.")
@click.option("--keep-going", is_flag=True, help="Go on although three trials in a row failed for the same reason.")
@click.option(
    "--allow-mixed-versions", is_flag=True, help="Run on nodes of a cluster with another version of routing-sweeps."
)
@click.option("--force", is_flag=True, help="Resume although the study file has changed.")
@click.option("--dry-run", is_flag=True, help="Say what would run and what it would cost; run nothing.")
@click.option("--timing/--no-timing", default=True, help="Of a dry run: how long, from a few steps of three settings.")
def sweep(
    study_file: str, overrides: tuple[str, ...], out: str | None, dry_run: bool, timing: bool, **options: Any
) -> None:
    """Run a study (a file, or the name of a shipped one) and analyze it.

    Keys of its base can follow: --base.training.num_epochs 1
    """
    import search_spaces
    from routing.commands.console import Phase, say
    from routing.commands.findings import copy_findings, show_headline
    from routing.files.mirror import is_url
    from routing.files.results_folder import COMPLETE

    study = search_spaces.load_study(study_file, overrides)
    if dry_run:
        search_spaces.check_machine(study.resources, options["concurrency"], options["address"])
        say(search_spaces.dry_run(study, options["trials"]))
        if timing and options["address"] is None:
            with Phase("timing a few steps"):
                line = search_spaces.how_long(study, options["trials"], options["concurrency"])
            say(line)
        return
    results = search_spaces.sweep(study, out or Path("results") / study.name, **options)
    found = _analyze([results], draw_model=draw_model)
    if out is not None and is_url(out):
        copy_findings(results, out)
    if not found.states.get(COMPLETE):
        raise RoutingError(f"{results}: no trial has finished; why not: `routing show {results}`")
    show_headline(found)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Fresh seeds per configuration."
)
@click.option(
    "--adaptive", is_flag=True, help="SEEDS is an average: more of them where a place on the front is in doubt."
)
@click.option("--concurrency", type=click.IntRange(min=1), help="Trials at once; default: as the CPUs allow.")
@click.option("--address", help="A running Ray cluster; default: start one on this machine.")
def confirm(results: Path, seeds: int, **options: Any) -> None:
    """Train the front again under fresh seeds and read the test split once."""
    import search_spaces
    from routing.commands.findings import show_headline

    search_spaces.confirm(results, seeds, **options)
    show_headline(_analyze([results], draw_model=draw_model, of_confirm=True))


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "formats", multiple=True, default=("png",), help="Figures as png, svg or pdf; repeatable.")
@click.option(
    "--column",
    type=click.Choice(["single", "double"]),
    default="double",
    help="single: figures for one column of a paper as well, in paper/, without titles.",
)
@click.option("--mlflow", "mlflow_uri", help="Also log every finished trial there (extra `mlflow`).")
@click.option("--wandb", "wandb_project", help="Likewise to a project of Weights & Biases (extra `wandb`).")
@click.option("--dashboard", is_flag=True, help="Notes and the front for optuna-dashboard (extra `dashboard`).")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Of a comparison; default RESULTS/comparison of the first."
)
@click.option("--watch", is_flag=True, help="Write the report again while trials run; the open page loads itself.")
@click.option(
    "--every", type=click.IntRange(min=1), default=10, show_default=True, help="Seconds between two looks of --watch."
)
def analyze(
    results: tuple[Path, ...],
    formats: tuple[str, ...],
    column: str,
    mlflow_uri: str | None,
    wandb_project: str | None,
    dashboard: bool,
    out: Path | None,
    watch: bool,
    every: int,
) -> None:
    """Tables, figures and report.html; several results folders are compared."""
    from routing.commands.console import say
    from routing.commands.findings import show_headline

    logs = _logs(mlflow_uri, wandb_project, dashboard)
    if watch:
        from analysis.watching import watch as watch_results

        watch_results(results, every, say, logs, out)
    found = _analyze(results, formats=formats, width=column, out=out)
    for folder in results:
        for log in logs:
            say(log(folder))
    show_headline(found)


def _logs(mlflow_uri: str | None, wandb_project: str | None, dashboard: bool) -> list[Callable[[Path], str]]:
    """Return what tells each program that is asked for of a results folder, and says so in a line."""
    logs: list[Callable[[Path], str]] = []
    if mlflow_uri is not None:
        from analysis.exports.mlflow_log import log_to_mlflow

        logs.append(partial(_logged, partial(log_to_mlflow, uri=mlflow_uri), mlflow_uri))
    if wandb_project is not None:
        from analysis.exports.wandb_log import log_to_wandb

        logs.append(partial(_logged, partial(log_to_wandb, project=wandb_project), wandb_project))
    if dashboard:
        from analysis.dashboard import write_dashboard

        logs.append(lambda folder: f"look at it: {write_dashboard(folder).command}")
    return logs


def _logged(log: Callable[[Path], int], where: str, folder: Path) -> str:
    return f"logged {log(folder)} trials of {folder} to {where}"


def _analyze(results: Any, of_confirm: bool = False, **how: Any) -> Any:
    from analysis.report import analyze as analyze_results
    from routing.commands.console import Phase
    from routing.commands.findings import show_findings

    with Phase("writing the report"):
        found = analyze_results(list(results), **how)
    show_findings(found, of_confirm)
    return found


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--trial", type=click.IntRange(min=0), help="Number of a trial; default: a line on each of them.")
def show(results: Path, trial: int | None) -> None:
    """What became of the trials of a study; with --trial the story of one: configuration, history, reason, log."""
    from analysis.story import story, trial_table
    from routing.commands.console import table
    from routing.commands.findings import show_parts

    if trial is None:
        trials = trial_table(results)
        table(trials.rows, trials.columns, keep=("state", "model.name", "reason"), wraps=("reason",))
    else:
        show_parts(story(results, trial))


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--pick",
    "picks",
    multiple=True,
    default=("knee",),
    help="knee, best, accuracy=0.93, budget=400k, latency=0.5 (ms), trial=ID; several.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Default RESULTS/best.")
@click.option("--onnx", is_flag=True, help="Also model.onnx, checked on validation images (extra `export`).")
@click.option("--torch-export", is_flag=True, help="Also model.pt2 of torch.export, checked on validation images.")
def export(results: Path, picks: tuple[str, ...], out: Path | None, onnx: bool, torch_export: bool) -> None:
    """Take points of a front away: config.yaml that reproduces, weights, card."""
    from analysis.exports.export import export as export_picks
    from routing.commands.console import Phase, say

    formats = [name for name, wanted in (("onnx", onnx), ("torch_export", torch_export)) if wanted]
    lines: list[str] = []
    with Phase("exporting"):
        folders = export_picks(results, picks, out, formats=formats, say=lines.append)
    for line, folder in zip(lines, folders, strict=True):
        say(line)
        say(f"wrote {folder}")


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
def enqueue(results: Path, settings: tuple[str, ...]) -> None:
    """Ask a sweep, running or not, to run a setting next, beside its own trials: model.router.temperature=0.5"""
    import search_spaces
    from routing.commands.console import say

    say(search_spaces.enqueue(results, settings))


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--trial", type=click.IntRange(min=0), required=True, help="Number of a running trial.")
def stop(results: Path, trial: int) -> None:
    """Ask a running sweep to stop one of its trials."""
    import search_spaces
    from routing.commands.console import say

    say(search_spaces.stop(results, trial))


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
def finish(results: Path) -> None:
    """Ask a running sweep to start no more trials and to end with those that run."""
    import search_spaces
    from routing.commands.console import say

    say(search_spaces.finish(results))


@click.command()
@click.argument("name", required=False)
def studies(name: str | None) -> None:
    """The shipped studies: question, trials, cost; with NAME, the file of one, as a start for your own."""
    import search_spaces
    from routing.commands.console import table

    if name is not None:
        click.echo(search_spaces.study_text(name), nl=False)
        return
    columns = {"name": "study", "trials": "trials", "cost": "cost", "question": "question"}
    table(search_spaces.studies(), columns, keep=columns, wraps=("cost", "question"))
