"""Attention analysis of saved runs: figures, tables and a report whose every sentence is computed.

    for folder in folders:
        analyze_attention(folder, samples=8)

Writes into ``RUN/attention/`` (``out``): ``attention_pattern_sample_i.png``, ``attention_heads_sample_i.png``,
``layer_comparison_sample_i.png``, ``attention_statistics.png`` and ``.csv``, ``attention_head_similarity.csv``,
``attention_deletion_insertion.png``, ``attention_analysis_report.md``; with pruning ``attention_pruning_sample_i.png``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.attention.hiding import hiding_curves
from analysis.attention.plots import PrunedView, SampleView, draw_hiding, draw_sample, draw_statistics
from analysis.attention.report import AttentionFacts, PruningEffect, report, similarity_table, statistics_table
from analysis.attention.statistics import entropy, statistics, successive_cosine
from routing.config.run import RunConfig
from routing.data import Split, normalise
from routing.errors import InputError, choices
from routing.files.atomic import write_text
from routing.models import build_model
from routing.models.attention import AttentionLayer
from routing.models.base import VisionModel
from routing.models.vit.token_pruning import Pruning
from routing.saved import SavedRun, load, read_config
from routing.training.seeding import prepare_process

BATCH = 32
FOLDER = "attention"
COLUMNS = {
    "run": "run",
    "images": "images",
    "accuracy": "accuracy",
    "accuracy_pruned": "pruned",
    "entropy_first": "entropy, first layer",
    "entropy_last": "last layer",
    "deletion_most": "deletion, most attended",
    "deletion_random": "random",
    "insertion_most": "insertion, most attended",
    "insertion_random": "random",
}
"""Keys of a summary's row and their headings; deletion and insertion are areas under the curve of accuracy."""


@dataclass(frozen=True)
class AttentionSummary:
    """What one analysis found: the numbers of one row when runs are compared, and the files."""

    run: Path
    row: dict[str, Any]
    files: list[Path]


@dataclass(frozen=True)
class _Subject:
    """A model without pruning, the setting to prune it by, and the images that are looked at."""

    run: SavedRun
    split: Split
    title: str
    pruning: Pruning | None

    @property
    def model(self) -> VisionModel:
        return self.run.model

    def images(self) -> Iterator[Tensor]:
        for pixels in self.split.images.split(BATCH):
            yield self.run.preprocess(pixels)

    @torch.no_grad()
    def predictions(self, images: Tensor, pruning: Pruning | None = None) -> Tensor:
        """Return the predicted class of normalised images (M, C, S, S), with or without pruning."""
        prunable = self.model.prunable
        with nullcontext() if prunable is None else prunable.under(pruning):
            return torch.cat([self.model(part).prediction.argmax(dim=1) for part in images.split(BATCH)])


def analyze_attention(
    run: str | Path,
    *,
    samples: int = 8,
    images: int = 256,
    split: str = "val",
    pruning: str | None = None,
    random_weights: bool = False,
    out: Path | None = None,
) -> AttentionSummary:
    """Analyse the attention of a saved run.

    Args:
        samples: images that are drawn; the first of those looked at.
        images: images that the statistics are of, drawn from ``split`` by a fixed seed.
        pruning: a setting (``k_anchors=10,top_m=20``) to compare with; None takes the run's own, if it has one.
        random_weights: look at the untrained model instead; every figure then says so.

    Raises:
        InputError: no run, no weights, no attention in this model, or no such split.
    """
    folder = Path(run)
    subject = _subject(folder, split, max(images, samples), pruning, random_weights)
    target = out or folder / FOLDER
    normalised = torch.cat(list(subject.images()))
    targets = subject.split.targets
    predicted = subject.predictions(normalised)
    layers = statistics(subject.model.attention_layers(batch) for batch in subject.images())
    last = [subject.model.attention_layers(batch)[-1] for batch in subject.images()]
    order_MN = torch.cat([layer.patches_BHN().mean(dim=1) for layer in last])
    hiding = hiding_curves(
        normalised, order_MN, last[0].grid, lambda batch: (subject.predictions(batch) == targets).double()
    )
    effect = _pruning_effect(subject, normalised, predicted) if subject.pruning is not None else None
    facts = AttentionFacts(
        title=subject.title,
        where=f"the {split} split of {subject.run.config.dataset.name}",
        correct=(predicted == targets).numpy(),
        layers=layers,
        hiding=hiding,
        hiding_layer=last[0].name,
        pruning=effect,
        random_weights=random_weights,
    )
    files = _write(facts, target)
    for number in range(min(samples, len(targets))):
        files += draw_sample(_sample(subject, number, int(predicted[number])), number, target)
    return AttentionSummary(folder, _row(folder, facts), files)


