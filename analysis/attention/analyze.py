"""Attention analysis of saved runs: figures, tables and a report whose every sentence is computed.

    for folder in folders:
        analyze_attention(folder, samples=8)

Writes into ``RUN/attention/`` (``out``): ``attention_pattern_sample_i.png``, ``attention_heads_sample_i.png``,
``layer_comparison_sample_i.png`` (two layers or more), ``attention_statistics.png`` and ``.csv``,
``attention_head_similarity.csv``, ``attention_deletion_insertion.png``, ``attention_analysis_report.md``; with pruning
``attention_pruning_sample_i.png``; with figures of one's own ``<name>_sample_i.png``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.attention.hiding import half_hidden, hiding_curves
from analysis.attention.plots import Look, OwnFigure, PrunedView, SampleView, draw_sample
from analysis.attention.report import AttentionFacts, PruningEffect, report
from analysis.attention.statistics import Statistic, entropy, statistics, successive_cosine
from analysis.attention.subject import Chosen, Subject, subject_of
from analysis.attention.summary_plots import draw_hiding, draw_statistics
from analysis.attention.tables import similarity_table, statistics_table
from routing.data import normalise
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.models.attention import AttentionLayer

FOLDER = "attention"
MOST_SAMPLES = 256
"""Images that are drawn, at about a second each."""
COLUMNS = {
    "run": "run",
    "images": "images",
    "accuracy": "accuracy",
    "accuracy_pruned": "pruned",
    "entropy_first": "entropy, first layer",
    "entropy_last": "last layer",
    "deletion_most": "deletion, most attended",
    "deletion_random": "deletion, random",
    "insertion_most": "insertion, most attended",
    "insertion_random": "insertion, random",
}
"""Keys of a summary's row and their headings; deletion and insertion are areas under the curve of accuracy."""


@dataclass(frozen=True)
class AttentionSummary:
    """What one analysis found: the numbers of one row when runs are compared, and the files."""

    run: Path
    row: dict[str, Any]
    files: list[Path]


def analyze_attention(
    run: str | Path,
    *,
    samples: int | Sequence[int] = 8,
    num_images: int = 256,
    split: str = "val",
    classes: Sequence[str] = (),
    images: Sequence[Path] = (),
    pruning: str | None = None,
    random_weights: bool = False,
    device: str = "auto",
    colormap: str = "viridis",
    smooth: bool = False,
    own_statistics: Mapping[str, Statistic] | None = None,
    own_figures: Mapping[str, OwnFigure] | None = None,
    out: Path | None = None,
) -> AttentionSummary:
    """Analyse the attention of a saved run.

    Args:
        samples: images to draw: a count, taken from the start of those analysed, or their numbers in the split.
        num_images: images that the statistics are of, drawn from ``split`` by a fixed seed.
        classes: only images of these classes, by name.
        images: image files to look at instead of a split; their labels are not known.
        pruning: a setting (``k_anchors=10,top_m=20``) to compare with; None takes the run's own, if it has one.
        random_weights: analyse the untrained model instead; every figure is marked so.
        colormap: of matplotlib, for attention.
        smooth: interpolate attention between patches where it lies over the image.
        own_statistics: name -> function from a layer's attention to numbers (B, H), for the table and the box plots.
        own_figures: name -> function from a sample to a matplotlib figure, drawn for every sample.

    Raises:
        InputError: no run, no weights, no attention in this model, or no such split, class, file or colour map.
    """
    folder = Path(run)
    wanted = samples if isinstance(samples, int) else len(samples)
    if wanted > MOST_SAMPLES:
        raise InputError(f"samples: {wanted} images to draw, each with figures of its own (valid: 1 to {MOST_SAMPLES})")
    look = Look(colormap, smooth)
    subject = subject_of(folder, Chosen(split, samples, num_images, classes, images), pruning, random_weights, device)
    target = out or folder / FOLDER
    facts = _facts(subject, own_statistics or {}, random_weights)
    files = _write(facts, target)
    predicted = subject.predictions(torch.cat(list(subject.images()))[: subject.drawn])
    for number in range(subject.drawn):
        files += draw_sample(_sample(subject, number, int(predicted[number])), number, target, look, own_figures or {})
    return AttentionSummary(folder, _row(folder, facts), files)


def _facts(subject: Subject, own: Mapping[str, Statistic], random_weights: bool) -> AttentionFacts:
    normalised = torch.cat(list(subject.images()))
    predicted = subject.predictions(normalised)
    read = [subject.attention(batch) for batch in subject.images()]
    orders = {
        of_layer[0].name: (torch.cat([layer.patches_BHN().mean(dim=1) for layer in of_layer]), of_layer[0].grid)
        for of_layer in zip(*read, strict=True)
    }

    def correct(batch: Tensor) -> Tensor:
        return (subject.predictions(batch) == subject.targets).double()

    last = list(orders)[-1]
    return AttentionFacts(
        title=subject.title,
        where=subject.where,
        labelled=subject.labelled,
        correct=(predicted == subject.targets).numpy(),
        layers=statistics(read, own),
        inner=statistics((subject.inner_attention(batch) for batch in subject.images()), own),
        hiding=hiding_curves(normalised, *orders[last], correct),
        hiding_layer=last,
        half_hidden=half_hidden(normalised, orders, correct) if len(orders) > 1 else {},
        pruning=_pruning_effect(subject, normalised, predicted) if subject.pruning is not None else None,
        random_weights=random_weights,
    )


