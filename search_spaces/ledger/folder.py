"""The results folder: its lock, its identity, its study and its environment."""

from __future__ import annotations

import itertools
import json
import os
import platform
import re
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from routing.config.run import RunConfig
from routing.config.script import AnyRun, read_run
from routing.config.section import dotted, nested
from routing.errors import InputError
from routing.files.atomic import write_text
from routing.files.links import check_links
from routing.files.mirror import Mirror
from routing.files.results_folder import (
    BEST_FILE,
    CONFIG_FILE,
    ENVIRONMENT_FILE,
    ID_FILE,
    LOCK_FILE,
    MIRROR_FILE,
    MODEL_FILE,
    SET_ASIDE_FOLDER,
    STUDY_FILE,
    TRIALS_FOLDER,
)
from routing.files.secrets import without_secrets
from routing.files.yaml_io import dump, load_file
from search_spaces.study.parameters import to_label
from search_spaces.study.schema import AblationStudy, Study, SweepStudy

_PACKAGES = ("routing-sweeps", "torch", "ray", "optuna", "numpy", "pandas", "scikit-learn", "pydantic")
_LEFTOVER = re.compile(r"\.\w+\.(?:yaml|json|csv|txt|safetensors|journal)\.[a-z0-9_]{8}")
_FREE_TO_CHANGE = {"trials", "stop", "question", "cost", "resources", "trial_timeout", "keep_models", "seeds_per_arm"}


def holds_run(folder: Path, config: AnyRun) -> bool:
    """Return whether a trial's folder belongs to this run: a truncated ledger assigns the same number again."""
    try:
        return read_run(folder / CONFIG_FILE).is_same_run(config)
    except InputError:
        return False


def read_id(out: Path) -> str | None:
    """Return the id that identifies this results folder to an external storage, also after a move; None without one."""
    path = out / ID_FILE
    return path.read_text(encoding="utf-8").strip() if path.exists() else None


def write_id(out: Path) -> str:
    """Write the id of a results folder and return it."""
    mark = uuid.uuid4().hex
    write_text(out / ID_FILE, f"{mark}\n")
    return mark


def check_mirror(out: Path, mirror: Mirror) -> None:
    """Check that a folder and its mirror belong to one sweep, so that the trials of two are not mixed.

    Raises:
        InputError: the folder holds another one.
    """
    path, study = out / MIRROR_FILE, out / STUDY_FILE
    if not study.exists():
        return
    here, there = path.read_text(encoding="utf-8") if path.exists() else None, mirror.read(MIRROR_FILE)
    if there is not None:
        belongs = here == there
    elif here is not None:
        belongs = here.split()[:1] in ([mirror.url], [mirror.address])  # of old, the whole address stood there
    else:  # of a version without marks
        belongs = mirror.read(STUDY_FILE) == study.read_text(encoding="utf-8")
    if not belongs:
        raise InputError(
            f"{out}, where a sweep to {mirror.url} works, holds another sweep; rename that folder, or choose a URL "
            "with another last part"
        )


def mark_mirror(out: Path, mirror: Mirror) -> None:
    """Give a folder the mark of its copy behind a URL, or a first one of its own."""
    there = mirror.read(MIRROR_FILE)
    if there is not None or not (out / MIRROR_FILE).exists():
        write_text(out / MIRROR_FILE, there or f"{mirror.url} {uuid.uuid4().hex}\n")


def dump_study(study: Study) -> dict[str, Any]:
    """Return the resolved study, every default filled in, in the words of a study file."""
    values = study.model_dump(mode="json", by_alias=True)
    values = {"kind": values.pop("kind"), **values}
    if isinstance(study, SweepStudy):
        values["space"] = {name: parameter.dump() for name, parameter in study.space.items()}
    return values