def _subject(folder: Path, split: str, count: int, pruning: str | None, random_weights: bool) -> _Subject:
    saved = _untrained(folder) if random_weights else load(folder)
    prepare_process(saved.config.seed, saved.config.threads)
    data = saved.config.dataset.load()
    if split not in data.splits:
        raise InputError(
            f"data set '{saved.config.dataset.name}' has no split '{split}' (valid: {choices(data.splits)})"
        )
    if saved.info.task != "classification":
        raise InputError(f"{folder}: attention analysis needs a classification run, not '{saved.info.task}'")
    if saved.model.needs:
        raise InputError(f"{folder}: this model needs the {choices(saved.model.needs)} of every image, not only pixels")
    whole = data[split]
    chosen = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0))[:count].sort().values
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(1))]
    config = saved.config
    title = f"{config.model.name} on {config.dataset.name}, seed {config.seed}"
    title += ", RANDOM WEIGHTS" if random_weights else ""
    setting = _setting(saved.model, pruning)
    saved.model.to("cpu").eval()
    return _Subject(saved, Split(whole.images[chosen], whole.targets[chosen]), title, setting)


def _untrained(folder: Path) -> SavedRun:
    config: RunConfig = read_config(folder)
    prepare_process(config.seed, config.threads)
    info = config.dataset.info()
    return SavedRun(config, info, build_model(config.model, info).eval())


def _setting(looked_at: VisionModel, text: str | None) -> Pruning | None:
    model = looked_at.prunable
    if model is None:
        if text is not None:
            raise InputError(
                f"--pruning: {type(looked_at).__name__} has no tokens to prune (valid: vit, torchvision_vit, timm_vit)"
            )
        return None
    setting = model.reference.with_text(text) if text is not None else model.pruning
    if text is None and setting is not None and setting.method == "merge":
        return None  # merged tokens have no place in the image
    if setting is not None:
        setting.check(model.host.num_tokens, model.host.depth)
    return setting


def _pruning_effect(subject: _Subject, images: Tensor, predicted: Tensor) -> PruningEffect:
    model, pruning = subject.model.prunable, subject.pruning
    assert model is not None
    assert pruning is not None
    after = subject.predictions(images, pruning)
    held = []
    for batch in images.split(BATCH):
        before = model.attention_layers(batch)[pruning.start_layer].patches_BHN().mean(dim=1)
        kept = model.attention_layers(batch, pruning)[-1].kept
        assert kept is not None
        held.append(before.gather(1, kept[:, 1:] - 1).sum(dim=1))
    targets = subject.split.targets
    return PruningEffect(
        setting=f"{pruning.method}, {pruning.text().replace(',', ', ')}",
        correct_before=(predicted == targets).numpy(),
        correct_after=(after == targets).numpy(),
        same_prediction=float((after == predicted).double().mean()),
        attention_kept=torch.cat(held).double().numpy(),
        kept_tokens=pruning.selection.num_kept,
        all_tokens=model.host.num_tokens,
        flops_before=model.dense_flops,
        flops_after=model.cost_at(pruning),
    )


def _sample(subject: _Subject, number: int, predicted: int) -> SampleView:
    pixels = subject.split.images[number]
    image = normalise(pixels[None], subject.run.info)
    layers = subject.model.attention_layers(image)
    info = subject.run.info
    maps = [_numpy(layer) for layer in layers]
    means = [values.mean(axis=0) for values in maps]
    drawn = pixels.permute(1, 2, 0).double().numpy() / 255
    return SampleView(
        index=number,
        pixels=drawn[:, :, 0] if drawn.shape[2] == 1 else drawn,
        label=info.class_name(int(subject.split.targets[number])),
        prediction=info.class_name(predicted),
        layers=maps,
        names=[layer.name for layer in layers],
        grids=[layer.grid for layer in layers],
        entropy=[float(entropy(torch.from_numpy(values))) for values in means],
        cosine=successive_cosine(means),
        title=subject.title,
        pruned=_pruned_view(subject, image, layers) if subject.pruning is not None else None,
    )


def _pruned_view(subject: _Subject, image: Tensor, before: list[AttentionLayer]) -> PrunedView:
    model, pruning = subject.model.prunable, subject.pruning
    assert model is not None
    assert pruning is not None
    after = model.attention_layers(image, pruning)[-1]
    assert after.kept is not None
    kept = np.zeros(after.num_patches, dtype=bool)
    kept[after.kept[0, 1:].numpy() - 1] = True
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
    write_text(report_path, report(facts))
    write_text(statistics_path, statistics_table(facts.layers).to_csv(index=False))
    write_text(similarity_path, similarity_table(facts.layers).to_csv(index=False))
    return [
        report_path,
        statistics_path,
        similarity_path,
        *draw_statistics(facts.layers, facts.title, folder),
        *draw_hiding(facts.hiding, facts.title, folder),
    ]


def _row(folder: Path, facts: AttentionFacts) -> dict[str, Any]:
    row = {
        "run": str(folder),
        "images": len(facts.correct),
        "accuracy": float(facts.correct.mean()),
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
