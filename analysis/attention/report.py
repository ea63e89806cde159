"""The report of an attention analysis: every sentence is computed, with its numbers, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analysis.attention.hiding import HALF, HidingCurves
from analysis.attention.statistics import LayerStatistics
from analysis.words.words import count as short_count
from routing.intervals import Interval, mean_interval, share_interval

MANY_HEADS = 8


@dataclass(frozen=True)
class PruningEffect:
    """Effect of a pruning setting on the same images: correctness (M,) before and after, and what was kept."""

    setting: str
    correct_before: np.ndarray
    correct_after: np.ndarray
    same_prediction: float
    attention_kept: np.ndarray
    kept_tokens: int
    all_tokens: int
    flops_before: float
    flops_after: float


@dataclass(frozen=True)
class AttentionFacts:
    """Everything the report says something about; ``half_hidden`` as ``hiding.half_hidden`` returns it.

    Without labels (``labelled`` False) an image counts as correct where the prediction is that of the whole image.
    """

    title: str
    where: str
    labelled: bool
    correct: np.ndarray
    layers: Sequence[LayerStatistics]
    inner: Sequence[LayerStatistics]
    hiding: HidingCurves
    hiding_layer: str
    half_hidden: Mapping[str, tuple[np.ndarray, np.ndarray]]
    pruning: PruningEffect | None
    random_weights: bool


def report(facts: AttentionFacts) -> str:
    """Return the report as Markdown."""
    lines = [f"# Attention analysis: {facts.title}", ""]
    if facts.random_weights:
        lines += ["**Random weights: nothing here says anything about a trained model.**", ""]
    lines += [f"{_images(facts)} Intervals are 95 %, over images.", ""]
    lines += [
        *_focus(facts.layers),
        *_heads(facts.layers),
        *_distance(facts.layers),
        *(_inner(facts.inner) if facts.inner else []),
        *_hiding(facts.hiding, facts.hiding_layer),
        *(_by_layer(facts.half_hidden, facts.hiding) if facts.half_hidden else []),
        *(_pruning(facts.pruning) if facts.pruning is not None else []),
    ]
    return "\n".join(lines) + "\n"


def _images(facts: AttentionFacts) -> str:
    if not facts.labelled:
        return (
            f"{len(facts.correct)} images from {facts.where}, whose labels are not known: accuracy below is the share "
            "of images whose prediction is that of the whole image."
        )
    accuracy = share_interval(float(facts.correct.mean()), len(facts.correct))
    return f"{len(facts.correct)} images of {facts.where}. Accuracy on them: {_percent(accuracy)}."


def _inner(layers: Sequence[LayerStatistics]) -> list[str]:
    """Describe the self-attention inside a model whose prediction uses another map."""
    lines = [
        "## Self-attention inside",
        "",
        "The maps above pool the features and keep positions. Self-attention only mixes positions before they are "
        "scored; the prediction does not read it.",
        "",
    ]
    return [*lines, *(line.replace("## ", "### ") for line in (*_focus(layers), *_heads(layers), *_distance(layers)))]


def _by_layer(half: Mapping[str, tuple[np.ndarray, np.ndarray]], curves: HidingCurves) -> list[str]:
    share = 100 * curves.shares[HALF]
    at_random = share_interval(float(curves.deletion_random[HALF].mean()), curves.deletion_random.shape[1])
    lines = [
        f"With {share:.0f} % of the patches hidden in the order of each layer (at random: {_percent(at_random)}):",
        "",
        "| layer | most attended hidden | least attended hidden |",
        "|---|---|---|",
    ]
    for name, (most, least) in half.items():
        intervals = [share_interval(float(values.mean()), len(values)) for values in (most, least)]
        lines.append(f"| {name} | {_percent(intervals[0])} | {_percent(intervals[1])} |")
    return [*lines, ""]


def _apart(first: Interval, second: Interval) -> bool:
    """Return whether two intervals do not overlap; those of a single image have no bounds."""
    return first.high < second.low or second.high < first.low


def _focus(layers: Sequence[LayerStatistics]) -> list[str]:
    means = [mean_interval(layer.entropy.mean(axis=1)) for layer in layers]
    several = layers[0].entropy.shape[1] > 1
    lines = [
        "## How focused attention is",
        "",
        "Entropy of a row of attention as a share of its maximum (0: one token, 1: uniform), mean over queries.",
        "",
        "| layer | entropy, mean of heads | most focused head | least focused head | highest share on one patch |"
        if several
        else "| layer | entropy | highest share on one patch |",
        "|---|---|---|---|---|" if several else "|---|---|---|",
    ]
    for layer, mean in zip(layers, means, strict=True):
        heads = [mean_interval(layer.entropy[:, head]) for head in range(layer.entropy.shape[1])]
        order = np.argsort([head.mean for head in heads])
        peak = mean_interval(layer.peak.mean(axis=1))
        ends = ""
        if several:
            ends = f"{order[0]}: {_number(heads[order[0]])} | {order[-1]}: {_number(heads[order[-1]])} | "
        lines.append(f"| {layer.name} | {_number(mean)} | {ends}{_number(peak)} |")
    lines.append("")
    if len(layers) > 1:
        order = np.argsort([mean.mean for mean in means])
        low, high = order[0], order[-1]
        change = mean_interval(layers[-1].entropy.mean(axis=1) - layers[0].entropy.mean(axis=1))
        sentences = (
            f"Attention is most focused in {layers[low].name} (entropy {means[low].mean:.3f}) and least in "
            f"{layers[high].name} ({means[high].mean:.3f})."
            if _apart(means[low], means[high])
            else "No layer is more focused than another: their intervals overlap."
        )
        if change.low > 0 or change.high < 0:
            sentences += (
                f" From {layers[0].name} to {layers[-1].name} entropy {_moves(change)} by {_number(_absolute(change))}."
            )
        lines += [sentences, ""]
    return lines


def _heads(layers: Sequence[LayerStatistics]) -> list[str]:
    if layers[0].similarity.shape[0] < 2:
        return []
    lines = ["## How alike the heads are", "", "Cosine between the heads' attention to patches, mean over images.", ""]
    most: tuple[float, str] = (-1.0, "")
    for layer in layers:
        pairs = {pair: float(layer.similarity[pair]) for pair in combinations(range(len(layer.similarity)), 2)}
        pair = max(pairs, key=lambda p: pairs[p])
        most = max(most, (pairs[pair], f"heads {pair[0]} and {pair[1]} of {layer.name}"))
        if len(layer.similarity) <= MANY_HEADS:
            lines += _matrix(layer)
    agreement = [mean_interval(layer.agreement) for layer in layers]
    order = np.argsort([one.mean for one in agreement])
    apart, alike = int(order[0]), int(order[-1])
    where = "" if len(layers[0].similarity) <= MANY_HEADS else " All matrices are in `attention_head_similarity.csv`."
    if len(layers) > 1 and _apart(agreement[alike], agreement[apart]):
        lines.append(
            f"Heads agree on average most in {layers[alike].name} ({agreement[alike].mean:.3f}) and least in "
            f"{layers[apart].name} ({agreement[apart].mean:.3f})."
        )
    lines += [f"The two most alike are {most[1]} ({most[0]:.3f}).{where}", ""]
    return lines


def _matrix(layer: LayerStatistics) -> list[str]:
    heads = range(len(layer.similarity))
    rows = [[f"{layer.similarity[row, column]:.3f}" for column in heads] for row in heads]
    return [
        f"| {layer.name} | " + " | ".join(str(head) for head in heads) + " |",
        "|---" * (len(heads) + 1) + "|",
        *(f"| {head} | " + " | ".join(row) + " |" for head, row in zip(heads, rows, strict=True)),
        "",
    ]


def _distance(layers: Sequence[LayerStatistics]) -> list[str]:
    far = [(layer, mean_interval(layer.distance.mean(axis=1))) for layer in layers if layer.distance is not None]
    if not far:
        return []
    lines = [
        "## How far attention reaches",
        "",
        "| layer | mean distance in patches | of uniform attention's |",
        "|---|---|---|",
    ]
    lines += [
        f"| {layer.name} | {_number(mean)} | {mean.mean / layer.uniform_distance:.2f} of {layer.uniform_distance:.3f} |"
        for layer, mean in far
    ]
    ratios = [mean.mean / layer.uniform_distance for layer, mean in far]
    near = int(np.argmin(ratios))
    nearest, farthest = far[near][1], far[int(np.argmax(ratios))][1]
    if len(far) < 2 or not _apart(nearest, farthest):
        return [*lines, ""]
    lines += [
        "",
        f"The most local layer is {far[near][0].name}: {far[near][1].mean:.2f} patches, {100 * ratios[near]:.0f} % of "
        "what uniform attention has.",
        "",
    ]
    return lines


def _hiding(curves: HidingCurves, layer: str) -> list[str]:
    accuracy = curves.curves()
    names = ("deletion_most", "deletion_least", "deletion_random", "insertion_most", "insertion_random")
    heads = ("hide most attended", "hide least attended", "hide at random", "show most attended", "show at random")
    lines = [
        "## Whether attention is where the evidence is",
        "",
        f"Patches in the order of the attention of {layer}, heads averaged; a hidden patch is set to the data's mean.",
        "",
        "| patches hidden | " + " | ".join(heads[:3]) + " | patches shown | " + " | ".join(heads[3:]) + " |",
        "|---" * (len(names) + 2) + "|",
        *(_hiding_row(curves, names, accuracy, row) for row in range(len(curves.shares))),
        "| area under the curve | "
        + " | ".join(f"{curves.area(name):.3f}" for name in names[:3])
        + " | | "
        + " | ".join(f"{curves.area(name):.3f}" for name in names[3:])
        + " |",
        "",
    ]
    gap = mean_interval(curves.deletion_random[HALF] - curves.deletion_most[HALF])
    spare = mean_interval(curves.deletion_least[HALF] - curves.deletion_random[HALF])
    return [
        *lines,
        f"With {100 * curves.shares[HALF]:.0f} % of the patches hidden, hiding the most attended costs {_points(gap)} "
        f"points of accuracy more than hiding at random, and hiding the least attended keeps {_points(spare)} points "
        f"more. {_verdict(gap)}",
        "",
    ]


def _hiding_row(curves: HidingCurves, names: Sequence[str], accuracy: Mapping[str, np.ndarray], row: int) -> str:
    """Return one row: the shares that were really hidden and shown, which are whole patches."""
    values = [f"{100 * accuracy[name][row]:.1f} %" for name in names]
    shares = [f"{100 * curves.shares_of(name)[row]:.0f} %" for name in (names[0], names[-1])]
    return "| " + " | ".join([shares[0], *values[:3], shares[1], *values[3:]]) + " |"


def _verdict(gap: Interval) -> str:
    if gap.low > 0:
        return "So this attention does mark patches that the prediction needs."
    if gap.high < 0:
        return "So this attention marks patches that the prediction needs less than others."
    return "So on these images this attention cannot be told from chance."


def _pruning(effect: PruningEffect) -> list[str]:
    count = len(effect.correct_before)
    before = share_interval(float(effect.correct_before.mean()), count)
    after = share_interval(float(effect.correct_after.mean()), count)
    change = mean_interval(effect.correct_after.astype(float) - effect.correct_before.astype(float))
    kept = mean_interval(effect.attention_kept)
    share = (effect.kept_tokens - 1) / (effect.all_tokens - 1)
    more = kept.mean / share
    return [
        "## Before and after token pruning",
        "",
        f"Setting: {effect.setting}. {effect.kept_tokens} of {effect.all_tokens} tokens are kept, CLS included; "
        f"multiply-adds per image: {short_count(effect.flops_before)} before, {short_count(effect.flops_after)} after "
        f"({effect.flops_after / effect.flops_before:.2f}).",
        "",
        f"Accuracy {_percent(before)} before, {_percent(after)} after: {_signed(change)} points. The prediction is "
        f"the same on {100 * effect.same_prediction:.1f} % of the images. The kept patches ({100 * share:.0f} % of "
        f"all) held {_number(kept)} of CLS's attention to patches where they were chosen, {more:.1f} times their "
        "number.",
        "",
    ]


def _number(value: Interval) -> str:
    return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"


def _percent(value: Interval) -> str:
    return f"{100 * value.mean:.1f} % ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _points(value: Interval) -> str:
    return f"{100 * value.mean:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def _signed(value: Interval) -> str:
    return f"{100 * value.mean:+.1f} ({100 * value.low:+.1f} to {100 * value.high:+.1f})"


def _absolute(value: Interval) -> Interval:
    return value if value.mean >= 0 else Interval(-value.mean, -value.high, -value.low)


def _moves(change: Interval) -> str:
    if change.low > 0:
        return "rises"
    return "falls" if change.high < 0 else "changes, within its interval,"
