"""Several runs side by side, though their scores and maps have different units.

A map's values are compared by how rare they are among the pixels of the run's own held-out normal
images, scores by their p-values and ranks; curves and kinds of defects by the same test images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import rankdata, spearmanr

from labkit.evaluation.calibration import Calibration
from labkit.figures import style
from labkit.figures.style import ANOMALOUS, INK, NORMAL, TYPE, dress, new_figure

KNOTS = {"0.5": np.log10(2.0), "0.99": 2.0, "0.999": 3.0}  # quantile -> -log10 of the rest
RARITY = "rarity r: one normal pixel in 10ʳ has a larger value"
RARE = (0.0, 6.0)  # of the colours: the middle is what one normal pixel in a thousand exceeds


def rarity(values: np.ndarray, quantiles: Mapping[str, float]) -> np.ndarray:
    """How rare a map's values are among pixels of held-out normal images.

    r(v) = -log10 P(normal pixel > v)

    Straight between the calibration's quantiles 0.5, 0.99 and 0.999, and on beyond them with the
    last slope, as an exponential tail has: above 3 it is an extrapolation. It ascends strictly, so
    a map's order of pixels stays.

    Args:   quantiles: of one map, `Calibration.map_quantiles[name]`.
    Raises: ValueError if a quantile is missing.
    """
    missing = [q for q in KNOTS if q not in quantiles]
    if missing:
        raise ValueError(f"the calibration has no quantile {', '.join(missing)}; train it again")
    x, y = np.array([quantiles[q] for q in KNOTS]), np.array(list(KNOTS.values()))
    least = 1e-9 * max(1.0, float(np.abs(x).max()))  # where quantiles coincide
    x = x + least * np.arange(len(x))
    slopes = np.diff(y) / np.diff(x)
    v = np.asarray(values, np.float64)
    inside = np.interp(v, x, y)
    return inside + np.minimum(v - x[0], 0) * slopes[0] + np.maximum(v - x[-1], 0) * slopes[-1]


def shared(first: pd.DataFrame, second: pd.DataFrame, false_alarm: float = 0.05) -> pd.DataFrame:
    """Test images that two runs have in common: key, defect, label, and each run's numbers.

    rank_*      place of the score among these images, in [0, 1]; ties share the mean
    quantile_*  share of the run's own calibration scores below, in [0, 1]
    unusual_*   whether the p-value is at most `false_alarm`, or the smallest its calibration has
    gap         rank_1 - rank_2, the distance from the diagonal of `scatter_figure`

    Args:   tables as `Run.scores`, all splits.
    Raises: ValueError if they have no test image in common.
    """
    parts = []
    for k, table in enumerate((first, second), start=1):
        test = table[table["split"] == "test"].set_index("key")
        facts = test[["defect", "label"]] if k == 1 else test[[]]
        calibration = Calibration(table.loc[table["split"] == "calibration", "score"].to_numpy())
        calibrated = calibration.rank(test["score"].to_numpy())
        unusual = calibrated.p_value <= max(false_alarm, calibration.smallest)
        columns = {"score": test["score"], "quantile": calibrated.quantile, "unusual": unusual}
        parts.append(facts.assign(**{f"{name}_{k}": v for name, v in columns.items()}))
    both = parts[0].join(parts[1], how="inner").reset_index()
    if both.empty:
        raise ValueError("The runs have no test image in common; choose runs of one dataset.")
    for k in (1, 2):
        both[f"rank_{k}"] = (rankdata(both[f"score_{k}"]) - 0.5) / len(both)
    both["gap"] = both["rank_1"] - both["rank_2"]
    return both


def disagreements(both: pd.DataFrame, count: int = 8) -> pd.DataFrame:
    """The images whose ranks differ most, the largest difference first."""
    order = both["gap"].abs().sort_values(ascending=False, kind="stable").index
    return both.loc[order[:count]].reset_index(drop=True)


def agreement(both: pd.DataFrame) -> float:
    """Spearman's rank correlation of two runs' scores of the same images, in [-1, 1]."""
    return float(spearmanr(both["score_1"], both["score_2"]).statistic)


def scatter_figure(
    both: pd.DataFrame, names: Sequence[str], marked: pd.DataFrame, note: str | None = None
) -> Figure:
    """Ranks of the same test images under two runs; images on the diagonal are agreed on.

    Args: both: `shared`; marked: `disagreements`, numbered from 1.
    """
    figure = new_figure(5.6, 5.0, note)
    ax = figure.subplots()
    dress(ax, *(f"{name}: rank among the test images [%]" for name in names))
    ax.axline((0, 0), slope=1, **style.DASHED)
    for label, colour, name in ((0, NORMAL, "good"), (1, ANOMALOUS, "defective")):
        rows = both[both["label"] == label]
        dots = {"color": colour, "alpha": 0.6, "label": f"{name} (n = {len(rows)})"}
        ax.plot(100 * rows["rank_1"], 100 * rows["rank_2"], "o", ms=4.5, mew=0, **dots)
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    for k, row in enumerate(marked.itertuples(), start=1):
        place = (100 * row.rank_1, 100 * row.rank_2)
        ax.plot(*place, "o", markersize=9, markerfacecolor="none", markeredgecolor=INK, label="_")
        number = {"textcoords": "offset points", "fontsize": TYPE, "color": INK, "bbox": box}
        ax.annotate(str(k), place, (7, 5), **number)
    ax.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
    style.legend(figure, ax.lines[1:3])
    return figure
