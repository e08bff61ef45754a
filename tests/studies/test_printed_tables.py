"""A study of a printed table: its own data and classes, published beside measured."""

import json

import layouts
import pandas as pd
import pytest
from typer.testing import CliRunner

from labkit.data import entry
from labkit.studies import forecast, plots, published, runner, spec, tables
from labkit_apps.cli import main, studies

pytestmark = pytest.mark.filterwarnings("ignore:.* differs from what is published")
PAPERS = ("dnfad", "dadf", "sanf", "sanflow", "selfsup")
STUDIES = {name: spec.get(name) for name in spec.names() if name.split("-")[0] in PAPERS}
PRINTED = [name for name, one in STUDIES.items() if one.published and one.source != "ours"]
TABLES = [n for n in STUDIES if n.split("-")[0] in PAPERS[:3] and "-table" in n]
LATER = [name for name, one in STUDIES.items() if name.startswith(PAPERS[3:]) and one.published]
FILES = [file for file in published.files() if file.startswith(PAPERS[3:]) and "-table" in file]
LACKING = {  # methods that labkit has not; they stand as printed
    "FramePred", "MemAE", "SPADE", "AE_SSIM", "gamma-VAE+grad", "PatchSVDD", "CutPaste",
    "GANomaly", "PatchCore-10", "PatchCore-1", "OCSVM", "DRAEM", "NSA", "Lin et al.",
    "Bozic et al.", "Skip-GANomaly", "OCR-GAN", "Puzzle-AE",
}  # fmt: skip
HERE = ("mvtec_ad/bottle", "mvtec_ad/grid", "mvtec_loco/pushpins", "mvtec_loco/screw_bag", "btad/",
        "mpdd/tubes", "mpdd/connector", "dagm/Class1", "visa/candle", "visa/pcb1", "stc/", "lbot",
        "cifar10", "stl10/", "cats_vs_dogs/")  # fmt: skip
