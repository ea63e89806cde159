"""Anything may stand in a study file, an override or a results folder: only ``InputError`` comes out, in one line.

``ROUTING_FUZZ`` multiplies the number of examples.
"""

from __future__ import annotations

import copy
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_studies import ablation_values, sweep_values

from analysis.figures.front import draw_front
from analysis.findings.boundaries import boundary_warnings
from analysis.findings.certificates import certificate_table
from analysis.findings.effects import finished as finished_trials
from analysis.findings.effects import parallel_axes
from analysis.findings.summary import summarise
from analysis.page.page import Findings, render
from analysis.read.configs import as_searched, searched_keys
from analysis.read.results import read_results
from routing.config.run import RunConfig, valid_keys
from routing.errors import InputError
from routing.files.yaml_io import dump, load_text
from search_spaces.study.load import parse_study

TIMES = int(os.environ.get("ROUTING_FUZZ", "1"))


def examples(number: int) -> settings:
    """Return the settings of a fuzz test: the same examples every time, however slow the machine."""
    return settings(
        max_examples=number * TIMES,
        deadline=None,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )


WORDS = st.sampled_from(
    [
        *("", "seed", "model.name", "model.router.mode", "training.num_epochs", "dataset.root", "digits", "top_k"),
        *("name", "choice", "float", "int", "log", "when", "value", "metric", "goal", "..", "a.b.c", ".", "1e9", "nan"),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=12),
    WORDS,
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=6)), inner, max_size=4)
    ),
    max_leaves=8,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything inside a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, item in items for found in paths(item, (*path, key)))]


@st.composite
def spoilt_studies(draw: st.DrawFn) -> Any:
    """Return a study with one to three places of it replaced, deleted or added to."""
    study: Any = copy.deepcopy(draw(st.sampled_from([sweep_values(), ablation_values()])))
    for _ in range(draw(st.integers(1, 3))):
        *parents, last = draw(st.sampled_from(paths(study)[1:] or [(None,)]))
        node = study
        for key in parents:
            node = node[key]
        action = draw(st.sampled_from(["replace", "delete", "add"]))
        if last is None or (action == "add" and isinstance(node, list)):
            continue
        if action == "add":
            node[draw(st.one_of(WORDS, st.text(max_size=6)))] = draw(ANYTHING)
        elif action == "delete":
            del node[last]
        else:
            node[last] = draw(ANYTHING)
    return study


def refused_in_one_line(text: str) -> bool:
    return bool(text.strip()) and "\n" not in text and "Traceback" not in text


@examples(700)
@given(spoilt_studies())
def test_spoilt_studies(values: Any) -> None:
    try:
        parse_study(values)
    except InputError as error:
        assert refused_in_one_line(str(error)), str(error)  # noqa: PT017


@examples(300)
@given(st.one_of(st.text(max_size=200), ANYTHING.map(lambda value: repr(value)), spoilt_studies().map(str)))
def test_any_text_as_a_study_file(text: str) -> None:
    try:
        values, lines = load_text(text, "study.yaml")
        parse_study(values, "study.yaml", lines)
    except InputError as error:
        assert refused_in_one_line(str(error)), str(error)  # noqa: PT017


KEYS = st.one_of(st.sampled_from(valid_keys()), WORDS, st.text(max_size=10))
VALUES = st.one_of(
    SCALARS.map(str),
    ANYTHING.map(str),
    st.sampled_from(["[", "{", "'", "!!python/object:x {}", "&a [*a]", "- -", "%", "@", "1e999", "0x10", "2026-01-01"]),
)


@examples(700)
@given(st.lists(st.tuples(KEYS, VALUES, st.sampled_from(["--{} {}", "{}={}", "--{}={}", "{} {}", "--{}"])), max_size=3))
def test_any_override(words: list[tuple[str, str, str]]) -> None:
    overrides = [
        part for key, value, form in words for part in form.replace("{} {}", "{}\0{}").format(key, value).split("\0")
    ]
    try:
        RunConfig.from_yaml(None, overrides)
    except InputError as error:
        assert refused_in_one_line(str(error)), str(error)  # noqa: PT017


FILES = ["study.yaml", "trials.csv", "points.csv", "environment.json", "trials/0/metrics.json", "trials/1/config.yaml"]


@st.composite
def damage(draw: st.DrawFn) -> tuple[str, str, int, bytes]:
    """Return a file, what is done to it, where (per mille), and with which bytes."""
    kinds = ["cut", "insert", "overwrite", "replace", "delete", "cell", "folder"]
    content = st.one_of(
        st.binary(max_size=30),
        ANYTHING.map(lambda value: str(value).encode("utf-8", "replace")),
        ANYTHING.map(lambda value: dump_or_empty(value)),
    )
    return draw(st.sampled_from(FILES)), draw(st.sampled_from(kinds)), draw(st.integers(0, 1000)), draw(content)


def dump_or_empty(value: Any) -> bytes:
    try:
        return dump(value).encode("utf-8", "replace")
    except Exception:  # what PyYAML cannot write (lone surrogates) cannot be read either
        return b""


def spoil(root: Path, name: str, kind: str, place: int, content: bytes) -> None:
    """Damage one file of a results folder."""
    path = root / name
    whole = path.read_bytes()
    at = len(whole) * place // 1000
    if kind == "delete":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "cell":  # another value where one stands between two separators
        end = next((i for i in range(at, len(whole)) if whole[i : i + 1] in (b",", b"\n")), len(whole))
        start = max(whole.rfind(b",", 0, at), whole.rfind(b"\n", 0, at), whole.rfind(b" ", 0, at)) + 1
        path.write_bytes(whole[:start] + content.replace(b"\n", b" ") + whole[end:])
    else:
        changed = {
            "cut": whole[:at],
            "insert": whole[:at] + content + whole[at:],
            "overwrite": whole[:at] + content + whole[at + len(content) :],
            "replace": content,
        }
        path.write_bytes(changed[kind])


@pytest.mark.slow  # reads, summarises and draws a folder 350 times
@examples(350)
@given(changes=st.lists(damage(), min_size=1, max_size=2, unique_by=lambda change: change[0]))
def test_any_results_folder(finished: Path, tmp_path_factory: Any, changes: list[tuple[str, str, int, bytes]]) -> None:
    root = tmp_path_factory.mktemp("damaged") / "results"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("*.safetensors", "ledger.journal"))
    try:
        for change in changes:
            spoil(root, *change)
        summary = summarise(read_results(root))
        render(summary, [], Findings(certificate_table(summary), warnings=tuple(boundary_warnings(summary))))
        draw_front(summary, [], root)
        trials = as_searched(finished_trials(summary.results), summary.results.study)
        parallel_axes(trials, ["flops"], searched_keys(summary.results.study))
    except InputError as error:
        assert refused_in_one_line(str(error)), str(error)  # noqa: PT017
    finally:
        shutil.rmtree(root.parent)
