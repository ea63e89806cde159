"""The card of an exported model: what it is, its accuracy, cost and data, and how to reproduce it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.exports.hub import front_matter
from analysis.exports.latency import SingleImageLatency
from analysis.exports.portable import Verified
from analysis.exports.usage import usage
from analysis.findings.certificates import WORDS
from analysis.findings.confirmed import NO_SEEDS, confirmed_row, reached
from analysis.findings.summary import Summary
from analysis.words.words import axis_label, name, shown, who
from routing.config.run import RunConfig
from routing.data import DataInfo
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.record import read_metrics
from routing.files.results_folder import CARD_FILE, CONFIG_FILE
from routing.intervals import share_interval
from routing.quantities import find, is_metric, ordered

LICENCES = {
    "digits": "scikit-learn's copy of the UCI optical recognition of handwritten digits data set (CC BY 4.0)",
    "quality": "crops of the two photographs that scikit-learn ships (CC BY 2.0)",
}
MAX_CLASSES = 20


@dataclass
class Card:
    """Content of a card; ``val_images`` and the fields after it are filled in as they become known."""

    summary: Summary
    pick: str
    row: pd.Series
    config: RunConfig
    confirmed: pd.DataFrame
    has_model: bool
    val_images: int | None = None
    info: DataInfo | None = None
    latency: SingleImageLatency | None = None
    files: list[Verified] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write_card(card: Card, folder: Path) -> None:
    """Write card.md."""
    model = card.config.model.name
    parts = [
        front_matter(card, has_free_data=card.config.dataset.name in LICENCES),
        f"# {model} on {card.config.dataset.name}: {card.pick} of {card.summary.results.name}",
        str(card.summary.results.study.get("question") or ""),
        "| what | value |\n|---|---|\n" + "\n".join(f"| {what} | {value} |" for what, value in _facts(card) if value),
        "Compute is multiply-adds per image (one multiply-add counts as 1), the mean of what was executed over the "
        "validation images.",
        "## Use",
        _usage(card),
        "## Train it again",
        f"`routing train --config {CONFIG_FILE}` trains the same model and reports the same validation value on the "
        "same machine and thread count.",
        "\n".join(f"* {note}" for note in [*(file.words() for file in card.files), *card.notes]),
        "## Licence",
        _licence(card),
    ]
    write_text(folder / CARD_FILE, "\n\n".join(part for part in parts if part) + "\n")


def in_one_line(card: Card) -> str:
    """Return which point it is, its values, its cost and its time: ``knee: trial 5 vit, 93.10 % ...``."""
    objectives = card.summary.results.objectives
    values = [f"{name(o.metric)} {shown(o.metric, card.row[o.metric])}" for o in objectives]
    values += [card.latency.words()] if card.latency else []
    return f"{card.pick}: {who(card.row.to_dict())}: {', '.join(values)}"


def _facts(card: Card) -> list[tuple[str, str]]:
    row, results = card.row, card.summary.results
    facts = [("data", _data(card)), ("trial", str(int(row["trial"]))), ("seed", str(card.config.seed))]
    objectives = [objective.metric for objective in results.objectives]
    facts += [("classes", _classes(card))]
    facts += [(axis_label(metric), _value(card, metric)) for metric in objectives]
    further = [name for name in ordered(map(str, row.index)) if is_metric(name) and name not in objectives]
    facts += [(axis_label(metric), shown(metric, row[metric])) for metric in further]
    knob = card.config.evaluation.knob_value
    facts.append(("knob", f"{row.get('knob')} = {knob:g}" if isinstance(knob, float) else str(knob or "")))
    facts.append(("confirmed", _confirmed(card)))
    facts.append(("latency", card.latency.words() if card.latency else ""))
    facts.append(("router certificate", _certificate(card)))
    return list(dict(facts).items())


def _data(card: Card) -> str:
    dataset = card.config.dataset
    return f"{dataset.name}, {dataset.input_size} x {dataset.input_size} pixels"


def _value(card: Card, metric: str) -> str:
    """Return a metric of the point; a share of images with Wilson's interval."""
    value = float(card.row[metric])
    images = card.val_images
    known = find(metric)
    if known is None or not known.is_share_of_images or images is None:
        return shown(metric, value)
    interval = share_interval(value, images)
    sample = f"95 %, one seed; {images} images, on which it was chosen too"
    return f"{shown(metric, value)} [{interval.low:.2%}, {interval.high:.2%}] ({sample})"


def _confirmed(card: Card) -> str:
    """Return the result of ``routing confirm`` for this point, empty where it was not confirmed."""
    found = confirmed_row(card.confirmed, card.row)
    if found is None:
        return ""
    return NO_SEEDS if found.get("n") == 0 else reached(found, card.summary.results)


def _certificate(card: Card) -> str:
    try:
        found: Any = read_metrics(card.summary.results.trial_folder(int(card.row["trial"]))).get("certificate")
    except InputError:
        return ""
    if not isinstance(found, dict):
        return ""
    state, gap = str(found.get("state")), found.get("gap_closed")
    closed = f"; gap closed {gap:.2f}" if isinstance(gap, (int, float)) else ""
    return f"{state} ({WORDS.get(state, 'unknown state')}{closed}), at the trained setting of the knob"


def _usage(card: Card) -> str:
    if not card.has_model:
        return "The sweep did not keep this trial's weights; train it again as below, into this folder with `--out .`."
    return usage(card.config, card.info, has_onnx=any(one.path.suffix == ".onnx" for one in card.files))


def _classes(card: Card) -> str:
    names = card.info.class_names if card.info is not None else ()
    shown_names = ", ".join(name.replace("|", r"\|").replace("\n", " ") for name in names[:MAX_CLASSES])
    more = f", ... ({len(names)} in all; `model.safetensors` and exported files name them)"
    return shown_names + (more if len(names) > MAX_CLASSES else "")


def _licence(card: Card) -> str:
    data = LICENCES.get(card.config.dataset.name, "the data it was trained on, whose own terms apply to the weights")
    return f"Code: MIT. Trained on {data}."