def write_study(out: Path, study: Study) -> None:
    """Write the resolved study; ``load_study`` reads it back equal."""
    write_text(out / STUDY_FILE, dump(dump_study(study)))


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return what differs between two resolved studies and would make trials incomparable, one line per key."""
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if key in _FREE_TO_CHANGE or old.get(key) == new.get(key):
            continue
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
            lines += [f"{key}.{name}: {_short(before.get(name))} -> {_short(after.get(name))}" for name in inner]
        else:
            lines.append(f"{key}: {_short(before)} -> {_short(after)}")
    return lines


def has_run_as(config: AnyRun, labels: dict[str, Any]) -> bool:
    """Return whether a run has this setting, given as the ledger stores it; what is no key of a run does not count."""
    values = config.dotted()
    return all(to_label(values[key]) == label for key, label in labels.items() if key in values)


def former_studies(out: Path) -> list[Path]:
    """Return what the study was before each ``--force``: study.1.yaml, study.2.yaml, ..."""
    stem, _, suffix = STUDY_FILE.partition(".")
    return sorted(out.glob(f"{stem}.[0-9]*.{suffix}"), key=lambda path: (len(path.name), path.name))


def keep_former_study(out: Path) -> None:
    """Keep study.yaml under the next of those names: earlier trials ran under it."""
    stem, _, suffix = STUDY_FILE.partition(".")
    former = out / f"{stem}.{len(former_studies(out)) + 1}.{suffix}"
    write_text(former, (out / STUDY_FILE).read_text(encoding="utf-8"))


def _has_other_choices(old: dict[str, Any], study: Study) -> bool:
    """Return whether a parameter of both studies has other choices, or is a range no more, or now."""
    space = old.get("space")
    if not isinstance(study, SweepStudy) or not isinstance(space, dict):
        return False
    kinds = ("choice", "float", "int")
    for name, parameter in study.space.items():
        before, now = space.get(name), parameter.dump()
        if not isinstance(before, dict) or not any(kind in before for kind in kinds):
            continue
        if any((kind in before) != (kind in now) for kind in kinds) and any(kind in now for kind in kinds):
            return True
        if "choice" in now and before["choice"] != now["choice"]:
            return True
    return False


def _with_scales(old: dict[str, Any], study: Study) -> dict[str, Any]:
    """Return a study file with the scales of its objectives; an older one declares none and searched on these."""
    scales = {objective.metric: objective.scale for objective in study.objectives}
    declared = old.get("objectives")
    if not isinstance(declared, list) or not all(isinstance(o, dict) and o.get("metric") in scales for o in declared):
        return old
    return {**old, "objectives": [{**o, "scale": o.get("scale", scales[o["metric"]])} for o in declared]}


def check_unchanged(out: Path, study: Study, force: bool) -> list[str]:
    """Compare with the study the folder was made for; return the accepted changes.

    Raises:
        InputError: it changed and ``force`` is not given, or the folder belongs to a study of another name.
    """
    old = load_file(out / STUDY_FILE)[0]
    if not isinstance(old, dict):
        raise InputError(f"{out / STUDY_FILE}: not a study")
    if old.get("name") != study.name or old.get("kind") != study.kind:
        raise InputError(
            f"{out} holds the {old.get('kind')} '{old.get('name')}', not the {study.kind} '{study.name}'; "
            "choose another --out"
        )
    found = changes(_with_scales(old, study), dump_study(study))
    if found and not force:
        what = f"the study changed since {out} was started: {'; '.join(found)}"
        if _has_other_choices(old, study):  # which a ledger cannot take, --force or not
            raise InputError(f"{what} (choices cannot change in a folder: start another --out with --warm-start)")
        raise InputError(f"{what} (accept it with --force)")
    return found


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Lock the folder for this driver; the lock is released when the process ends, so that none is ever stale.

    Raises:
        InputError: another driver works on it.
    """
    path = out / LOCK_FILE
    try:
        out.mkdir(parents=True, exist_ok=True)
        check_links(out)
        owner = path.read_text(encoding="utf-8") if path.exists() else ""
        lock = FileLock(path, timeout=0, thread_local=False)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{out} is in use by another sweep{owner and f' ({owner.strip()})'}; wait for it, or stop it"
        ) from None
    except OSError as error:
        raise InputError(f"{out} cannot be written to: {error.strerror or error}") from None
    try:
        path.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


def write_environment(out: Path, study: Study, concurrency: int, seed: int) -> None:
    """Write environment.json: what is needed to repeat the study; chosen keys only, never the environment's secrets."""
    content = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(),
        "device": _device(study),
        "threads": _configured(study, "threads"),
        "concurrency": concurrency,
        "seed": seed,
        "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "git_commit": _git_commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    write_text(out / ENVIRONMENT_FILE, json.dumps(content, indent=1) + "\n")


def drop_leftovers(out: Path) -> None:
    """Delete the half-written files that a killed process left beside the whole ones."""
    for pattern in (".*", f"{TRIALS_FOLDER}/*/.*"):
        for path in out.glob(pattern):
            if _LEFTOVER.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


def set_aside(out: Path, folder: Path) -> Path:
    """Move the folder of a finished trial whose number is given again to ``set_aside/<number>``, or ``-2``, ..."""
    names = (folder.name if count == 1 else f"{folder.name}-{count}" for count in itertools.count(1))
    target = next(path for name in names if not (path := out / SET_ASIDE_FOLDER / name).exists())
    target.parent.mkdir(exist_ok=True)
    return folder.rename(target)


def drop_models(out: Path, keep: str, front: set[int]) -> list[Path]:
    """Delete the trained models that a study does not keep, and return them.

    All go but those of the trials on the ``front``; with ``keep`` ``none`` these, too, and with ``all`` none at all.
    """
    dropped = []
    for name in (MODEL_FILE, BEST_FILE) if keep != "all" else ():
        for path in (out / TRIALS_FOLDER).glob(f"*/{name}"):
            if keep == "none" or int(path.parent.name) not in front:
                path.unlink()
                dropped.append(path)
    return dropped


def study_seed(study: Study) -> int:
    """Return the seed by which a study is repeated."""
    return study.seeds[0] if isinstance(study, AblationStudy) else study.sampler.seed


def _configured(study: Study, key: str) -> Any:
    """Return the value of a key of the run that all trials share; ``by trial`` where they differ."""
    if isinstance(study, AblationStudy):
        changed = [dotted(nested(changes)) for levels in study.factors.values() for changes in levels.values()]
    else:
        changed = [study.space]
    if any(key in keys for keys in changed):
        return "by trial"
    return dotted(nested(study.base)).get(key, RunConfig.model_fields[key].default)


def _device(study: Study) -> Any:
    """Return the device of the trials; for ``auto``, with what this machine makes of it: other nodes may differ."""
    device = study.resources.placed(_configured(study, "device"))
    if device != "auto":
        return device
    from routing.training.seeding import pick_device  # imports torch

    return f"auto ({pick_device('auto').type} on this machine)"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip() or None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
