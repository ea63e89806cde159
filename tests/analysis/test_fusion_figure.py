"""Mean fusion weights: over images of one run, over runs where there are several; files; what cannot be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.fusion import analyze_fusion, mean_weights
from routing.config.run import RunConfig
from routing.errors import InputError
from routing.runner import run
from routing.saved import load


def rows(run_name: str, weights: list[float], mode: str = "attention") -> list[dict[str, Any]]:
    return [{"run": run_name, "mode": mode, "group": "blur", "stage": 1, "weight": weight} for weight in weights]


def test_one_run_is_an_interval_over_images() -> None:
    found = mean_weights(pd.DataFrame(rows("a", [0.1, 0.2, 0.3]))).iloc[0]
    # mean 0.2, deviation 0.1, t(0.975, 2) = 4.3027: half width 4.3027 * 0.1 / sqrt(3)
    assert found["weight"] == pytest.approx(0.2)
    assert found["high"] - found["weight"] == pytest.approx(0.24841, abs=1e-4)
    assert (found["runs"], found["images"]) == (1, 3)


def test_several_runs_are_an_interval_over_their_means() -> None:
    found = mean_weights(pd.DataFrame(rows("a", [0.1, 0.3]) + rows("b", [0.5, 0.7]))).iloc[0]
    # means 0.2 and 0.6: mean 0.4, deviation 0.2828, t(0.975, 1) = 12.706
    assert found["weight"] == pytest.approx(0.4)
    assert found["high"] - found["weight"] == pytest.approx(12.7062 * 0.2, abs=1e-3)
    assert (found["runs"], found["images"]) == (2, 2)


def trained(config: dict[str, Any], out: Path, **keys: Any) -> Path:
    run(RunConfig.from_dict({**config, **{key.replace("__", "."): value for key, value in keys.items()}}), out=out)
    return out


def test_a_run_and_a_results_folder(tiny_quality: dict[str, Any], tmp_path: Path) -> None:
    for index, mode in enumerate(("attention", "spatial", "concat")):
        trained(tiny_quality, tmp_path / "trials" / str(index), model__fusion__mode=mode)
    summary = analyze_fusion([tmp_path])
    table = summary.table
    assert set(zip(table["mode"], table["group"], table["stage"], strict=True)) == {
        (mode, group, stage)
        for mode in ("attention", "spatial")
        for group in ("blur", "jpeg", "colour", "noise")
        for stage in (1, 2, 3, 4)
    }
    sums = table[table["mode"] == "attention"].groupby("group")["weight"].sum()
    assert sums.to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert set(table["images"]) == {20}
    assert [path.name for path in summary.files] == [
        "fusion_weights.csv", "fusion_weights_per_image.csv", "fusion_weights.png",
    ]  # fmt: skip
    images = pd.read_csv(summary.files[1])
    assert len(images) == 2 * 80
    assert images.filter(like="weight_")[images["mode"] == "attention"].sum(axis=1).to_numpy() == pytest.approx(1)
    first = images[images["run"].str.endswith("0")]
    saved = load(tmp_path / "trials" / "0")
    split = saved.config.dataset.load()["val"]
    assert first["score"].to_numpy() == pytest.approx(split.targets.numpy())
    assert first["prediction"].to_numpy() == pytest.approx(
        saved.predict(split.images[:]).prediction.detach().numpy(), abs=1e-5
    )
    means = first.groupby("group")["weight_2"].mean()
    shown = table[(table["mode"] == "attention") & (table["stage"] == 2)].set_index("group")["weight"]
    assert means.to_dict() == pytest.approx(shown.to_dict())
    before = summary.files[0].read_bytes()
    other = analyze_fusion([tmp_path], split="test")
    assert [path.name for path in other.files] == [
        "fusion_weights_test.csv", "fusion_weights_test_per_image.csv", "fusion_weights_test.png",
    ]  # fmt: skip
    assert summary.files[0].read_bytes() == before
    assert all(path.stat().st_size > 0 for path in summary.files)
    alone = analyze_fusion([tmp_path / "trials" / "0"], tmp_path / "out", formats=("svg",))
    assert alone.files[2] == tmp_path / "out" / "fusion_weights.svg"
    assert len(alone.rows()) == 16


def test_fixed_weights_are_not_drawn(tiny_quality: dict[str, Any], tmp_path: Path) -> None:
    folder = trained(tiny_quality, tmp_path / "trials" / "0", model__fusion__mode="concat")
    with pytest.raises(InputError, match=r"model.fusion.mode 'concat' learns no weights of stages"):
        analyze_fusion([folder])
    with pytest.raises(InputError, match="no kept trial of hyperiqa with a learned fusion"):
        analyze_fusion([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        analyze_fusion([tmp_path / "nowhere"])
