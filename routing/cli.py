"""The command line: subcommands only. Each imports what it needs when it runs, so that ``--help`` is instant."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from routing import __version__
from routing.bench import GROUPS
from routing.commands.data_cli import cache, data
from routing.commands.guard import guarded
from routing.commands.keys_cli import completion, keys
from routing.errors import RoutingError

OVERRIDES = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}


def study_names(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    """Return shipped studies that begin so, or that a file may be meant."""
    from click.shell_completion import CompletionItem

    from search_spaces.study.load import shipped

    names = [CompletionItem(name) for name in shipped() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="routing")
def cli() -> None:
    """Declare a study, run it on Ray, get an honest accuracy-versus-FLOPs front and a best config you can ship."""


@cli.command(context_settings=OVERRIDES)
@click.option("--config", "config_file", type=click.Path(), help="YAML file of the run; all defaults without it.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run; default runs/<data>-<model>-seed<n>.")
@click.option("--figures/--no-figures", default=True, help="Draw the run's figures into its folder.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
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
        say_drawn(_draw_run, folder)


def _draw_run(folder: Path) -> list[Path]:
    from analysis.figures.run import draw_run
    from routing.commands.inspection import inspect_run
    from routing.files.results_folder import FIGURES_FOLDER

    return draw_run(inspect_run(folder), folder / FIGURES_FOLDER)


def _draw_model(folder: Path) -> None:
    """Draw a model of a front for the report; its data may be on another machine."""
    from routing.commands.console import say

    try:
        _draw_run(folder)
    except (RoutingError, OSError) as error:
        say(f"no pictures of {folder}: {error}")


@cli.command(context_settings=OVERRIDES)
@click.option("--config", "config_file", type=click.Path(), help="YAML file of the run; all defaults without it.")
@click.option("--models", default="", help="Models and router modes: a,b,c; default: the run, controls, baselines.")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Seeds of every model.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the runs; default runs/compare-<data>-<model>.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
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


@cli.command()
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
            say_drawn(_draw_run, run)
    table(rows, {"run": "run", **point_columns(rows)})


@cli.command()
@click.argument("study_file", metavar="STUDY", shell_complete=study_names)
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
@click.option("--force", is_flag=True, help="Resume although the study file has changed.")
@click.option("--dry-run", is_flag=True, help="Say what would run and what it would cost; run nothing.")
@click.option("--timing/--no-timing", default=True, help="Of a dry run: how long, from a few steps of three settings.")
def sweep(study_file: str, out: str | None, dry_run: bool, timing: bool, **options: Any) -> None:
    """Run a study (a file, or the name of a shipped one) and analyze it."""
    import search_spaces
    from routing.commands.console import Phase, say
    from routing.commands.findings import copy_findings, show_headline
    from routing.files.mirror import is_url
    from routing.files.results_folder import COMPLETE

    study = search_spaces.load_study(study_file)
    if dry_run:
        search_spaces.check_machine(study.resources, options["concurrency"], options["address"])
        say(search_spaces.dry_run(study, options["trials"]))
        if timing and options["address"] is None:
            with Phase("timing a few steps"):
                line = search_spaces.how_long(study, options["trials"], options["concurrency"])
            say(line)
        return
    results = search_spaces.sweep(study, out or Path("results") / study.name, **options)
    found = _analyze([results], draw_model=_draw_model)
    if out is not None and is_url(out):
        copy_findings(results, out)
    if not found.states.get(COMPLETE):
        raise RoutingError(f"{results}: no trial has finished; why not: `routing show {results}`")
    show_headline(found)


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--seeds", type=click.IntRange(min=2), default=5, show_default=True, help="Fresh seeds per configuration."
)
@click.option("--concurrency", type=click.IntRange(min=1), help="Trials at once; default: as the CPUs allow.")
@click.option("--address", help="A running Ray cluster; default: start one on this machine.")
def confirm(results: Path, seeds: int, **options: Any) -> None:
    """Train the front again under fresh seeds and read the test split once."""
    import search_spaces
    from routing.commands.findings import show_headline

    search_spaces.confirm(results, seeds, **options)
    show_headline(_analyze([results], draw_model=_draw_model, of_confirm=True))


@cli.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--format", "formats", multiple=True, default=("png",), help="Figures as png, svg or pdf; repeatable.")
@click.option(
    "--column", type=click.Choice(["single", "double"]), default="double", help="Width of figures in a paper."
)
@click.option("--mlflow", "mlflow_uri", help="Also log every finished trial there (extra `mlflow`).")
def analyze(results: tuple[Path, ...], formats: tuple[str, ...], column: str, mlflow_uri: str | None) -> None:
    """Tables, figures and report.html; several results folders are compared."""
    from routing.commands.findings import show_headline

    found = _analyze(results, formats=formats, width=column)
    if mlflow_uri is not None:
        from analysis.exports.mlflow_log import log_to_mlflow
        from routing.commands.console import say

        for folder in results:
            say(f"logged {log_to_mlflow(folder, mlflow_uri)} trials of {folder} to {mlflow_uri}")
    show_headline(found)


def _analyze(results: Any, of_confirm: bool = False, **how: Any) -> Any:
    from analysis.report import analyze as analyze_results
    from routing.commands.console import Phase
    from routing.commands.findings import show_findings

    with Phase("writing the report"):
        found = analyze_results(list(results), **how)
    show_findings(found, of_confirm)
    return found


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--trial", type=click.IntRange(min=0), help="Number of a trial; default: a line on each of them.")
def show(results: Path, trial: int | None) -> None:
    """What became of the trials of a study; with --trial the story of one: configuration, history, reason, log."""
    from analysis.story import TRIAL_COLUMNS, story, trial_rows
    from routing.commands.console import table
    from routing.commands.findings import show_parts

    if trial is None:
        table(trial_rows(results), TRIAL_COLUMNS, keep=("state", "model.name", "reason"), wraps=("reason",))
    else:
        show_parts(story(results, trial))


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--pick", "picks", multiple=True, default=("knee",), help="knee, best, budget=FLOPS, latency=MS, trial=ID; several."
)
@click.option("--out", type=click.Path(path_type=Path), help="Default RESULTS/best.")
@click.option("--onnx", is_flag=True, help="Also model.onnx, checked on validation images (extra `export`).")
@click.option("--torch-export", is_flag=True, help="Also model.pt2 of torch.export, checked on validation images.")
def export(results: Path, picks: tuple[str, ...], out: Path | None, onnx: bool, torch_export: bool) -> None:
    """Take points of a front away: config.yaml that reproduces, weights, card."""
    from analysis.exports.export import export as export_picks
    from routing.commands.console import Phase, say

    formats = [name for name, wanted in (("onnx", onnx), ("torch_export", torch_export)) if wanted]
    with Phase("exporting"):
        folders = export_picks(results, picks, out, formats=formats)
    for folder in folders:
        say(f"wrote {folder}")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", type=click.Choice(["val", "test"]), default="val", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Default figures/ of the first run.")
@click.option("--format", "formats", multiple=True, default=("png",), help="Figures as png, svg or pdf; repeatable.")
def fusion(runs: tuple[Path, ...], split: str, out: Path | None, formats: tuple[str, ...]) -> None:
    """What a fusion has learned: mean weight of every stage by kind of image. RUNS: runs of hyperiqa, or RESULTS."""
    from analysis.fusion import analyze_fusion
    from routing.commands.console import Phase, say, table

    with Phase("looking at the fusion"):
        summary = analyze_fusion(runs, out, split=split, formats=formats)
    table(summary.rows(), {name: name for name in summary.table.columns})
    for path in summary.files:
        say(f"wrote {path}")


@cli.command()
@click.argument("what", type=click.Choice([*GROUPS, "all"]), default="all")
@click.option("--quick", is_flag=True, help="Fewer rounds and sizes.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bench.json"), show_default=True)
@click.option("--markdown", type=click.Path(path_type=Path), help="Also append the tables to this file.")
def bench(what: str, quick: bool, out: Path, markdown: Path | None) -> None:
    """Speed, as ratios measured side by side in one run; on a machine that does nothing else."""
    from routing.bench.groups import run_groups

    run_groups(list(GROUPS) if what == "all" else [what], quick, out, markdown)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, help="Images that are drawn.")
@click.option(
    "--num-images", type=click.IntRange(min=2), default=256, show_default=True, help="Images of the statistics."
)
@click.option("--split", type=click.Choice(["val", "train", "test"]), default="val", show_default=True)
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Only images of this class; can be repeated.")
@click.option(
    "--images", type=click.Path(path_type=Path), multiple=True, metavar="FILE", help="Image files instead of a split."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, mps or auto.")
@click.option("--colormap", default="viridis", show_default=True, help="Colours of attention, a name of matplotlib's.")
@click.option("--smooth", is_flag=True, help="Interpolate attention between patches where it lies over the image.")
@click.option("--pruning", help="Compare with token pruning: k_anchors=10,top_m=20,alpha=0.5,start_layer=1.")
@click.option("--random-weights", is_flag=True, help="Look at the untrained model; every figure then says so.")
@click.option("--out", type=click.Path(path_type=Path), help="Default RUN/attention; for several runs, a folder each.")
def attention(runs: tuple[Path, ...], out: Path | None, **options: Any) -> None:
    """Figures and a report of what trained models attend to."""
    from analysis.attention import COLUMNS, analyze_attention
    from routing.commands.console import Phase, say, table
    from routing.saved import distinct_names

    rows = []
    for run, name in zip(runs, distinct_names(runs), strict=True):
        target = out / name if out is not None and len(runs) > 1 else out
        with Phase(f"looking at {run}"):
            found = analyze_attention(run, out=target, **options)
        for path in found.files:
            say(f"wrote {path}")
        rows.append(found.row)
    table(rows, COLUMNS)


@cli.command(context_settings=OVERRIDES)
@click.option("--compare", is_flag=True, help="Run every batch without and with pruning.")
@click.option(
    "--extract-attention",
    type=click.Path(path_type=Path),
    help="Save the attention; .pt for torch.load, else safetensors.",
)
@click.option("--samples", type=click.IntRange(min=1), default=8, show_default=True, help="Images of that file.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the JSON here and print a table.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def zeroshot(compare: bool, extract_attention: Path | None, samples: int, out: Path | None, overrides: Any) -> None:
    """Zero-shot classification with open_clip: --model ViT-B-32 --pretrained openai --dataset.name cifar10

    \b
    Keys that can follow: --model, --pretrained, --dataset.*, --split, --templates, --class_names,
    --batch_size, --limit, --device, --precision, --threads, --seed, --pruning.* (any of them prunes tokens)
    """
    from routing.commands.console import table
    from routing.commands.zeroshot import COLUMNS, ZeroshotConfig, rows
    from routing.commands.zeroshot import zeroshot as classify
    from routing.files.atomic import write_json

    config = ZeroshotConfig.from_overrides(overrides)
    records = classify(config, compare=compare, attention_file=extract_attention, samples=samples)
    content = records if compare else records[0]
    if out is None:
        click.echo(json.dumps(content, indent=1))
        return
    write_json(out, content)
    table(rows(records), COLUMNS)


@cli.command()
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


@cli.command()
@click.argument("what", type=click.Choice(["run", "study"]))
def schema(what: str) -> None:
    """Print the JSON Schema of a run or of a study, for completion in an editor."""
    if what == "run":
        from routing.config.run import json_schema
    else:
        from search_spaces.study.schema import json_schema
    click.echo(json.dumps(json_schema(), indent=2))


for command in (cache, completion, data, keys):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; bad input is one line and exit code 2, a failure one line and exit code 1."""
    words = (sys.argv[1:] if arguments is None else arguments) or ["--help"]
    return guarded(lambda: cli.main(words, prog_name="routing", standalone_mode=False, obj=words))


if __name__ == "__main__":
    sys.exit(main())
