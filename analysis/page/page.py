"""The report page: findings in words and tables, put into the templates with everything they need to stand alone."""

from __future__ import annotations

import base64
import gzip
import io
import json
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis.findings.cost import cost_table
from analysis.findings.summary import Summary
from analysis.page.chart_data import page_data
from analysis.page.headline import cards, chart_label, headline, progress
from analysis.page.tables import commands, environment_table, failure_table, front_table, importance_table
from analysis.read.results import Results
from analysis.words.tables import Table
from routing import __version__
from routing.files.results_folder import (
    CONFIRM_FILE,
    CONFIRM_FOLDER,
    FIGURES_FOLDER,
    FRONT_FILE,
    POINTS_FILE,
    TRIALS_FILE,
)

MAX_PICTURES = 8
PICTURE_WIDTH = 1400
CAPTIONS = {
    "front": "All operating points, the front, the dense baselines and the knee.",
    "hypervolume": "Hypervolume after each trial, and over the seconds spent training.",
    "forest": "Every arm against the baseline: paired difference with its 95 % interval; filled where it is clear.",
    "slices": "Every finished trial at its own setting, against each searched parameter.",
    "grid_size": "Mean over trials per grid size, with 95 % interval where there are several.",
    "parallel": "Every finished trial as a line across its parameters and results.",
    "sensitivity": "What moving the {} of a trained model does, without training again.",
    "importance": "Estimated importance of the searched parameters; not an ablation.",
    "overlay": "The front of each study; bands reach from the best to the worst repeat.",
}

_POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}' blob: 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
"""Only the page's own script runs, and the chart library that it unpacks, which makes functions for WebGL; the page
reaches no network, whatever a name in the results says."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page: a data URI and its alternative text."""

    name: str
    uri: str
    caption: str


@dataclass(frozen=True)
class Findings:
    """What the page shows beside the summary; empty where a study has none."""

    certificates: Table
    ablations: tuple[Table, ...] = ()
    confirmed: pd.DataFrame | None = None
    confirm: Table | None = None
    importance: pd.DataFrame | None = None
    warnings: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def templates() -> jinja2.Environment:
    """Return the package's templates: everything put in is escaped, a missing name is an error."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(summary: Summary, figures: Sequence[Path], findings: Findings, refresh: int = 0) -> str:
    """Return the report page as one HTML text that needs no other file and no network.

    Args:
        refresh: seconds after which the page loads itself again; 0: never, the study has ended.
    """
    results, data = summary.results, page_data(summary, findings.confirmed)
    context: dict[str, Any] = {
        "name": results.name,
        "question": str(results.study.get("question") or ""),
        "cards": cards(summary),
        "headline": headline(summary, findings.answers, findings.confirmed),
        "warnings": findings.warnings,
        "chart_label": chart_label(summary),
        "front": front_table(summary),
        "confirm": findings.confirm,
        "ablations": findings.ablations,
        "failures": failure_table(results),
        "certificates": findings.certificates,
        "importance": importance_table(findings.importance),
        "figures": [figure_picture(path) for path in figures if path.suffix == ".png"],
        "pictures": model_pictures(summary),
        "commands": commands(results),
        "cost": cost_table(results),
        "environment": environment_table(results),
        "problems": results.problems,
        "has_curves": data["curves"] is not None,
        "tables": _linked_tables(results),
        "refresh": refresh,
        "progress": progress(summary),
        **frame(),
        **script("report.js", data),
    }
    context["sections"] = _sections(context)
    return templates().get_template("report.html.j2").render(context)


def frame() -> dict[str, Any]:
    """Return the values common to all pages: style, version, date."""
    written = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    nonce = secrets.token_urlsafe(12)
    return {
        "css": _asset("report.css"),
        "version": __version__,
        "written": written,
        "nonce": nonce,
        "policy": _POLICY.format(nonce=nonce),
    }


def script(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return what makes a page interactive: its script after the common ones, its data, the chart library."""
    parts = ("common.js", "points.js", "chart.js", "pins.js", "trials.js", "curves.js", name)
    return {
        "script": Markup("").join(_asset(part) for part in parts),
        "data": _packed(json.dumps(data, allow_nan=False, separators=(",", ":"))),
        "library": _chart_library(),
    }


def _linked_tables(results: Results) -> list[str]:
    """Return the CSV files of the folder, relative to the page beside them."""
    names = (FRONT_FILE, POINTS_FILE, TRIALS_FILE, f"{CONFIRM_FOLDER}/{CONFIRM_FILE}")
    return [name for name in names if (results.folder / name).is_file()]


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    """Return id and title of the sections that the page has, in its order."""
    named = [
        ("front-table", "Front", True),
        ("confirm", "Confirmed", context["confirm"]),
        ("ablation", "Ablation", context["ablations"]),
        ("trials", "Trials", True),
        ("curves", "Learning curves", context["has_curves"]),
        ("failures", "Stopped and failed", context["failures"].rows),
        ("certificates", "Routers", context["certificates"].rows),
        ("importance", "Importance", context["importance"]),
        ("figures", "Figures", True),
        ("pictures", "Pictures", context["pictures"]),
        ("reproduce", "Reproduce", True),
    ]
    return [(name, title) for name, title, there in named if there]


def _asset(name: str) -> Markup:
    """Return one of the package's own files, which may stand in the page as it is."""
    return Markup((files("analysis") / "templates" / name).read_text(encoding="utf-8"))


def _packed(text: str) -> str:
    """Return text gzipped in base64: a fifth of its size, and nothing in it can end the element it stands in."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), compresslevel=9, mtime=0)).decode("ascii")


@cache
def _chart_library() -> str:
    """Return plotly.js from the plotly package, 4.8 MB packed to 2 MB."""
    from plotly.offline import get_plotlyjs

    return _packed(get_plotlyjs())


def figure_picture(path: Path) -> Picture:
    """Return a figure file as a picture of the page."""
    kind, _, what = path.stem.partition("_")
    caption = CAPTIONS.get(path.stem) or CAPTIONS.get(kind, path.stem).format(what.replace("_", " "))
    return Picture(path.stem, _uri(path.read_bytes()), caption)


def pictured_trials(summary: Summary) -> list[Path]:
    """Return the folders of the trials on the front, those that are looked at first in front: the knee's, the best."""
    first = [row["trial"] for row in (summary.knee_row, summary.best_row) if row is not None]
    numbers = dict.fromkeys([*first, *summary.front["trial"]])
    return [summary.results.trial_folder(int(number)) for number in numbers]


def model_pictures(summary: Summary) -> list[Picture]:
    """Return pictures that the trials on the front left in their figures folder, see ``pictured_trials``."""
    found: list[Picture] = []
    for folder in pictured_trials(summary):
        for path in sorted((folder / FIGURES_FOLDER).glob("*.png")):
            if len(found) < MAX_PICTURES and (uri := _shrunk(path)):
                found.append(Picture(path.stem, uri, f"trial {folder.name}: {path.stem.replace('_', ' ')}"))
    return found


def _shrunk(path: Path) -> str | None:
    """Return a picture as a data URI no wider than the page needs, None when it is no readable image."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            image.thumbnail((PICTURE_WIDTH, PICTURE_WIDTH))
            buffer = io.BytesIO()
            image.convert("P", palette=Image.Palette.ADAPTIVE).save(buffer, "PNG", optimize=True)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None  # SyntaxError is what PIL says of a broken PNG
    return _uri(buffer.getvalue())


def _uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode("ascii")