SMALL = {
    "backbone": "random/resnet18",
    "calibration_min": 1,
    "image_size": 64,
    "blocks": 1,
    "epochs": 1,
    "batch": 2,
}
DADF = {"embed": 16, "depth": 1, "heads": 2, "reconstruction_epochs": 1}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Every set of the five papers in its own layout, some of its classes left out (`HERE`)."""
    root = tmp_path_factory.mktemp("data")
    for name in ("mvtec_ad", "mvtec_loco", "btad", "mpdd", "lbot", "dagm", "visa", "stc"):
        getattr(layouts, name)(root)
    layouts.mvtec_category(root / "BTech_Dataset_transformed/02", ("ko",), "ok", ".png", ".png")
    for name in ("cifar10", "cifar100", "stl10", "cats_vs_dogs"):  # a dry run reads no image
        place = root / entry.source(name).folders[0] / entry.source(name).holds[0]
        place.parent.mkdir()
        place.touch()
    return root


@pytest.mark.parametrize("name", PRINTED)
def test_a_dry_run_lists_trainings_hours_disk_and_what_is_missing(
    name, root, tmp_path, monkeypatch
):
    sizes = 10**10, 10**5, 10**10  # to count them for a CaiT takes half a minute
    monkeypatch.setattr(forecast, "_flops", lambda *_: sizes)
    monkeypatch.setenv("LABKIT_DATA", str(root))  # what --root sets, put back afterwards
    line = ["study", name, "--budget", "paper", "--root", root, "--out", tmp_path, "--dry-run"]
    answer = CliRunner().invoke(main.app, [*map(str, line), "--json"], catch_exceptions=False)
    rows = json.loads(answer.stdout)
    tasks = [task for task in runner.stored(name, "paper").tasks if task.measure != "cost"]
    assert {(row["method"], row["data"]) for row in rows} == {(t.method, t.data) for t in tasks}
    for row in rows:
        assert row["trainings"] > 0
        assert row["hours"] > 0
        assert row["disk_gb"] >= 0
        lacking = {"weights"} if row["data"].startswith(HERE) else {"data", "weights"}
        assert {one.split(":")[0] for one in row["missing"]} == lacking, row
        assert entry.published()[row["data"].split("/")[0]], "a stand-in at paper"
    assert not list(tmp_path.glob("tasks"))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_stands_before_anything_is_measured(name):
    results = runner.stored(name, "paper")
    pages = dict(tables.pages(results))
    printed = results.published()
    for title, page in pages.items():
        ours = [column for column in page if "measured" in column]
        assert (page[ours] == "-").all(axis=None), title
    classes = {row for row in printed["data"] if "/" in row}
    assert classes <= set(results.datasets), "the paper's classes are those that are run"
    assert set(printed["data"]) <= {row for page in pages.values() for row in page[""]}


@pytest.mark.parametrize("name", [*TABLES, "sanf-tsne"])
def test_a_stand_in_is_said_and_shows_no_single_class(name):
    results = runner.stored(name, "laptop")
    assert "stand in" in results.study.note or "stands in" in results.study.note
    assert not set(results.datasets) & set(results.published()["data"])
    if name == "dnfad-table1":
        table = tables.side_by_side(results, results.datasets[0]).set_index("")
        column = table["published: image AUROC [%], mvtec_ad"]
        assert column["DNFAD"] == "99.2", "of all classes, not of the first"
        assert "† ADShift pixel AUROC carpet" not in "\n".join(tables.notes(results))


def landed(results):
    """The printed rows of its variants, and of them those that stand beside what it measures."""
    own = results.published().query("ours != ''")
    places = {*results.datasets, *tables.spans(results.study, "paper")}
    beside = own["data"].isin(places) & own["metric"].isin(results.study.metrics)
    return own, own[beside]


@pytest.mark.parametrize("name", LATER)
def test_a_printed_number_stands_beside_what_is_measured(name, tmp_path):
    results = runner.stored(name, "paper", out=tmp_path)
    own, beside = landed(results)
    shown = {str(cell) for _, page in tables.pages(results) for cell in page.to_numpy().flatten()}
    for row in own.drop(beside.index).itertuples():
        assert tables.name(row.metric) in results.study.note, row
        assert str(row.value) in shown, row
    for metric, rows in beside.groupby("metric"):
        page = tables.by_class(results, metric)
        for row in rows.itertuples():
            unit = " [%]" if row.unit == "percent" else ""
            assert str(row.value) in page.loc[row.data, f"{row.row}, published{unit}"], row
            assert page.loc[row.data, f"{row.row}, measured{unit}"] == "-"


def test_every_row_of_a_method_that_labkit_has_lands_in_a_study(tmp_path):
    columns = ["source", "dataset", "category", "variant", "metric"]
    cells = set()
    for name in LATER:
        own, beside = landed(runner.stored(name, "paper", out=tmp_path))
        rows = own if STUDIES[name].measure == "cost" else beside
        cells |= set(rows[columns].itertuples(index=False, name=None))
    for file in FILES:
        for row in published.rows(file)[columns].itertuples(index=False, name=None):
            lacking = row[3].split(" WRN-")[0] in LACKING
            assert lacking or row in cells, (file, row)


def small(monkeypatch, root, folder, name, **settings):
    """A table's study at the paper budget and the tiniest size."""
    monkeypatch.setenv("LABKIT_DATA", str(root))
    monkeypatch.setenv("LABKIT_RUNS", str(folder / "runs"))
    chosen = {key: settings.pop(key) for key in ("variants", "data") if key in settings}
    return runner.run(name, "paper", seeds=[0], out=folder / "out", workers=1, progress=False,
                      settings=SMALL | settings, **chosen)  # fmt: skip


