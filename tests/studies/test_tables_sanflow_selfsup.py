"""The printed tables of SANFlow and selfsup: each has a study, on the data that it names."""

import json

import layouts
import pytest
from typer.testing import CliRunner

from labkit.studies import forecast, published, runner, tables
from labkit.studies import spec as plans
from labkit_apps.cli import main

PAPERS = ("sanflow", "selfsup")
STUDIES = {name: plans.get(name) for name in plans.names() if name.startswith(PAPERS)}
STUDIES = {name: study for name, study in STUDIES.items() if study.published}
FILES = [file for file in published.files() if file.startswith(PAPERS) and "-table" in file]
LACKING = {  # methods that labkit has not; they stand as printed
    "FramePred", "MemAE", "SPADE", "AE_SSIM", "gamma-VAE+grad", "PatchSVDD", "CutPaste",
    "GANomaly", "PatchCore-10", "PatchCore-1", "OCSVM", "DRAEM", "NSA", "Lin et al.",
    "Bozic et al.", "Skip-GANomaly", "OCR-GAN", "Puzzle-AE",
}  # fmt: skip


HERE = ("mvtec_ad/bottle", "mvtec_ad/grid", "btad/01", "btad/03", "dagm/Class1", "dagm/Class10",
        "visa/candle", "visa/pcb1", "stc/", "cifar10/")  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Some of the data of each of these tables (`HERE`), in the published layouts."""
    root = tmp_path_factory.mktemp("data")
    for write in (layouts.mvtec_ad, layouts.btad, layouts.dagm, layouts.visa, layouts.stc):
        write(root)
    (root / "cifar-10-batches-py").mkdir()
    (root / "cifar-10-batches-py" / "batches.meta").touch()
    return root


def planned(name, tmp_path):
    return runner.stored(name, "paper", out=tmp_path)


def landed(results):
    """The printed rows of its variants, and of them those that stand beside what it measures."""
    own = results.published().query("ours != ''")
    places = {*results.datasets, *tables.spans(results.study, "paper")}
    beside = own["data"].isin(places) & own["metric"].isin(results.study.metrics)
    return own, own[beside]


@pytest.mark.filterwarnings("ignore:stc/.. differs from what is published")
@pytest.mark.parametrize("name", STUDIES)
def test_the_paper_layer_is_planned_before_it_starts(name, root, tmp_path, monkeypatch):
    sizes = 10**10, 10**5, 10**10  # to count them for a CaiT takes half a minute
    monkeypatch.setattr(forecast, "_flops", lambda *_: sizes)
    monkeypatch.setenv("LABKIT_DATA", str(root))  # what --root sets, put back afterwards
    line = ["study", name, "--budget", "paper", "--root", root, "--out", tmp_path, "--dry-run"]
    answer = CliRunner().invoke(main.app, [*map(str, line), "--json"], catch_exceptions=False)
    rows = json.loads(answer.stdout)
    tasks = planned(name, tmp_path).tasks
    trained = [task for task in tasks if task.measure != "cost"]
    assert {(row["method"], row["data"]) for row in rows} == {(t.method, t.data) for t in trained}
    for row in rows:
        assert row["trainings"] > 0
        assert row["hours"] > 0
        assert row["disk_gb"] >= 0
        lacking = {"weights"} if row["data"].startswith(HERE) else {"data", "weights"}
        assert {one.split(":")[0] for one in row["missing"]} == lacking, row
    assert not list(tmp_path.glob("tasks"))


@pytest.mark.parametrize("name", STUDIES)
def test_a_printed_number_stands_beside_what_is_measured(name, tmp_path):
    results = planned(name, tmp_path)
    own, beside = landed(results)
    shown = {str(cell) for _, page in tables.pages(results) for cell in page.to_numpy().flatten()}
    for row in own.drop(beside.index).itertuples():
        assert tables.name(row.metric) in results.study.note, row
        assert str(row.value) in shown, row
    for metric, rows in beside.groupby("metric"):
        page = tables.by_class(results, metric)
        for row in rows.itertuples():
            unit = " [%]" if row.unit == "percent" else ""
            cell = page.loc[row.data, f"{row.row}, published{unit}"]
            assert str(row.value) in cell, row
            assert page.loc[row.data, f"{row.row}, measured{unit}"] == "-"


def test_every_row_of_a_method_that_labkit_has_lands_in_a_study(tmp_path):
    columns = ["source", "dataset", "category", "variant", "metric"]
    cells = set()
    for name, study in STUDIES.items():
        own, beside = landed(planned(name, tmp_path))
        rows = own if study.measure == "cost" else beside
        cells |= set(rows[columns].itertuples(index=False, name=None))
    for file in FILES:
        for row in published.rows(file)[columns].itertuples(index=False, name=None):
            lacking = row[3].split(" WRN-")[0] in LACKING
            assert lacking or row in cells, (file, row)
