"""Several runs side by side, though their scores and maps have different units.

A map's values are compared by how rare they are among the pixels of the run's own held-out normal
images, scores by their p-values and ranks; curves and kinds of defects by the same test images.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.interpolate import interp1d
from scipy.stats import rankdata, spearmanr

from labkit.evaluation.calibration import Calibration
from labkit.figures.plots import scatter_groups
from labkit.figures.style import INK, TYPE

KNOTS = {"0.5": np.log10(2.0), "0.99": 2.0, "0.999": 3.0}  # quantile -> -log10 of the rest
FALSE_ALARM = 0.05
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
    return interp1d(x, y, fill_value="extrapolate")(np.asarray(values, np.float64))


def shared(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Test images that two runs have in common: key, defect, label, and each run's numbers.

    score_*     as the run has it
    rank_*      place of the score among these images, in [0, 1]; ties share the mean
    unusual_*   whether the p-value is at most 5 %, or the smallest that its calibration has
    gap         rank_1 - rank_2, the distance from the diagonal of `scatter_figure`

    Args:   tables as `Run.scores`, all splits.
    Raises: ValueError if they have no test image in common.
    """
    parts = []
    for k, table in enumerate((first, second), start=1):
        test = table[table["split"] == "test"].set_index("key")
        calibration = Calibration(table.loc[table["split"] == "calibration", "score"].to_numpy())
        p_values = calibration.rank(test["score"].to_numpy()).p_value
        unusual = p_values <= max(FALSE_ALARM, calibration.smallest)
        facts = test[["defect", "label"]] if k == 1 else test[[]]
        parts.append(facts.assign(**{f"score_{k}": test["score"], f"unusual_{k}": unusual}))
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
    labels = tuple(f"{name}: rank among the test images [%]" for name in names)
    groups = {("good", "defective")[label]: 100 * rows[["rank_1", "rank_2"]].to_numpy()
              for label, rows in both.groupby("label")}  # fmt: skip
    figure = scatter_groups(groups, labels, "the same rank", note)
    box = {"boxstyle": "round,pad=0.12", "facecolor": "white", "edgecolor": "none", "alpha": 0.75}
    for k, row in enumerate(marked.itertuples(), start=1):
        place = (100 * row.rank_1, 100 * row.rank_2)
        ring = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": INK}
        figure.axes[0].plot(*place, "o", **ring)
        number = {"textcoords": "offset points", "fontsize": TYPE, "color": INK, "bbox": box}
        figure.axes[0].annotate(str(k), place, (7, 5), **number)
    return figure
