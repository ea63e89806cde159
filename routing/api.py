"""The command line as functions: the same arguments, results as objects. Beside ``cli``, the one place that knows all.

results = routing.sweep("digits", trials=20)
results.plot_front()
results.model("knee").predict("photo.png").labels
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.exports.export import export as export_picks
from analysis.opened.results import StudyResults as Results
from analysis.report import analyze as write_report
from routing.config.run import RunConfig
from routing.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor, nn

    from routing.saved import SavedRun
    from search_spaces import Study

AnyPath = str | Path
Config = RunConfig | Mapping[str, Any] | str | Path | None
"""A run: checked, its keys (nested or dotted), a YAML file, or None for all defaults."""

__all__ = ["Results", "analyze", "compare", "confirm", "count", "export", "sweep", "train"]


def sweep(
    study: Study | AnyPath,
    out: AnyPath | None = None,
    *,
    base: Mapping[str, Any] | None = None,
    trials: int | None = None,
    time_budget: float | str | None = None,
    concurrency: int | None = None,
    address: str | None = None,
    resume: bool = False,
    warm_start: Sequence[AnyPath] = (),
    storage: str | None = None,
    force: bool = False,
    retry_failed: bool = False,
    keep_going: bool = False,
    allow_mixed_versions: bool = False,
) -> Results:
    """Run a study, a file or the name of a shipped one, and write its report: ``routing sweep``.

    Args:
        base: dotted keys of the run that are laid over the base of the study, a file or a name.

    Raises:
        InputError: bad input, in one line; nothing has been written.
    """
    import search_spaces

    if base and not isinstance(study, (str, Path)):
        raise InputError("sweep: base changes a study that is read from a file; this one is checked already")
    loaded = search_spaces.load_study(study, base=base) if isinstance(study, (str, Path)) else study
    folder = search_spaces.sweep(
        loaded, out or Path("results") / loaded.name, trials=trials, time_budget=time_budget, concurrency=concurrency,
        address=address, resume=resume, warm_start=warm_start, storage=storage, force=force,
        retry_failed=retry_failed, keep_going=keep_going, allow_mixed_versions=allow_mixed_versions,
    )  # fmt: skip
    return analyze(folder)


def confirm(
    results: AnyPath | Results,
    seeds: int = 5,
    *,
    adaptive: bool = False,
    concurrency: int | None = None,
    address: str | None = None,
) -> Results:
    """Train the front again under fresh seeds and read the test split once: ``routing confirm``."""
    import search_spaces

    folder = _folder(results)
    search_spaces.confirm(folder, seeds, adaptive=adaptive, concurrency=concurrency, address=address)
    return analyze(folder)


def analyze(results: AnyPath | Results, *, formats: Sequence[str] = ("png",), column: Any = "double") -> Results:
    """Write tables, figures and report.html of a results folder: ``routing analyze``."""
    folder = _folder(results)
    write_report([folder], formats=formats, width=column)
    return Results(folder)


def export(
    results: AnyPath | Results,
    pick: str | Sequence[str] = "knee",
    out: AnyPath | None = None,
    *,
    onnx: bool = False,
    torch_export: bool = False,
) -> list[Path]:
    """Write config, weights and card of points of a front, a folder each: ``routing export``."""
    formats = [name for name, wanted in (("onnx", onnx), ("torch_export", torch_export)) if wanted]
    return export_picks(_folder(results), [pick] if isinstance(pick, str) else pick, out, formats=formats)


def train(config: Config = None, out: AnyPath | None = None) -> SavedRun:
    """Train one run into its folder and return the trained model: ``routing train``."""
    from routing.commands.console import say
    from routing.commands.train import default_folder
    from routing.commands.train import train as train_run
    from routing.saved import load

    run = _config(config)
    folder = default_folder(run) if out is None else Path(out)
    train_run(run, folder, say)
    return load(folder)


def compare(
    config: Config = None, models: Sequence[str] = (), seeds: int = 1, out: AnyPath | None = None
) -> pd.DataFrame:
    """Train models alike and return a row for each, the columns of compare.csv: ``routing compare``."""
    import pandas as pd

    from routing.commands.compare import compare as compare_models
    from routing.commands.console import say

    run = _config(config)
    folder = Path("runs") / f"compare-{run.dataset.name}-{run.model.name}" if out is None else Path(out)
    return pd.DataFrame(compare_models(run, list(models), seeds, folder, say).rows)


def count(model: nn.Module | Config = None, *inputs: Tensor) -> float:
    """Return multiply-adds: of a call of any module with these inputs, or per image expected of a run."""
    from torch import nn

    from routing.evaluation.compute import count_module, expected_flops

    if isinstance(model, nn.Module):
        if not inputs:
            raise InputError("count: a module is counted on inputs: count(model, images)")
        return count_module(model, inputs)
    return expected_flops(_config(model))


def _config(given: Config) -> RunConfig:
    if isinstance(given, RunConfig):
        return given
    return RunConfig.from_dict(dict(given)) if isinstance(given, Mapping) else RunConfig.from_yaml(given)


def _folder(results: AnyPath | Results) -> Path:
    return results.folder if isinstance(results, Results) else Path(results)
