"""What a fusion has learned: mean weight of every stage for every kind of image (distortion), with intervals.

    summary = analyze_fusion([Path("results/fusion")], out=None)

Runs of the same fusion mode are repeats: with several, the interval is over their means, else over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from analysis.figures.drawing import as_text, new_figure, paper_style, save
from analysis.findings.series import COLOURS
from routing.data import batches
from routing.errors import InputError, choices
from routing.files.atomic import write_text
from routing.files.results_folder import FIGURES_FOLDER, MODEL_FILE
from routing.intervals import mean_interval
from routing.saved import load, read_config
from routing.training.seeding import prepare_process

LEARNED = ("attention", "spatial", "cross_scale")
"""Fusion modes whose weights depend on the image; those of the others are constants."""
FILE = "fusion_weights"
ALL = "all"


@dataclass(frozen=True)
class FusionSummary:
    """``table``: mode, group, stage, weight, low, high, runs, images; ``files``: the two CSV files and the figure."""

    table: pd.DataFrame
    files: list[Path]

    def rows(self) -> list[dict[str, Any]]:
        """Return the table as rows."""
        return [{str(name): value for name, value in row.items()} for row in self.table.to_dict("records")]


def analyze_fusion(
    folders: Sequence[Path], out: Path | None = None, *, split: str = "val", formats: Sequence[str] = ("png",)
) -> FusionSummary:
    """Weigh the images of a split with every saved run and draw the mean weights.

    Args:
        folders: runs, or results folders, of which every kept ``hyperiqa`` trial with learned weights is taken.
        out: where the files go; ``figures`` of the first folder if not given. Those of another split than ``val`` have
            its name in theirs, and ``fusion_weights_per_image.csv`` has a row per run and image.

    Raises:
        InputError: no run with a learned fusion among them.
    """
    runs = _runs(folders)
    images = pd.concat([image_weights(run, split) for run in runs], ignore_index=True)
    table = mean_weights(images)
    out, file = out or folders[0] / FIGURES_FOLDER, FILE if split == "val" else f"{FILE}_{split}"
    per_image = out / f"{file}_per_image.csv"
    write_text(out / f"{file}.csv", table.to_csv(index=False))
    write_text(per_image, _wide(images).to_csv(index=False))
    title = f"{read_config(runs[0]).dataset.name}, {split} split, {images['run'].nunique()} runs of hyperiqa"
    return FusionSummary(table, [out / f"{file}.csv", per_image, *draw(table, out, formats, file, title)])


def _wide(images: pd.DataFrame) -> pd.DataFrame:
    """Return one row per run and image: run, mode, image, group, score, prediction, weight_1, weight_2, ..."""
    keys = ["run", "mode", "image", "group", "score", "prediction"]
    wide = images.pivot_table(index=keys, columns="stage", values="weight").add_prefix("weight_").reset_index()
    return wide.rename_axis(columns=None)


def _runs(folders: Sequence[Path]) -> list[Path]:
    """Return the runs to look at; a folder given by itself must be one."""
    found = []
    for folder in folders:
        trials = sorted(folder.glob("trials/*"), key=lambda path: (len(path.name), path.name))
        candidates = [path for path in trials if (path / MODEL_FILE).is_file()] if trials else [folder]
        found += [path for path in candidates if _learned(path, must=not trials)]
    if not found:
        raise InputError(f"{folders[0]}: no kept trial of hyperiqa with a learned fusion ({choices(LEARNED)})")
    return found


def _learned(run: Path, must: bool) -> bool:
    model = read_config(run).model
    mode = getattr(getattr(model, "fusion", None), "mode", None)
    if must and mode not in LEARNED:
        what = f"model '{model.name}'" if mode is None else f"model.fusion.mode '{mode}'"
        raise InputError(f"{run}: {what} learns no weights of stages (valid: hyperiqa with {choices(LEARNED)})")
    return mode in LEARNED


@torch.no_grad()
def image_weights(run: Path, split: str = "val") -> pd.DataFrame:
    """Return one row per image and stage: run, mode, image (its number), group, score, prediction, stage, weight."""
    config = read_config(run)
    prepare_process(config.seed, config.threads)
    saved, data = load(run), config.dataset.load()
    model = saved.model
    device = next(model.parameters()).device
    weights, predictions, stages = [], [], list[int]()
    for batch in batches(data[split].to(device), data.info, config.evaluation.batch_size):
        predictions.append(model(batch.images).prediction.detach().float().cpu())
        of_stages = model.fusion_weights(batch.images)
        stages = list(of_stages)
        weights.append(torch.stack(list(of_stages.values()), dim=1).cpu())
    weights_NS = torch.cat(weights).numpy()
    groups = np.array(data.info.groups or (ALL,))
    extra = data[split].extra
    group_N = groups[extra["group"].numpy()] if "group" in extra else np.full(len(weights_NS), ALL)
    return pd.DataFrame(
        {
            "run": str(run),
            "mode": config.model.model_dump()["fusion"]["mode"],
            "image": np.repeat(np.arange(len(weights_NS)), len(stages)),
            "group": np.repeat(group_N, len(stages)),
            "score": np.repeat(data[split].targets.double().numpy(), len(stages)),
            "prediction": np.repeat(torch.cat(predictions).double().numpy(), len(stages)),
            "stage": np.tile(stages, len(weights_NS)),
            "weight": weights_NS.ravel().astype(float),
        }
    )


def mean_weights(images: pd.DataFrame) -> pd.DataFrame:
    """Return mean and 95 % interval by mode, group and stage; over runs where a mode has several."""
    rows = []
    for (mode, group, stage), part in images.groupby(["mode", "group", "stage"], sort=False):
        of_runs = part.groupby("run")["weight"].mean()
        interval = mean_interval(of_runs if len(of_runs) > 1 else part["weight"])
        counts = {"runs": len(of_runs), "images": len(part) // len(of_runs)}
        names = {"mode": mode, "group": group, "stage": stage}
        rows.append({**names, "weight": interval.mean, "low": interval.low, "high": interval.high, **counts})
    order = {mode: place for place, mode in enumerate(LEARNED)}
    table = pd.DataFrame(rows)
    return table.sort_values("mode", key=lambda modes: modes.map(order), kind="stable", ignore_index=True)


def draw(table: pd.DataFrame, folder: Path, formats: Sequence[str], file: str = FILE, title: str = "") -> list[Path]:
    """Draw one panel per mode: groups side by side with their number of images, one bar per stage."""
    modes = list(dict.fromkeys(table["mode"]))
    groups, stages = list(dict.fromkeys(table["group"])), sorted(set(table["stage"]))
    with paper_style():
        figure = new_figure(max(4.0, 2.6 * len(modes) + 1), 2.9)
        panels = figure.subplots(1, len(modes), sharey=True, squeeze=False)[0]
        for axes, mode in zip(panels, modes, strict=True):
            part = table[table["mode"] == mode].set_index(["group", "stage"])
            for place, stage in enumerate(stages):
                bars = part.reindex([(group, stage) for group in groups])
                at = np.arange(len(groups)) + (place - (len(stages) - 1) / 2) * 0.8 / len(stages)
                errors = np.nan_to_num([bars["weight"] - bars["low"], bars["high"] - bars["weight"]])
                label = f"stage {stage}" if mode == modes[0] else None
                axes.bar(at, bars["weight"], 0.8 / len(stages), yerr=errors, label=label, color=COLOURS[place])
            counts = part.groupby("group")["images"].max()
            axes.set_xticks(range(len(groups)), [as_text(f"{group}\nn = {counts[group]:,}") for group in groups])
            runs = int(part["runs"].max())
            axes.set_title(f"{mode}, {f'over {runs} runs' if runs > 1 else 'over images'}")
        panels[0].set_ylim(0, min(1.0, 1.05 * float(table[["weight", "high"]].max(axis=None))))
        panels[0].set_ylabel("fusion weight, 95 % interval")
        figure.legend(loc="outside lower center", ncols=len(stages))
        figure.suptitle(as_text(title), fontsize=9)
        return save(figure, folder, file, formats)
