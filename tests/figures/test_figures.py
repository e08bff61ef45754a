"""Figures are judged by their artists: roles, units, shared scales, marks, and no pyplot."""

import io
import subprocess
import sys
from itertools import pairwise

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch
from artists import IMAGE, MAPS, RNG, bars, legend, panels
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from labkit import figures
from labkit.evaluation import metrics
from labkit.figures import plots, style

AXES = ("x [1]", "y [1]")
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3, 4, 5],
        "stage": ["reconstruction"] * 2 + ["likelihood"] * 3,
        "loss": [3.0, 2.0, 1.5, 1.2, 1.1],
        "of_self": [2.0, 1.0, np.nan, np.nan, np.nan],
        "scale1": [np.nan, np.nan, 1.5, 1.2, 1.1],
        "lr": 1e-3,
        "seconds": 1.0,
    }
)


def everything(note=None):
    calibration = RNG.normal(size=30)
    pixels = metrics.PixelMetrics()
    pixels.update(RNG.random((20, 20)), np.eye(20))
    return {
        "overlay": figures.overlay(IMAGE, MAPS, (0, 1), note=note),
        "map_grid": figures.map_grid([IMAGE], {"fused": [MAPS["fused"]]}, (0, 1), note=note),
        "histogram": figures.score_histogram(calibration, calibration, [], note=note),
        "curves": figures.curves([0, 1], [0.1, 0.2], pixels.pro_curve(), note=note),
        "training": figures.training_curves(HISTORY, note=note),
        "latent": figures.latent_histogram(torch.randn(2, 3, 4, 4), note=note),
        "lines": figures.lines([1, 2], {"a": [1, 2]}, ("x [1]", "y [1]"), note=note),
        "strip": figures.strip({"good": [IMAGE, MAPS["local"]]}, unit=style.MAP_UNIT, note=note),
    }


@pytest.mark.parametrize("name", everything())
def test_every_axis_has_a_unit_and_the_note_is_grey_and_alone(name):
    note = figures.caption("elpv/mono", "efficientnet_lite0", "laptop", [0, 1, 2])
    figure = everything(note)[name]
    assert type(figure) is Figure
    for ax in panels(figure):
        if ax.images or not ax.axison:
            continue
        assert "[" in ax.get_ylabel() or name == "training", ax
        assert "[" in ax.get_xlabel()
    for bar in bars(figure):
        assert "[nats per channel]" in (bar.get_ylabel() + bar.get_xlabel()).replace("\n", " ")
    (written,) = (text for text in figure.texts if text.get_text().replace("\n", " ") == note)
    assert to_hex(written.get_color()) == style.QUIET
    figure.draw_without_rendering()
    box = written.get_window_extent()
    others = [ax.get_tightbbox() for ax in figure.axes if ax.get_visible()]
    assert not any(box.overlaps(other) for other in others)
    assert figure.bbox.containsx(box.x1)
    written = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert min(text.get_fontsize() for text in written) >= 12


@pytest.mark.parametrize("name", everything())
def test_a_notebook_shows_each_figure_by_itself(name):
    formatter = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    data, _ = formatter.DisplayFormatter().format(everything()[name])
    mime = "image/jpeg" if name in ("overlay", "map_grid", "strip") else "image/png"
    assert mime in data
    size = Image.open(io.BytesIO(data[mime])).size
    assert size[0] >= 300


