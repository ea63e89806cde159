"""docs/extending.md as it stands: the worked example runs, in this process and in a Ray worker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from routing.config.plugins import import_plugins
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.files.record import read_metrics

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def example(folder: Path) -> Path:
    """A folder with the files of the page."""
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names = ("my_plugin.py", "my_model.py", "my_routed.py", "my_parts.py", "my_search.py")
    for name, text in zip(names, (text for kind, text in blocks if kind == "python"), strict=True):
        (folder / name).write_text(text)
    names = ("run.yaml", "two_stages.yaml", "glimpses.yaml", "neighbours.yaml")
    for name, text in zip(names, [text for kind, text in blocks if kind == "yaml"][1:], strict=True):
        (folder / name).write_text(text)
    return folder


def routing(*words: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "routing", *words], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_page_as_a_user_follows_it(example: Path) -> None:
    routing("train", "--config", "run.yaml", "--out", "run", cwd=example)
    content = read_metrics(example / "run")
    assert content["metrics"]["routing_ratio"] == 0.25
    assert 0 <= content["metrics"]["val_worst_class_accuracy"] <= content["metrics"]["val_accuracy"]
    assert all("val_worst_class_accuracy" in point for point in content["points"])
    assert "run" in routing("evaluate", "run", cwd=example)


@pytest.mark.slow
def test_the_model_of_the_page(example: Path) -> None:
    few = ("--training.num_epochs", "1", "--dataset.num_train", "512", "--dataset.num_val", "128")
    routing("train", "--config", "two_stages.yaml", *few, "--out", "run", cwd=example)
    points = {str(point["knob_value"]): point for point in read_metrics(example / "run")["points"]}
    always, never = points["0.0"], points["1.0"]
    assert (always["routing_ratio"], never["routing_ratio"]) == (0.0, 1.0)
    assert always["flops"] < points["0.5"]["flops"] <= never["flops"]
    assert always["val_loss"] != never["val_loss"]


PARTS = """
from routing.config.run import RunConfig
from routing.runner import run

training = {"num_epochs": 1, "batch_size": 32}
base = {"plugins": ["my_parts"], "training": training, "seed": 1}
digits, quality = {"num_train": 96, "num_val": 32}, {"name": "quality", "num_train": 64, "num_val": 32}
pruning = {"method": "key_norm", "k_anchors": 2, "top_m": 3}
for model, dataset in (
    ({"name": "vit", "width": 16, "depth": 3, "pruning": pruning}, digits),
    ({"name": "aacn", "backbone": {"name": "separable", "channels": [6, 8]}}, digits),
    ({"name": "hyperiqa", "fusion": {"mode": "loudest"}}, quality),
):
    record = run(RunConfig.from_dict({**base, "model": model, "dataset": dataset}))
    print(model["name"], len(record.points), record.metrics["flops"])
try:
    RunConfig.from_dict({**base, "model": {"name": "vit", "pruning": {"method": "key_nrom"}}})
except Exception as error:
    print(error)
"""


@pytest.mark.slow
def test_the_parts_of_the_page(example: Path) -> None:
    """A run fails where what was executed is not the closed form of its parts."""
    done = subprocess.run([sys.executable, "-c", PARTS], cwd=example, capture_output=True, text=True, timeout=500)
    *runs, refused = done.stdout.splitlines()
    assert [line.split()[0] for line in runs] == ["vit", "aacn", "hyperiqa"], done.stderr
    assert all(int(line.split()[1]) > 1 and float(line.split()[2]) > 0 for line in runs)
    assert "unknown token method 'key_nrom'; did you mean 'key_norm'?" in refused


ROUTERS_OF_ANOTHER_IMAGE = """
from routing.config.registry import ROUTERS
from routing.models.patch.routers import ShareRouter

class Neighbour(ShareRouter):
    def evidence(self, encoded):
        return encoded.scores_BN.detach().roll(1, dims=0)

@ROUTERS.register("neighbour")
class Declared(Neighbour):
    not_shipped = "looks at the image before"

ROUTERS.register("silent_neighbour")(Neighbour)
"""
IN_ONE_PROCESS = """
import json, torch
from pathlib import Path
from analysis.exports.portable import ExportFailed, export_model
from analysis.figures.run import draw_run
from routing.commands.inspection import inspect_run
from routing.config.run import RunConfig
from routing.models import build_model
from routing.runner import run
from routing.saved import SavedRun, load

config = RunConfig.from_yaml("glimpses.yaml")
record = run(config, out=Path("run"))
saved, seen = load("run"), inspect_run(Path("run"), num_samples=5)
images = saved.config.dataset.load()["val"].images[:64]
verified = export_model(saved, images, "torch_export", Path("run"))
refused = {}
for mode in ("neighbour", "silent_neighbour", "brightest"):
    keys = {"model.name": "attention_routing", "model.router.mode": mode, "plugins": ["my_plugin", "other_image"]}
    control = config.replace(**keys)
    torch.manual_seed(0)
    info = control.dataset.info()
    try:
        refused[mode] = export_model(
            SavedRun(control, info, build_model(control.model, info).eval()), images, "torch_export", Path("run")
        ).agreeing
    except ExportFailed as error:
        refused[mode] = str(error)
