"""What trained models do inside: ``attention``, ``fusion``, ``zeroshot``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from routing.cli.complete import KEYS


@click.command()
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


@click.command()
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


@click.command(context_settings=KEYS)
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
    from routing.commands.console import Phase, table
    from routing.commands.zeroshot import COLUMNS, rows
    from routing.commands.zeroshot import zeroshot as classify
    from routing.commands.zeroshot_config import ZeroshotConfig
    from routing.files.atomic import write_json

    config = ZeroshotConfig.from_overrides(overrides)
    with Phase(f"classifying with {config.model}"):
        records = classify(config, compare=compare, attention_file=extract_attention, samples=samples)
    content = records if compare else records[0]
    if out is None:
        click.echo(json.dumps(content, indent=1))
        return
    write_json(out, content)
    table(rows(records), COLUMNS)
