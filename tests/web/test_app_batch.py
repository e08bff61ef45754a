"""Many images: each judged once, decided at any rate, reported; archives and bad files too."""

import re
import zipfile

import numpy as np
import pandas as pd
import pytest
from gradio_client import handle_file
from PIL import Image

from labkit.evaluation.calibration import Calibration
from labkit_apps.web import shelf
from labkit_apps.web.views import batch
from labkit_apps.web.views.batch import ALARM, DISCOVERY, Rates, adjusted


@pytest.fixture(scope="module")
def files(quick_run, tmp_path_factory):
    """Three defective and five good images, one that is cut short, and a ZIP of them all."""
    folder = tmp_path_factory.mktemp("batch")
    samples = quick_run.samples()
    bad, good = ([s for s in samples if s.label == label] for label in (1, 0))
    for index, sample in enumerate(bad[:3] + good[:5]):
        Image.fromarray(sample.read()).save(folder / f"part<{index}>.png")
    (folder / "cut.png").write_bytes((folder / "part<0>.png").read_bytes()[:400])
    paths = sorted(map(str, folder.glob("*.png")))
    with zipfile.ZipFile(folder / "all.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"line/{path.rsplit('/', 1)[1]}")
    return paths, str(folder / "all.zip")


@pytest.fixture(scope="module")
def judged(run, files):
    return batch.judge(run, files[0])


def test_a_row_a_file_the_most_unusual_first(judged, run, files):
    table, known = judged.table, judged.scored
    assert len(table) == len(files[0]) == 9
    assert known["score"].is_monotonic_decreasing
    assert list(judged.pictures) == list(known.index)
    assert table["file"].iloc[-1] == "cut.png"
    assert "cannot be decoded" in table["fault"].iloc[-1]
    assert table.iloc[-1][["score", "p-value", "adjusted p"]].isna().all()
    p = shelf.opened(run).calibration.rank(known["score"].to_numpy()).p_value
    assert known["p-value"].tolist() == p.tolist()
    assert (known["adjusted p"] >= known["p-value"]).all()


def test_an_archive_is_judged_like_its_files(judged, run, files):
    ticks = []
    again = batch.judge(run, [files[1]], lambda done, total: ticks.append((done, total)))
    assert ticks == [(k + 1, 9) for k in range(9)]
    assert again.table["file"].str.removeprefix("line/").tolist() == judged.table["file"].tolist()
    assert again.scored["score"].tolist() == judged.scored["score"].tolist()


def test_a_bad_archive_keeps_its_row(run, files, tmp_path):
    (tmp_path / "evil.zip").write_bytes(b"PK\x03\x04 nothing")
    table = batch.judge(run, [str(tmp_path / "evil.zip"), files[0][1]]).table
    assert len(table) == 2
    assert "evil.zip is no ZIP archive" in table["fault"].iloc[1]
    with pytest.raises(ValueError, match="no files yet"):
        batch.judge(run, [])


def test_decisions_follow_the_rates(judged):
    p, corrected = judged.table["p-value"], judged.table["adjusted p"]
    for alarm, discovery in ((0, 0), (20, 30), (100, 100)):
        table = batch.decided(judged, Rates.of(alarm, discovery))
        for column, values, rate in ((ALARM, p, alarm), (DISCOVERY, corrected, discovery)):
            assert table[column].iloc[:8].tolist() == (values <= rate / 100).iloc[:8].tolist()
            assert table[column].iloc[-1] is None
    rows = batch.rows(judged, Rates.of(50, 50))
    assert rows[0][ALARM] is True
    assert rows[-1]["score"] is None


def test_the_summary_says_what_the_calibration_supports(judged, run):
    least = shelf.opened(run).calibration.smallest
    low = batch.draw_summary(judged, Rates.of(0.1, 0.1))
    assert f"No p-value is below {least:.2g}" in low
    assert "8 images cannot be called" in low
    high = batch.draw_summary(judged, Rates.of(100, 100))
    assert high.count("8 of 8") == 2
    assert "8 of 9 images judged; 1 could not be read" in high


def test_the_table_escapes_names_and_sorts_by_plain_values(judged):
    drawn = batch.draw_table(judged, Rates.of(20, 20))
    assert "part<" not in drawn
    assert "part&lt;0&gt;.png" in drawn
    assert drawn.count("<tr") == 10
    assert re.search(r'<td colspan="6">[^<]*cannot be decoded', drawn)  # a fault is one cell
    assert drawn.count("data:image/jpeg") == 8
    values = re.findall(r'lk-number" data-value="([^"]+)"', drawn)
    assert float(values[0]) == judged.table["score"].iloc[0]


def test_only_the_most_unusual_overlays_are_kept(run, files, judged, monkeypatch):
    monkeypatch.setattr(batch, "KEPT", 3)
    few = batch.judge(run, files[0])
    assert list(few.pictures.items()) == list(judged.pictures.items())[:3]
    monkeypatch.setattr(batch, "MOST", 8)
    with pytest.raises(ValueError, match="9 files are more than 8"):
        batch.judge(run, files[0])


def test_the_report_stands_alone(judged, run, tmp_path):
    csv, page = batch.write(judged, Rates.of(20, 20), tmp_path)
    assert pd.read_csv(csv)["score"].iloc[0] == pytest.approx(judged.table["score"].iloc[0])
    told = page.read_text()
    assert shelf.opened(run).caption in told.replace("&#x27;", "'")
    assert not re.search(r'(?:src|href)="(?!data:)|url\((?!data:)|<script|@import', told)
    assert told.count("data:image") == 8 + 1
    assert "False alarms" not in told  # no control of the page is left in it


def test_the_histogram_holds_batch_and_calibration(judged):
    figure = batch.draw_histogram(judged, Rates.of(50, 5))
    labels = [handle.get_text() for handle in figure.legends[0].get_texts()]
    assert [label.split(" (")[0] for label in labels[:2]] == ["held-out normal", "this batch"]
    assert "n = 8" in labels[1]


def test_a_batch_through_the_client(client, run, files):
    chosen = {"run": run, "files": [handle_file(files[1])], "alarm": 50, "discovery": 50}
    rows, summary, table, *_ = client.predict(**chosen, api_name="/several")
    assert [row["file"] for row in rows][-1] == "line/cut.png"
    assert "8 of 9 images judged" in summary
    assert client.predict(alarm=0, discovery=0, api_name="/decide_several")[1] != table
    reports = client.predict(alarm=50, discovery=50, api_name="/report")["value"]
    assert [path.rsplit(".", 1)[1] for path in reports] == ["csv", "html"]


def test_adjusted_p_values_by_hand():
    """m = 5: 5/1 0.005, 5/2 0.01, then 5/3 0.03 = 0.05 and 5/4 0.04 = 0.05, 0.55."""
    found = adjusted(np.array([0.01, 0.04, 0.03, 0.005, 0.55]))
    assert found.tolist() == [0.025, 0.05, 0.05, 0.025, 0.55]
    assert adjusted(np.array([])).size == 0
    assert (adjusted(np.full(3, 3 / 60)) <= 0.05).all()  # a tie counts
    for wrong in ([1.2], [-0.1], [np.nan]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            adjusted(np.array(wrong))


def test_few_discoveries_are_false():
    """40 normal and 10 anomalous images, 400 times: at most q of those called are normal."""
    rng, q, shares = np.random.default_rng(0), 0.2, []
    for _ in range(400):
        calibration = Calibration(rng.normal(size=99))
        scores = np.concatenate([rng.normal(size=40), rng.normal(4, 1, 10)])
        called = adjusted(calibration.rank(scores).p_value) <= q
        shares.append(called[:40].sum() / max(1, called.sum()))
        assert called.sum() <= (calibration.rank(scores).p_value <= q).sum()
    assert 0.1 < np.mean(shares) <= q * 40 / 50 + 0.02
