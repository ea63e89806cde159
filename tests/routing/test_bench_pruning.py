"""The pruning benchmark: one row per setting, ratios that follow from the times."""

from __future__ import annotations

import pytest

from routing.bench import pruning as bench


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_rows_of_the_benchmark(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(bench.ARCHITECTURES, "tiny", (16, 2))
    methods = ("importance_diversity", "evit", "dynamicvit")
    rows = list(bench.bench_pruning(["tiny"], [2, 1], [precision], methods, rounds=2))
    assert [(row["batch_size"], row["method"], row["n"]) for row in rows] == [
        (2, "importance_diversity", 2),
        (2, "evit", 2),
        (2, "dynamicvit", 2),
        (1, "importance_diversity", 4),
        (1, "evit", 4),
        (1, "dynamicvit", 4),
    ]
    for row in rows:
        assert set(row) == set(bench.COLUMNS)
        # EViT: 98 of 196 and the fused one, 50 of 99 and one, 26 of 51 and one, and CLS
        tokens = {"importance_diversity": 61, "evit": 28, "dynamicvit": 1 + 25}[row["method"]]
        assert row["tokens"] == f"{tokens} of 197"
        assert row["theoretical"] > 1.5
        assert row["ratio"] == pytest.approx(row["realised"] / row["theoretical"])


def test_milliseconds_are_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.ARCHITECTURES, "tiny", (16, 2))
    times = {"unpruned": [1.0, 4.0, 6.0], "merge": [0.5, 2.0, 9.0]}
    monkeypatch.setattr(bench, "interleaved", lambda *_: times)
    [row] = bench.bench_pruning(["tiny"], [2], ["fp32"], ("merge",))
    assert (row["ms_per_image"], row["ms_per_image_unpruned"]) == (1000, 2000)


def test_theoretical_speed_up_by_hand() -> None:
    """ViT-S/16, 61 of 197 tokens from the second block: two thirds of the compute are saved, the choice included."""
    t, kept, d, m = 197, 61, 384, 1536

    def block(tokens: int) -> int:
        return tokens * d * (4 * d + 2 * m) + 2 * tokens**2 * d

    ends = 196 * 768 * d + d * 1000
    choice = t * d * d + 11 * (d * d + t * d) + 10 * t * d
    model = bench._model("vit_s_16")
    cost = model.cost_at(bench.Pruning(bench.SELECTION, bench.START_LAYER))
    assert cost == ends + block(t) + choice + 11 * block(kept)
    assert model.dense_flops / cost == pytest.approx(2.725, abs=5e-4)