def test_pyplot_is_neither_imported_nor_given_figures():
    code = """
import sys, numpy as np
from labkit import figures
figure = figures.overlay(np.zeros((20, 20, 3), np.uint8), {"m": np.eye(4)}, (0, 1), threshold=0.5)
figures.latent_histogram(np.zeros(4)).savefig("/dev/null", format="png")
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = dict(matplotlib.rcParams)
    everything()
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: figures.training_curves(pd.DataFrame({"epoch": [1]})), "no loss term"),
        (lambda: figures.latent_histogram(np.zeros(0)), "z is empty"),
        (lambda: figures.scatter_groups({}, AXES), "group"),
        (lambda: figures.scatter_groups({"a": np.zeros((0, 2))}, AXES), "group"),
        (lambda: figures.scatter_groups({"a": np.zeros((3, 3))}, AXES), "group"),
        (lambda: figures.scatter_groups({"a": np.full((1, 2), np.nan)}, AXES), "finite"),
    ],
)
def test_bad_input_is_named(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_the_histogram_has_three_groups_in_shared_bins_and_both_marks():
    good, bad = RNG.normal(size=50), RNG.normal(3, 1, size=80)
    figure = figures.score_histogram(good[:20], good, bad, own=2.5, threshold=1.25)
    (ax,) = figure.axes
    groups = ["held-out normal (n = 20)", "test normal (n = 50)", "test defective (n = 80)"]
    assert legend(figure) == [*groups, "threshold 1.25", "this image 2.5"]
    edges = [step.get_data().edges for step in ax.patches]
    assert all(np.array_equal(edges[0], other) for other in edges)
    assert [step.get_data().values.sum() for step in ax.patches] == pytest.approx([100] * 3)
    colours = [to_hex(step.get_facecolor()) for step in ax.patches]
    assert colours == [style.NORMAL.lower()] * 2 + [style.ANOMALOUS.lower()]
    dashed, own = ax.lines
    assert (dashed.get_xdata()[0], dashed.get_linestyle()) == (1.25, "--")
    assert own.get_xdata()[0] == 2.5


def test_extreme_defects_do_not_squash_the_normal_range():
    normal, bad = RNG.normal(size=50), np.concatenate([RNG.normal(3, 1, size=99), [1e4]])
    (ax,) = figures.score_histogram(normal, [], bad).axes
    left, right = ax.transData.transform([(normal.min(), 0), (normal.max(), 0)])[:, 0]
    assert right - left > 0.15 * ax.bbox.width
    shares = ax.patches[-1].get_data()
    assert shares.values.sum() == pytest.approx(100)  # the extreme one is in a bin of its own
    assert shares.edges[-1] > 1e4


@pytest.mark.parametrize(("centre", "scale", "size"), [(0, 1, 1), (0, 1e-3, 1e4), (40, 1, 2)])
def test_labels_of_scores_do_not_overlap(centre, scale, size):
    good, bad = RNG.normal(centre, scale, 50), RNG.normal(centre + size, scale + size, 99)
    figure = figures.score_histogram(good, good, bad)
    figure.draw_without_rendering()
    boxes = [tick.label1.get_window_extent() for tick in figure.axes[0].xaxis.get_major_ticks()]
    assert len(boxes) >= 2
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("own", [None, 1.0])
def test_a_histogram_of_nothing_says_so(own):
    figure = figures.score_histogram([], [], [], own=own, threshold=np.inf)
    assert "no scores yet" in [text.get_text() for text in figure.axes[0].texts]
    assert not any(line.get_linestyle() == "--" for line in figure.axes[0].lines)
    figure.savefig(io.BytesIO(), format="png")


def test_curves_name_their_areas():
    labels, scores = np.arange(60) < 20, RNG.random(60)
    pixels = metrics.PixelMetrics(limit=0.3)
    pixels.update(RNG.random((30, 30)), np.eye(30))
    figure = figures.curves(labels, scores, pixels.pro_curve())
    areas = metrics.image_metrics(scores, labels)
    titles = [ax.get_title("left").replace("\n", " ") for ax in figure.axes]
    assert titles == [
        f"ROC AUROC {areas['image_auroc']:.3f}",
        f"Precision-recall AP {areas['image_ap']:.3f}",
        f"Per-region overlap AUPRO to 0.3: {pixels.compute()['aupro']:.3f}",
    ]
    assert legend(figure) == ["chance"]
    assert figure.axes[1].lines[0].get_ydata() == pytest.approx([1 / 3, 1 / 3])  # chance
    assert len(figures.curves(labels, scores).axes) == 2
    alone = figures.curves(np.zeros(3), scores[:3])
    assert all("needs normal" in ax.texts[0].get_text() for ax in alone.axes)


def test_the_latent_histogram_is_a_density_beside_the_normal_one():
    z = torch.randn(4, 8, 16, 16, requires_grad=True)
    (ax,) = figures.latent_histogram(z).axes
    data = ax.patches[0].get_data()
    assert (data.values * np.diff(data.edges)).sum() == pytest.approx(1, abs=1e-3)
    x, y = ax.lines[0].get_data()
    assert y.max() == pytest.approx(1 / np.sqrt(2 * np.pi))
    assert np.diff(x) @ (y[1:] + y[:-1]) / 2 == pytest.approx(1, abs=1e-3)
    assert "beyond ±5" in figures.latent_histogram(10 * z).axes[0].get_xlabel()
    both = figures.latent_histogram(z, before=3 * z + 1)  # what the flow was given
    assert [text.split(":")[0] for text in legend(both)] == ["before", "z", "N(0, 1)"]
    assert f"standard deviation {(3 * z + 1).detach().numpy().std():.2f}" in legend(both)[0]
    given, latent = (patch.get_data().values for patch in both.axes[0].patches)
    assert given.max() < latent.max()


def test_lines_have_intervals_and_marks_in_the_legend():
    x, y = np.array([0.1, 1.0, 10.0]), np.array([0.8, 0.9, 0.7])
    band = {"AUROC": np.stack([y - 0.1, y + 0.1])}
    labels = ("share [%]", "AUROC [1]")
    figure = figures.lines(x, {"AUROC": y, "AP": y / 2}, labels, band, {"3 %": 3}, log=True)
    (ax,) = figure.axes
    assert legend(figure) == ["AUROC", "AP", "3 %"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale()) == (*labels, "log")
    assert ax.lines[0].get_ydata().tolist() == y.tolist()
    assert ax.lines[0].get_color() != ax.lines[1].get_color()
    assert ax.lines[2].get_xdata() == [3, 3]
    assert len(ax.collections) == 1
    assert ax.collections[0].get_paths()[0].vertices[:, 1].max() == pytest.approx(1.0)


def test_training_curves_have_a_panel_a_stage_and_label_each_term():
    figure = figures.training_curves(HISTORY)
    assert [ax.get_title("left") for ax in figure.axes] == ["reconstruction", "likelihood"]
    assert "own unit" in figure.axes[0].get_ylabel().replace("\n", " ")
    terms = [{line.get_label(): line.get_ydata() for line in ax.lines} for ax in figure.axes]
    assert [set(one) for one in terms] == [{"loss", "of self"}, {"loss", "scale1"}]
    assert list(terms[1]["scale1"]) == [1.5, 1.2, 1.1]
    assert all(float(tick).is_integer() for ax in figure.axes for tick in ax.get_xticks())
    (ax,) = figures.training_curves(HISTORY[2:], ["scale1"], unit="nats").axes
    assert ax.get_ylabel() == "loss [nats]"
    assert [line.get_label() for line in ax.lines] == ["scale1"]


def test_training_curves_show_how_likely_both_sets_are_beside_the_first_step():
    columns = {"train_nats": [0.9, 0.8], "held_out_nats": [1.2, 1.3], "held_out_z2": [1.5, 1.6]}
    columns |= {"first_step_train_nats": 1.0, "first_step_held_out_nats": 1.25}
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.3, 0.2]} | columns)
    loss, likely = figures.training_curves(history).axes
    assert [line.get_label() for line in loss.lines] == ["loss"]
    assert "nats per dimension" in likely.get_ylabel().replace("\n", " ")
    lines = {line.get_label(): line for line in likely.lines}
    assert list(lines["held-out images"].get_ydata()) == [1.2, 1.3]
    assert set(lines["held-out images, first step alone"].get_ydata()) == {1.25}
    dashes = [line for name, line in lines.items() if "first step" in name]
    assert [line.get_linestyle() for line in dashes] == ["--", "--"]


def test_every_group_is_drawn_and_its_true_size_is_in_the_legend():
    groups = {"normal": RNG.normal(0, 1, (5000, 2)), "defect": RNG.normal(6, 1, (40, 2))}
    figure = figures.scatter_groups(groups, AXES, "x = y", "a note")
    (ax,) = figure.axes
    counts = [len(line.get_xdata()) for line in ax.lines if line.get_marker() == "."]
    assert counts == [plots.MOST, 40]
    assert legend(figure) == ["normal (n = 5,000)", "defect (n = 40)", "x = y"]
    assert [line.get_color() for line in ax.lines[:2]] == [style.NORMAL, style.ANOMALOUS]


def test_deviations_are_in_digits_with_the_first_row_on_top():
    table = pd.DataFrame({"AUPRO [1]": [0.9, 0.7], "AP [1]": [0.3, None]}, ["exact", "coarse"])
    axes = figures.deviation_plot(table).axes
    assert [ax.get_xlabel() for ax in axes] == list(table)
    texts = [[text.get_text() for text in ax.texts] for ax in axes]
    assert texts == [["0.900", "0.700"], ["0.300", "–"]]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == list(table.index)
    assert axes[0].yaxis_inverted()


def test_changes_are_numbers_on_colours_centred_on_none():
    changes = pd.DataFrame({"AUPRO": [-38.42, -0.04], "AP": [7.3, None]}, ["spoilt", "blurred"])
    (ax,) = figures.change_table(changes, "points", reach=40).axes
    assert [text.get_text() for text in ax.texts] == ["−38.4", "+7.3", "+0.0", "–"]
    assert [text.get_color() for text in ax.texts] == ["white", style.INK, style.INK, style.INK]
    assert ax.images[0].get_clim() == (-40, 40)
    assert ax.images[0].get_cmap().name == style.DIFFERENCE_COLOURS
    assert [label.get_text() for label in ax.get_yticklabels()] == list(changes.index)


def test_a_png_keeps_few_colours_and_is_small():
    data = figures.latent_histogram(torch.randn(1000))._repr_png_()
    assert len(Image.open(io.BytesIO(data)).convert("RGB").getcolors()) <= 128
    assert len(data) < 15_000


def test_a_caption_says_what_the_numbers_rest_on():
    line = figures.caption("procedural/weave", "resnet18", "quick", 0, "oracle", top_mean="3 %")
    assert line == (
        "procedural/weave · resnet18 · quick budget (shows that it runs, not how well) · seed 0"
        " · oracle protocol (best epoch picked on the test set) · top mean 3 %"
    )
    assert "seeds 0, 1" in figures.caption("a", "b", "laptop", range(2))