def _pruning_effect(subject: Subject, images: Tensor, predicted: Tensor) -> PruningEffect:
    model, pruning = subject.model.prunable, subject.pruning
    assert model is not None
    assert pruning is not None
    after = subject.predictions(images, pruning)
    held = []
    for batch in subject.images():
        before = subject.attention(batch)[min(pruning.steps(model.host))]
        kept, first = subject.attention(batch, pruning)[-1].kept, before.first_patch
        assert kept is not None
        held.append(before.patches_BHN().mean(dim=1).gather(1, kept[:, first:] - first).sum(dim=1))
    return PruningEffect(
        setting=f"{pruning.method}, {pruning.text().replace(',', ', ')}",
        correct_before=(predicted == subject.targets).numpy(),
        correct_after=(after == subject.targets).numpy(),
        same_prediction=float((after == predicted).double().mean()),
        attention_kept=torch.cat(held).double().numpy(),
        kept_tokens=pruning.fewest_tokens(model.host),
        all_tokens=model.host.num_tokens,
        flops_before=model.dense_flops,
        flops_after=model.cost_at(pruning),
    )


def _sample(subject: Subject, number: int, predicted: int) -> SampleView:
    pixels = subject.pixels[number]
    image = normalise(pixels[None], subject.run.info)
    layers, inner = subject.attention(image), subject.inner_attention(image)
    info = subject.run.info
    maps = [_numpy(layer) for layer in layers]
    means = [values.mean(axis=0) for values in maps]
    drawn = pixels.permute(1, 2, 0).double().numpy() / 255
    return SampleView(
        index=number,
        pixels=drawn[:, :, 0] if drawn.shape[2] == 1 else drawn,
        label=info.class_name(int(subject.targets[number])) if subject.labelled else "unknown",
        prediction=info.class_name(predicted),
        layers=maps,
        names=[layer.name for layer in layers],
        grids=[layer.grid for layer in layers],
        inner=[_numpy(layer) for layer in inner],
        inner_names=[layer.name for layer in inner],
        inner_grids=[layer.grid for layer in inner],
        entropy=[float(entropy(torch.from_numpy(values))) for values in means],
        cosine=successive_cosine(means),
        title=subject.title,
        pruned=_pruned_view(subject, image, layers) if subject.pruning is not None else None,
    )


def _pruned_view(subject: Subject, image: Tensor, before: list[AttentionLayer]) -> PrunedView:
    pruning = subject.pruning
    assert pruning is not None
    after = subject.attention(image, pruning)[-1]
    assert after.kept is not None
    kept = np.zeros(after.num_patches, dtype=bool)
    kept[after.kept[0, after.first_patch :].numpy() - after.first_patch] = True
    predicted = int(subject.predictions(image, pruning)[0])
    return PrunedView(
        kept=kept,
        attention=_numpy(after).mean(axis=0),
        before=_numpy(before[pruning.start_layer]).mean(axis=0),
        prediction=subject.run.info.class_name(predicted),
        words=f"{pruning.method}, {pruning.text().replace(',', ', ')}",
    )


def _numpy(layer: AttentionLayer) -> np.ndarray:
    """Return the attention (H, N) of the only image in a batch."""
    return layer.patches_BHN()[0].double().numpy()


def _write(facts: AttentionFacts, folder: Path) -> list[Path]:
    report_path = folder / "attention_analysis_report.md"
    statistics_path = folder / "attention_statistics.csv"
    similarity_path = folder / "attention_head_similarity.csv"
    every = [*facts.layers, *facts.inner]
    write_text(report_path, report(facts))
    write_text(statistics_path, statistics_table(every).to_csv(index=False))
    write_text(similarity_path, similarity_table(every).to_csv(index=False))
    return [
        report_path,
        statistics_path,
        similarity_path,
        *draw_statistics(facts.layers, facts.inner, facts.title, folder),
        *draw_hiding(facts.hiding, facts.title, folder),
    ]


def _row(folder: Path, facts: AttentionFacts) -> dict[str, Any]:
    row = {
        "run": str(folder),
        "images": len(facts.correct),
        "accuracy": float(facts.correct.mean()) if facts.labelled else None,
        "entropy_first": float(facts.layers[0].entropy.mean()),
        "entropy_last": float(facts.layers[-1].entropy.mean()),
        "deletion_most": facts.hiding.area("deletion_most"),
        "deletion_random": facts.hiding.area("deletion_random"),
        "insertion_most": facts.hiding.area("insertion_most"),
        "insertion_random": facts.hiding.area("insertion_random"),
    }
    if facts.pruning is not None:
        row["accuracy_pruned"] = float(facts.pruning.correct_after.mean())
    return row
