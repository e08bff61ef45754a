"""The app in a real Chromium: what a user does, and that the picture follows."""

import os
import shutil

import pytest
from PIL import Image

from apps import app, shelf

pytestmark = pytest.mark.browser
CHROMIUM = os.environ.get("LABKIT_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MAPS, PICTURE = "#maps svg image", "() => document.querySelector('#maps').innerHTML"
WAIT = 30_000  # milliseconds, on a busy machine


@pytest.fixture(scope="module")
def chromium():
    if not CHROMIUM:
        reason = "no Chromium: install the package `chromium` or set LABKIT_CHROMIUM"
        must = os.environ.get("CI") or os.environ.get("LABKIT_REQUIRE_BROWSER")
        pytest.fail(reason) if must else pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(runs_folder):
    demo, address = app.serve(runs_folder)
    yield address
    demo.close(verbose=False)


@pytest.fixture
def page(chromium, url):
    """The app with its first maps drawn; errors and requests elsewhere fail the test."""
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    troubles = []
    page.on("console", lambda m: troubles.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: troubles.append(r.url) if _elsewhere(r.url, url) else None)
    page.goto(url)
    page.wait_for_selector(MAPS, timeout=WAIT)
    page.wait_for_selector("#histogram img", timeout=WAIT)
    yield page
    page.close()
    assert not troubles


def _elsewhere(asked, url):
    return not asked.startswith((url, "data:", "blob:"))


def _changes(page, act):
    """Do something and wait until the maps are other ones; returns what they were and are."""
    before = page.evaluate(PICTURE)
    act()
    page.wait_for_function(
        f"old => ({PICTURE})() !== old && document.querySelector('{MAPS}')",
        arg=before, timeout=WAIT,
    )  # fmt: skip
    return before, page.evaluate(PICTURE)


def _set(page, slider, value):
    page.locator(f"#{slider} input[type=number]").fill(value)
    page.locator(f"#{slider} input[type=number]").press("Enter")


def _upload(page, path):
    page.locator("#upload input[type=file]").set_input_files(str(path))


def test_a_user_inspects_images(page, quick_run, tmp_path):
    assert page.locator("#maps figure").count() == 4
    _changes(page, lambda: page.locator("#samples button.thumbnail-item").nth(3).click())
    path = tmp_path / "my gear.png"
    Image.fromarray(next(s for s in quick_run.samples() if s.label).read()).save(path)
    _, uploaded = _changes(page, lambda: _upload(page, path))
    page.locator("#verdict").get_by_text("my gear.png").wait_for(timeout=WAIT)
    verdict = page.inner_text("#verdict")
    _, muted = _changes(page, lambda: _set(page, "opacity", "0.2"))
    low, _, start, _ = shelf.opened(str(quick_run.folder)).slider
    _, moved = _changes(page, lambda: _set(page, "threshold", f"{(start + low) / 2:.3g}"))
    _, dragged = _changes(page, lambda: page.locator("#threshold input[type=range]").press("End"))
    assert len({uploaded, muted, moved, dragged}) == 4
    assert page.inner_text("#verdict") == verdict
    _set(page, "alarm", "50")
    page.get_by_text("At 50 % false alarms").wait_for(timeout=WAIT)


def test_another_run_changes_the_page(page, runs_folder):
    labels = [label for label, _ in shelf.choices(runs_folder)]

    def choose():
        page.locator("#run input").click()
        page.get_by_role("option", name=labels[1]).click()

    _changes(page, choose)
    page.get_by_role("tab", name="About this run").click()
    page.get_by_text("procedural/weave · efficientnet_lite0").first.wait_for(timeout=WAIT)
    assert page.locator("#curves img").is_visible()


def test_a_file_that_is_no_image_gets_a_banner_and_no_maps(page, tmp_path):
    path = tmp_path / "words.png"
    path.write_text("not an image")
    _upload(page, path)
    page.get_by_text("words.png is not an image that can be read").wait_for(timeout=WAIT)
    page.get_by_text("No image is shown").first.wait_for(timeout=WAIT)
    assert page.locator(MAPS).count() == 0


def test_several_images_become_a_table(page, quick_run, tmp_path):
    for index, sample in enumerate(quick_run.samples()[:3]):
        Image.fromarray(sample.read()).save(tmp_path / f"part{index}.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "part0.png").read_bytes()[:400])
    page.get_by_role("tab", name="Several images").click()
    page.locator("#files input[type=file]").set_input_files(sorted(tmp_path.glob("*.png")))
    page.locator("#files [aria-label='cut.png']").wait_for(timeout=WAIT)
    page.locator("#judge").click()
    page.get_by_text("3 of 4 images judged").wait_for(timeout=WAIT)
    page.locator('#table :text("cannot be decoded"):visible').first.wait_for(timeout=WAIT)
    assert page.locator("#overlays img").count() == 3
    with page.expect_download() as saved:
        page.get_by_text("Download CSV").click()
    assert saved.value.path().read_text().startswith("file,score,quantile,p-value,decision")


def test_a_phone_needs_no_sideways_scrolling(page):
    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_folder_without_runs_says_how_to_train(chromium, tmp_path):
    demo, url = app.serve(tmp_path)
    page = chromium.new_page()
    page.goto(url)
    page.get_by_text("labkit train dnfad elpv/mono").wait_for(timeout=WAIT)
    page.close()
    demo.close(verbose=False)