def test_each_product_of_btad_is_measured_beside_what_is_published(monkeypatch, root, tmp_path):
    results = small(monkeypatch, root, tmp_path, "dnfad-table2", taps=[2, 3],
                    variants=["DNFAD", "CFlow"])  # fmt: skip
    assert not results.failed
    table = tables.by_class(results, "image_auroc")
    assert list(table.index) == ["btad/01", "btad/02", "btad/03", "btad, average"]
    assert list(table["DNFAD, published [%]"]) == ["97.5", "90.2", "100.0", "95.9"]
    measured = results.table.query("metric == 'image_auroc' and variant == 'DNFAD'")
    values = [*measured["value"], measured["value"].mean()]
    assert list(table["DNFAD, measured [%]"]) == [f"{100 * value:.1f}" for value in values]
    assert table.loc["btad/02", "PatchCore, published [%]"] == "82.6"
    assert "PatchCore, measured [%]" not in table
    pixels = tables.by_class(results, "pixel_auroc")["CSFlow, published [%]"]
    assert "†" in pixels["btad, average"]
    page = studies.markdown(results)
    assert "### image AUROC" in page
    assert "| btad/02 | 90.2 |" in page
    ax = plots.draw(results).axes[0]
    seeds = [x for line in ax.lines for x in line.get_xdata() if x == pytest.approx(values[-1])]
    assert seeds, "the figure has the mean over the products"


def test_logical_and_structural_anomalies_stand_apart(monkeypatch, root, tmp_path):
    data = ["mvtec_loco/pushpins", "mvtec_loco/screw_bag"]
    results = small(monkeypatch, root, tmp_path, "dadf-table2", taps=[1, 2, 3], data=data, **DADF)
    assert not results.failed
    for metric in ("image_auroc_logical", "image_auroc_structural", "au_spro_mean"):
        column = tables.by_class(results, metric)["DADF, measured [%]"]
        assert (column[data] != "-").all()
        assert (column.drop(data) == "-").all(), "no mean before all five are measured"
    spro = tables.by_class(results, "au_spro_mean")["DADF, published [%]"]
    assert spro["mvtec_loco/pushpins"] == "66.4"
    assert spro["mvtec_loco, average"] == "67.4"
    pooled = tables.by_class(results, "image_auroc")
    assert list(pooled) == ["DADF, measured [%]"], "the paper prints the mean of both types"


def test_a_mean_over_sets_is_there_once_all_of_them_are(tmp_path):
    study = spec.get("dnfad-table3")
    results = runner.stored("dnfad-table3", "paper", seeds=[0], out=tmp_path)
    kept = [task for task in results.tasks if task.variant == "DNFAD"]
    for k, task in enumerate(kept):
        scores = pd.DataFrame({"split": "test", "label": [0, 1], "score": [0.0, 1.0]})
        if task.data == "mpdd/tubes":
            assert tables.by_class(results, "image_auroc").iloc[-1, 1] == "-"
        results.__dict__.pop("table", None)
        results.write(task, {"metrics": {"image_auroc": k / 100}}, scores)
    values = {task.data: k / 100 for k, task in enumerate(kept)}
    names = tables.spans(study, "paper")
    means = {n: sum(values[d] for d in ds) / len(ds) for n, ds in names.items()}
    column = tables.by_class(results, "image_auroc")["DNFAD, measured [%]"]
    assert {n: column[n] for n in means} == {n: f"{100 * v:.1f}" for n, v in means.items()}
    whole = [means[f"{one}, average"] for one in ("mvtec_ad", "btad", "mpdd")]
    assert column[tables.ALL] == f"{100 * sum(whole) / 3:.1f}"


def test_t_sne_places_every_test_image(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_RUNS", str(tmp_path / "runs"))
    few = {"variants": ["SANF"], "settings": {"limit": 2}, "progress": False}
    results = runner.run("sanf-tsne", "quick", out=tmp_path, **few)
    (task,) = results.tasks
    scores = results.scores(task)
    assert scores[["x", "y"]].notna().all(axis=None)
    assert len(scores[["x", "y"]].drop_duplicates()) == len(scores)
    (ax,) = plots.draw(results).axes
    assert sum(len(line.get_xdata()) for line in ax.lines) == (scores["split"] == "test").sum()


def test_test_images_of_one_against_the_rest_are_kept_once(monkeypatch):
    monkeypatch.setattr(forecast, "_flops", lambda *_: (1, 500_000, 1))  # one MB an image
    study = spec.get("sanflow-cifar10")
    tasks = study.tasks("paper", variants=["SANFlow"], seeds=[0])
    disk = [row["disk_gb"] for row in forecast.forecast(tasks)]
    assert len(disk) == 10
    assert disk[0] - disk[1] == pytest.approx(10)  # of the 10,000 test images
