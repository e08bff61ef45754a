"""Batch and training in a real Chromium: the main path and an error of each."""

import shutil
import zipfile

import pytest
from PIL import Image
from test_app_browser import WAIT, chromium, page  # noqa: F401

from labkit_apps.web import app

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def url(quick_run, tmp_path_factory):
    """A server over a folder of its own, which a training may add to."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copytree(quick_run.folder, folder / quick_run.folder.name)
    demo, address = app.serve(folder)
    yield address
    demo.close(verbose=False)


def test_a_batch_is_judged_sorted_decided_and_kept(page, quick_run, tmp_path):  # noqa: F811
    for index, sample in enumerate(quick_run.samples()[-3:]):
        Image.fromarray(sample.read()).save(tmp_path / f"part{index}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "part0.png").read_bytes()[:400])
    with zipfile.ZipFile(tmp_path / "line.zip", "w") as archive:
        for path in sorted(tmp_path.glob("*.png")):
            archive.write(path, path.name)
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files(tmp_path / "line.zip")
    page.locator("#files [aria-label='line.zip']").wait_for(timeout=WAIT)
    page.locator("#judge").click()
    page.get_by_text("3 of 4 images judged; 1 could not be read").wait_for(timeout=WAIT)
    names = page.locator("#table tbody th")
    names.nth(3).wait_for(timeout=WAIT)
    first = names.all_inner_texts()
    assert first[-1] == "cut.png"
    assert "cannot be decoded" in page.locator("#table tbody tr").last.inner_text()
    assert page.locator("#table tbody img").count() == 3
    page.locator("#table thead button", has_text="file").click()
    assert names.all_inner_texts() == ["cut.png", "part0.png", "part1.png", "part2.png"]
    page.locator("#table thead button", has_text="score").click()
    assert names.all_inner_texts() == first
    page.locator("#batch-alarm input[type=number]").fill("50")
    page.locator("#batch-alarm input[type=number]").press("Enter")
    page.get_by_text("Unusual at 50 % false alarms").wait_for(timeout=WAIT)
    with page.expect_download() as saved:
        page.get_by_text("Download CSV").click()
    assert saved.value.path().read_text().startswith("file,score,quantile,p-value,adjusted p")
    page.locator("#report").click()
    page.locator("#reports a").nth(1).wait_for(timeout=WAIT)
    page.locator("#batch-histogram img").wait_for(timeout=WAIT)


def test_a_training_is_started_stopped_and_opened(page, chromium, url):  # noqa: F811
    page.get_by_role("tab", name="Train").click()
    page.locator("#budget input[value=quick]").click()
    page.get_by_text("More settings").click()
    page.locator("#settings textarea, #settings input").first.fill("limit=6 blokcs=1")
    page.locator("#train").click()
    page.get_by_text("did you mean 'blocks'").wait_for(timeout=WAIT)
    settings = "limit=6 blocks=1 epochs=1000"
    page.locator("#settings textarea, #settings input").first.fill(settings)
    page.locator("#train").click()
    page.locator("#job [data-phase=fitting]").wait_for(timeout=WAIT)
    page.locator("#loss img").wait_for(timeout=WAIT)
    other = chromium.new_page()  # the training is the server's: another page sees it, and stops it
    other.goto(url)
    other.get_by_role("tab", name="Train").click(timeout=WAIT)
    other.locator("#job [data-phase=fitting]").wait_for(timeout=WAIT)
    other.locator("#stop").click()
    other.close()
    page.get_by_text("of 1000 epochs").first.wait_for(timeout=WAIT)
    page.locator("#job [data-phase=done]").wait_for(timeout=WAIT)
    page.get_by_text("Open this run").click()
    page.wait_for_url("**/?run=*", timeout=WAIT)
    page.locator("#maps svg image").first.wait_for(timeout=WAIT)
