"""Words that a shell completes beyond options: names of studies, dotted keys and their values.

What a person waits for at every press of the tab key: nothing here imports torch, and no code of a user's is run.
"""

from __future__ import annotations

import itertools
from typing import Any

import click
from click.shell_completion import CompletionItem

from routing.errors import RoutingError

KEYS = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
"""Settings of a command whose further options are keys of a run."""
_BASE = "base."


class RunCommand(click.Command):
    """A command that takes any key of a run: ``--model.router.mode top_k``."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Add dotted keys to the options, once two hyphens are written."""
        options = super().shell_complete(ctx, incomplete)
        return options + _keys(incomplete, _of_file(ctx.params.get("config_file")) | _written(ctx), "")


class StudyCommand(click.Command):
    """A command that takes keys of a study's base: ``--base.training.num_epochs 1``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set these words apart, as ``overrides``, wherever they stand; the rest are options and arguments."""
        words, rest, found = list(args), [], []
        while words:
            word = words.pop(0)
            if not word.startswith(f"--{_BASE}"):
                rest.append(word)
                continue
            found.append(word)
            if "=" not in word and words:
                found.append(words.pop(0))
        ctx.params["overrides"] = tuple(found)
        try:
            return super().parse_args(ctx, rest)
        except click.NoSuchOption as error:
            if "." not in error.option_name:
                raise
            meant = f"--{_BASE}{error.option_name.lstrip('-')}"  # a key was given as a run takes it
            raise click.NoSuchOption(error.option_name, possibilities=[meant], ctx=error.ctx) from None

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Add keys of the base to the options, and the values of a key."""
        options = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-") and not incomplete.startswith(f"--{_BASE}"):
            return [*options, *_starting([f"--{_BASE}"], incomplete)]
        found: dict[str, CompletionItem] = {}
        for names in _of_study(ctx.params.get("study_file")):
            given = names | _written(ctx, _BASE)
            items = _keys(incomplete, given, _BASE) or _values(_pending(ctx), incomplete, given)
            found |= {item.value: item for item in items}
        return [*options, *found.values()]


def complete_value(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the values that the key written last can have."""
    given = _of_file(ctx.params.get("config_file")) | _written(ctx)
    return _values(_pending(ctx), incomplete, given)


def complete_study(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return shipped studies that begin so, or that a file may be meant."""
    from search_spaces.study.shipped import shipped

    return _starting(shipped(), incomplete) or [CompletionItem(incomplete, type="file")]


def _keys(incomplete: str, given: dict[str, Any], prefix: str) -> list[CompletionItem]:
    if not incomplete.startswith("--"):
        return []
    from routing.commands.keys import keys_of

    return _starting([f"--{prefix}{key}" for key in keys_of(given)], incomplete)


def _values(key: str | None, incomplete: str, given: dict[str, Any]) -> list[CompletionItem]:
    if key is None:
        return []
    from routing.commands.keys import values_of

    return _starting(values_of(key, given), incomplete)


def _starting(words: Any, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(word) for word in words if word.startswith(incomplete)]


def _pending(ctx: click.Context) -> str | None:
    """Return the key that waits for its value; bash gives ``=`` as a word of its own."""
    words = [word for word in ctx.params.get("overrides") or () if word != "="]
    if not words or not words[-1].startswith("--") or "=" in words[-1]:
        return None
    return str(words[-1]).removeprefix("--").removeprefix(_BASE)


def _written(ctx: click.Context, prefix: str = "") -> dict[str, str]:
    """Return the values of the command line by key."""
    from routing.config.overrides import split_overrides

    words = [word for word in ctx.params.get("overrides") or () if word != "="]
    if _pending(ctx) is not None:
        words.pop()
    try:
        return {key.removeprefix(prefix): text for key, (_, text) in split_overrides(words).items()}
    except RoutingError:
        return {}


def _of_file(path: str | None) -> dict[str, Any]:
    from routing.config.section import dotted, nested
    from routing.files.yaml_io import load_file

    try:
        values = {} if path is None else load_file(path)[0]
        return dotted(nested(values)) if isinstance(values, dict) else {}
    except (RoutingError, OSError):
        return {}  # what is wrong with it is said when the command runs


def _of_study(path: str | None) -> list[dict[str, Any]]:
    """Return the base of a study once for every model and data set that its space searches."""
    from search_spaces.study.shipped import found

    try:
        values = {} if path is None else _of_file(str(found(path)))
    except RoutingError:
        values = {}
    base = {key.removeprefix(_BASE): value for key, value in values.items() if key.startswith(_BASE)}
    searched = []
    for key in ("model.name", "dataset.name"):
        names = values.get(f"space.{key}.choice", values.get(f"space.{key}"))
        searched.append([{key: name} for name in names] if isinstance(names, list) else [{}])
    return [{**base, **model, **data} for model, data in itertools.product(*searched)]