figures = [path.name for path in draw_run(seen, Path("run/figures"))]
routed = [int(count) for count in seen.samples.routed.sum(1)]
print(json.dumps({
    "certificate": record.certificate, "figures": figures, "routed": routed, "ratio": seen.target_ratio,
    "agreeing": verified.agreeing, "refused": refused,
}))
"""


@pytest.mark.slow
def test_a_model_that_routes_gets_what_ours_get(example: Path) -> None:
    (example / "other_image.py").write_text(ROUTERS_OF_ANOTHER_IMAGE)
    (example / "look.py").write_text(IN_ONE_PROCESS)
    done = subprocess.run([sys.executable, "look.py"], cwd=example, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["certificate"]["rate"] == 0.25
    assert found["certificate"]["state"] in ("healthy", "weak", "anti")
    assert found["certificate"]["score_full"] is not None
    assert found["certificate"]["grad_norm_scores"] > 0
    assert 0 < found["certificate"]["big_share"] < 1
    assert found["certificate"]["saturation"] is None
    assert found["routed"] == [4] * 5
    assert found["ratio"] == 0.25
    assert {"routing_decisions.png", "attention_heatmap.png"} <= set(found["figures"])
    assert found["agreeing"] == 64
    assert found["refused"]["neighbour"] == (
        "'neighbour' looks at the image before: it is a control, not a model to export"
    )
    assert "in another order: it looks at more than the one image" in found["refused"]["silent_neighbour"]
    assert found["refused"]["brightest"] == 64


@pytest.mark.slow
def test_a_study_of_plugins_on_ray(example: Path) -> None:
    """Names of a plugin reach driver, workers and a resumed study: data set, router, metric, sampler, stopping rule."""
    routing("sweep", "neighbours.yaml", "--out", "out", "--concurrency", "1", "--trials", "4", cwd=example)
    again = ("--trials", "7", "--resume")
    printed = routing("sweep", "neighbours.yaml", "--out", "out", "--concurrency", "1", *again, cwd=example)
    assert "val worst-class accuracy" in printed.split("Front of")[1]
    trials = pd.read_csv(example / "out" / "trials.csv")
    assert len(trials) == 7
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert set(trials["model.router.mode"]) == {"brightest"}
    complete = trials[trials["state"] == "COMPLETE"]
    assert complete["val_worst_class_accuracy"].notna().all()
    stopped = trials[trials["state"] == "PRUNED"]
    assert (stopped["rank"] >= 1).all()
    for number in range(3, 7):  # two keys, one of them that of the best trial before
        before, keys = complete[complete["number"] < number - 1], ["model.router.temperature", "training.learning_rate"]
        kept = trials.loc[trials["number"] == number, keys].iloc[0]
        assert any((before[key] == kept[key]).any() for key in keys), f"trial {number} is no neighbour"


@pytest.mark.slow
def test_options_and_names_of_a_plugin_are_checked(example: Path) -> None:
    """In one line, with what would be valid."""
    text, messages = (example / "neighbours.yaml").read_text(), []
    for number, (old, new, message) in enumerate(
        [
            ("startup: 2", "start: 2", "sampler neighbour has no option 'start'; did you mean 'startup'?"),
            ("startup: 2", "startup: 0", "sampler option startup: input should be greater than or equal to 1, not 0"),
            ("neighbour,", "neighbor,", "sampler.name: unknown sampler 'neighbor'; did you mean 'neighbour'?"),
            ("rank_sum", "ranksum", "scheduler.name: unknown stopping rule 'ranksum'; did you mean 'rank_sum'?"),
            ("goal: maximize", "goal: minimize", "val_worst_class_accuracy is better the other way: goal: maximize"),
            ("reference: 0.0", "reference: 30", "worst-class accuracies are shares: 0.3"),
        ]
    ):
        (example / f"wrong{number}.yaml").write_text(text.replace(old, new))
        messages.append(message)
    code = """
from search_spaces import load_study
for number in range(6):
    try:
        load_study(f"wrong{number}.yaml")
    except Exception as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=example, capture_output=True, text=True, timeout=300)
    found = done.stdout.splitlines()
    assert len(found) == 6, done.stderr
    for line, message in zip(found, messages, strict=True):
        assert message in line


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["no_such_module"], "'no_such_module' cannot be imported: no module 'no_such_module'"),
        (["my_plugin.py"], r"'my_plugin\.py' is not the name of a Python module; write my_plugin"),
        ([3], "3 is not the name of a Python module"),
        ("os; import sys", "is not the name of a Python module"),
        (["broken_plugin"], r"'broken_plugin' cannot be imported: ZeroDivisionError: division by zero"),
        (["needs_more"], "'needs_more' cannot be imported: no module 'not_installed'"),
        (["json"], "'json' is a module of Python or a program, not a plugin"),
        (["unittest.__main__"], "not a plugin"),
        (["pytest.__main__"], "not a plugin"),
        (["leaves"], "'leaves' cannot be imported: SystemExit: 3"),
        (["taken"], "router mode 'top_k' is registered already"),
        (["of_old"], "routing.registry is now routing.config.registry; import from there"),
        (["of_old_too"], "routing.config is now routing.config.run; import from there"),
    ],
)
def test_plugins_that_cannot_be(plugins: object, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "broken_plugin.py").write_text("1 / 0\n")
    (folder / "needs_more.py").write_text("import not_installed\n")
    (folder / "taken.py").write_text("from routing.config.registry import ROUTERS\nROUTERS.register('top_k')(object)\n")
    (folder / "leaves.py").write_text("raise SystemExit(3)\n")
    (folder / "of_old.py").write_text("from routing.registry import ROUTERS\n")
    (folder / "of_old_too.py").write_text("from routing.config import RunConfig\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(InputError, match=message) as error:
        RunConfig.from_dict({"plugins": plugins})
    assert "\n" not in str(error.value)


def test_none_and_known_modules_are_fine() -> None:
    import_plugins(None)
    import_plugins(["yaml"])
    assert RunConfig.from_dict({"plugins": ["yaml"]}).plugins == ("yaml",)
