"""Take points of a results folder away: a config that reproduces each, the trained weights, a card, other formats."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from analysis.exports.card import Card, in_one_line, write_card
from analysis.exports.latency import SingleImageLatency, time_single_images
from analysis.exports.portable import FILES, ExportFailed, Verified, export_model
from analysis.findings.confirmed import read_confirmed
from analysis.findings.picks import choose, knob_of
from analysis.findings.summary import Summary, summarise
from analysis.read.results import Results, read_results
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError, RoutingError
from routing.files.atomic import write_text
from routing.files.links import check_links
from routing.files.results_folder import BEST_FOLDER, CONFIG_FILE, LIBRARY_FILE, MODEL_FILE
from routing.files.tensors import DATA, load_tensors
from routing.saved import SavedRun, load

CHECKED_IMAGES = 200


def export(
    results: str | Path,
    picks: Sequence[str] = ("knee",),
    out: str | Path | None = None,
    *,
    formats: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write one folder per pick: config.yaml, model.safetensors (if the trial kept it), card.md and other formats.

    Args:
        results: a results folder.
        picks: ``knee``, ``best``, ``accuracy=0.93``, ``budget=400k``, ``latency=0.5``, ``trial=ID``; see
            ``findings.picks.choose``.
        out: where the folders go; ``RESULTS/best`` when None.
        formats: further files of the model: ``onnx``, ``torch_export``; each is checked on real validation images.
        say: is told of every folder which point it is, its values, its cost and its time.

    Raises:
        InputError: an unknown pick, one that no point satisfies, or a format without what it needs.
        ExportFailed: the model has no such format; the rest of its folder has been written.
    """
    summary = summarise(read_results(results))
    chosen = {pick: choose(summary, pick, lambda row: latency(summary, row)) for pick in dict.fromkeys(picks)}
    target = summary.results.folder / BEST_FOLDER if out is None else Path(out)
    return [_write(summary, pick, row, target / pick, formats, say) for pick, row in chosen.items()]


def export_point(summary: Summary, name: str, row: pd.Series, out: Path | None, formats: Sequence[str]) -> Path:
    """Write the folder of one point, ``RESULTS/best/<name>`` by default, and return it; see ``export``."""
    folder = summary.results.folder / BEST_FOLDER / name if out is None else out
    return _write(summary, name, row, folder, formats)


def point_config(results: Results, row: pd.Series) -> RunConfig:
    """Return the run that gives this point when trained again, its knob set to the point's value."""
    config = RunConfig.from_yaml(results.trial_folder(int(row["trial"])) / CONFIG_FILE)
    knob = knob_of(row)
    return config if knob is None else config.replace(**{"evaluation.knob_value": knob})


def load_point(results: Results, row: pd.Series) -> SavedRun:
    """Return the trained model of a point, its knob set; ``InputError`` where the weights were not kept."""
    saved = load(results.trial_folder(int(row["trial"])))
    knob = knob_of(row)
    if knob is None:
        return saved
    saved.model.set_knob(knob)
    return replace(saved, config=saved.config.replace(**{"evaluation.knob_value": knob}))


def latency(summary: Summary, row: pd.Series) -> float:
    """Return the milliseconds that one image takes here, the median over single validation images."""
    saved = load_point(summary.results, row)
    return _measure(saved, _validation_images(saved.config)[0]).ms_p50


def _validation_images(config: RunConfig) -> tuple[torch.Tensor, int]:
    """Return the validation images that are looked at, uint8 (N, C, H, W), and how many there are."""
    images = config.dataset.load()["val"].images
    return images[:CHECKED_IMAGES], len(images)


def _measure(saved: SavedRun, images: torch.Tensor) -> SingleImageLatency:
    """Time a model with the threads its configuration names."""
    threads = torch.get_num_threads()
    torch.set_num_threads(saved.config.threads)
    try:
        return time_single_images(saved, images)
    finally:
        torch.set_num_threads(threads)


def _write(
    summary: Summary,
    pick: str,
    row: pd.Series,
    folder: Path,
    formats: Sequence[str],
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write the folder of one pick: all of it beside, and then in its place; a full disk leaves the one before."""
    results = summary.results
    config = point_config(results, row)
    trial, about = results.trial_folder(int(row["trial"])), None
    weights = trial / MODEL_FILE
    if weights.exists():
        about = load_tensors(weights)[1].get(DATA)  # truncated ones are refused before anything is written
    elif formats:
        raise InputError(f"{weights}: no weights to export as {' or '.join(formats)}: the sweep did not keep them")
    declared = getattr(config.dataset, "num_val", None)
    card = Card(summary, pick, row, config, read_confirmed(results), has_model=weights.exists(), val_images=declared)
    card.info = DataInfo.from_json(about) if about else None
    check_links(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as work:
        beside, failed = Path(work), None
        write_text(beside / CONFIG_FILE, config.to_yaml())
        if weights.exists():
            for file in filter(Path.is_file, (weights, trial / LIBRARY_FILE)):
                shutil.copyfile(file, beside / file.name)
            failed = _add_formats(card, results, row, formats, beside)
        write_card(card, beside)
        for name in (MODEL_FILE, LIBRARY_FILE, *FILES.values()):
            if not (beside / name).exists():
                (folder / name).unlink(missing_ok=True)
        for path in beside.iterdir():
            path.replace(folder / path.name)
    if say is not None:
        say(in_one_line(card))
    if failed is not None:
        raise failed
    return folder


def _add_formats(
    card: Card, results: Results, row: pd.Series, formats: Sequence[str], folder: Path
) -> RoutingError | None:
    """Measure the model, write it in other formats, and say on its card what came of that; return what failed."""
    try:
        saved = load_point(results, row)
        card.info = saved.info
        images, card.val_images = _validation_images(card.config)
        card.latency = _measure(saved, images)
    except InputError as error:  # weights of another model, or data that is not here: the rest is still of use
        card.notes.append(f"Latency was not measured: {error}.")
        return error if formats else None
    card.files, failed = _other_formats(saved, images, formats, folder)
    card.notes += [f"{error}." for error in failed]
    return failed[0] if failed else None


def _other_formats(
    saved: SavedRun, images: torch.Tensor, formats: Sequence[str], folder: Path
) -> tuple[list[Verified], list[ExportFailed]]:
    """Write each format; return what was verified and what failed."""
    verified: list[Verified] = []
    failed: list[ExportFailed] = []
    for kind in formats:
        try:
            verified.append(export_model(saved, images, kind, folder))
        except ExportFailed as error:
            failed.append(error)
    return verified, failed
