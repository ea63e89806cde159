"""Command lines taken from pages, and what must be true of each; nothing is run.

A word in capitals (``RESULTS``, ``RUN...``) stands for one of the reader's.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
from pages import ROOT, files_shown

from routing.cli import cli
from routing.config.run import RunConfig
from routing.config.registry import MODELS, ROUTERS
from search_spaces.study.shipped import shipped
from search_spaces.study.load import load_study
from search_spaces.study.schema import parse_duration

_ENDS = {"&&", ";", "|", "||"}


def command_lines(text: str) -> list[list[str]]:
    """Return the commands of a shell block as words: continued lines joined, comments and prompts dropped."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=";|&")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word in _ENDS:
                found += [words[: words.index(">")] if ">" in words else words] if words else []
                words = []
            elif words or not re.fullmatch(r"[A-Z_]+=.*", word):  # VARIABLE=value in front of a command
                words.append(word)
    return found


def inline_commands(text: str) -> list[list[str]]:
    """Return the commands meant by inline code: ``routing schema run|study`` is two, ``[--option]`` is given."""
    words = [word.strip("[]").removesuffix("...") for word in text.split()]
    return [list(chosen) for chosen in itertools.product(*(word.split("|") for word in words))]


def check(words: list[str], *, mentioned: bool = False) -> None:
    """Assert that a command exists and takes these words; one that is only mentioned may lack its arguments."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")  # which need not be where the tests run
    if program in ("python", "python3") and arguments[:2] == ["-m", "routing"]:
        program, arguments = "routing", arguments[2:]
    if program == "routing":
        _routing(arguments, mentioned)
    elif "/" in program:
        assert (ROOT / program).is_file(), f"no file {program}"
    else:
        assert program in PROGRAMS, f"'{program}' is no program these pages may ask for"
        PROGRAMS[program](arguments)


def _routing(arguments: list[str], mentioned: bool) -> None:
    if not arguments or arguments == ["--version"]:
        return
    name, *rest = arguments
    assert name in cli.commands, f"no command '{name}'"
    try:
        context = cli.commands[name].make_context(name, list(rest))
    except click.MissingParameter:
        assert mentioned, "an argument is missing"
        return
    except click.exceptions.Exit:  # --help
        return
    if name in _KEYS:
        _KEYS[name](**context.params)


def _is_placeholder(word: str) -> bool:
    return word.isupper() or word.startswith("$")


def _run(config_file: str | None, overrides: tuple[str, ...], **_: Any) -> None:
    if config_file is not None:
        name = Path(config_file).name
        assert name == "config.yaml" or name in files_shown() or (ROOT / config_file).is_file(), config_file
    RunConfig.from_yaml(None, overrides)


def _compare(models: str, **run: Any) -> None:
    _run(**run)
    for name in filter(None, models.split(",")):
        assert name in MODELS or name in ROUTERS, name


def _sweep(study_file: str, overrides: tuple[str, ...], time_budget: str | None, **_: Any) -> None:
    known = study_file in shipped() or study_file in files_shown() or (ROOT / study_file).is_file()
    assert known or _is_placeholder(study_file), f"no study '{study_file}'"
    if overrides and study_file in shipped():
        load_study(study_file, overrides)
    if time_budget is not None:
        parse_duration(time_budget)


def _export(picks: tuple[str, ...], **_: Any) -> None:
    for pick in picks:
        assert re.fullmatch(r"knee|best|(budget|latency)=[\d.]+(e\d+)?|trial=\d+", pick), f"no pick '{pick}'"


def _zeroshot(overrides: tuple[str, ...], **_: Any) -> None:
    if overrides:
        from routing.commands.zeroshot_config import ZeroshotConfig

        ZeroshotConfig.from_overrides(overrides)


def _attention(pruning: str | None, **_: Any) -> None:
    if pruning is not None:
        from routing.models.vit.token_pruning import Pruning
        from routing.models.vit.token_selection import Selection

        Pruning(Selection(k_anchors=1, top_m=1)).with_text(pruning)


_KEYS: dict[str, Callable[..., None]] = {
    "train": _run,
    "compare": _compare,
    "sweep": _sweep,
    "export": _export,
    "zeroshot": _zeroshot,
    "attention": _attention,
}
"""What click cannot know of a command: keys of a run, names of studies."""


def _make(arguments: list[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for word in arguments:
        assert word in targets or re.fullmatch(r"[A-Z]+=\S+", word), f"no target '{word}' in the Makefile"


def _pip(arguments: list[str]) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(arguments)):
        assert set(extra.split(",")) <= set(setup["options.extras_require"]), f"no extra '{extra}' in setup.cfg"


def _pytest(arguments: list[str]) -> None:
    for word in arguments:
        assert word.startswith("-") or (ROOT / word.partition("::")[0]).exists(), f"no test '{word}'"


def _python(arguments: list[str]) -> None:
    assert arguments[0] in files_shown() or (ROOT / arguments[0]).is_file(), f"no page shows '{arguments[0]}'"


def _anything(arguments: list[str]) -> None:
    """A program that is not ours."""


PROGRAMS: dict[str, Callable[[list[str]], None]] = {
    "make": _make,
    "pip": _pip,
    "pytest": _pytest,
    "python": _python,
    **dict.fromkeys(
        ("cd", "git", "kubectl", "optuna-dashboard", "pipx", "python3", "ray", "sbatch", "source", "tensorboard"), _anything
    ),
}
"""Programs that pages may ask for; a new one belongs here with what can be checked of it."""
