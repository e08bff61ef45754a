"""A study of a printed table: its own data and classes, published beside measured."""

import json

import layouts
import pandas as pd
import pytest
from typer.testing import CliRunner

from labkit.data import entry
from labkit.studies import forecast, plots, runner, spec, tables
from labkit_apps.cli import main, studies

pytestmark = pytest.mark.filterwarnings("ignore:.* differs from what is published")
OURS = [name for name in spec.names() if name.split("-")[0] in ("dnfad", "dadf", "sanf")]
STUDIES = {name: spec.get(name) for name in OURS}
TRAINED = [n for n, one in STUDIES.items() if one.measure != "cost" and one.source != "ours"]
TABLES = [name for name in OURS if "-table" in name or name == "sanf-tsne"]
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
    """Every set of the three papers in its own layout, some of its classes left out."""
    root = tmp_path_factory.mktemp("data")
    for write in (layouts.mvtec_ad, layouts.mvtec_loco, layouts.btad, layouts.mpdd, layouts.lbot):
        write(root)
    layouts.mvtec_category(root / "BTech_Dataset_transformed/02", ("ko",), "ok", ".png", ".png")
    for name in ("cifar10", "cifar100", "stl10", "cats_vs_dogs"):  # a dry run reads no image
        place = root / entry.source(name).folders[0] / entry.source(name).holds[0]
        place.parent.mkdir()
        place.touch()
    return root


@pytest.fixture
def ask(monkeypatch, root, tmp_path_factory):
    """`labkit` as a user calls it, with the data in the root."""
    monkeypatch.setenv("LABKIT_DATA", str(root))
    monkeypatch.setenv("LABKIT_STUDIES", str(tmp_path_factory.mktemp("studies")))
    return lambda *words: CliRunner().invoke(main.app, [str(word) for word in words])


@pytest.mark.parametrize("name", TRAINED)
def test_a_dry_run_lists_trainings_hours_disk_and_what_is_missing(ask, root, monkeypatch, name):
    study = spec.get(name)
    monkeypatch.setattr(forecast, "_flops", lambda *_: (10**9, 1000, 10**9))  # counted elsewhere
    answer = ask("study", name, "--budget", "paper", "--root", root, "--dry-run", "--json")
    rows = json.loads(answer.stdout)
    sets = {row["data"] for row in rows}
    assert sets == set(study.datasets("paper"))
    assert all(entry.published()[one.split("/")[0]] for one in sets), "a stand-in at paper"
    trained = [row for row in rows if row["method"] != "knn"]
    assert all(row["trainings"] and row["hours"] > 0 and row["disk_gb"] > 0 for row in trained)
    here = {"mvtec_ad": {"bottle", "grid"}, "mpdd": {"tubes", "connector"},
            "mvtec_loco": {"pushpins", "screw_bag"}}  # fmt: skip
    for row in rows:
        benchmark, _, category = row["data"].partition("/")
        lacks = category not in here.get(benchmark, {category})
        assert any(one.startswith("data:") for one in row["missing"]) == lacks, row
        assert any(one.startswith("weights:") for one in row["missing"])


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
    named = {row for page in pages.values() if "" in page for row in page[""]}
    assert name == "sanf-tsne" or set(printed["data"]) <= named


@pytest.mark.parametrize("name", TABLES)
def test_a_stand_in_is_said_and_shows_no_single_class(name):
    results = runner.stored(name, "laptop")
    assert "stand in" in results.study.note or "stands in" in results.study.note
    assert not set(results.datasets) & set(results.published()["data"])
    table = tables.side_by_side(results, results.datasets[0]).set_index("")
    column = "published: image AUROC [%], mvtec_ad"
    if name == "dnfad-table1":
        assert table.loc["DNFAD", column] == "99.2", "of all classes, not of the first"
        assert "† ADShift pixel AUROC carpet" not in "\n".join(tables.notes(results))


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
    assert (
        "†"
        in tables.by_class(results, "pixel_auroc").loc["btad, average", "CSFlow, published [%]"]
    )
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
