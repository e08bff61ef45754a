"""Compare, microscope and studies in a real Chromium: the main path and an error each."""

import shutil
import threading
import time

import pytest
from test_app_browser import WAIT, choose, chromium, open_tab, page  # noqa: F401  (fixtures)

from labkit_apps.web import app
from labkit_apps.web.tabs import microscope

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True, scope="module")
def nothing_studied(tmp_path_factory):
    """A folder of studies without results, whatever other tests have run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABKIT_STUDIES", str(tmp_path_factory.mktemp("studies")))
        yield


@pytest.fixture(scope="module")
def url(runs_folder, quick_run, tmp_path_factory):
    """A server over two runs on gears, the newer one a copy, and one on weave."""
    folder = tmp_path_factory.mktemp("teach")
    shutil.copytree(runs_folder, folder, dirs_exist_ok=True)
    shutil.copytree(quick_run.folder, folder / f"{quick_run.folder.name}-copy")
    demo, address = app.serve(folder)
    yield address
    demo.close(verbose=False)


def test_a_user_steps_through_a_flow(page, tmp_path):  # noqa: F811
    open_tab(page, "Microscope")
    view = page.locator("#microscope-view")
    view.get_by_text("Step 0 of").wait_for(timeout=WAIT)  # of the most unusual image, at once
    first = view.locator("img").first.get_attribute("src")
    page.locator("#microscope-samples button.thumbnail-item").last.click()
    page.wait_for_function(
        "old => document.querySelector('#microscope-view img').src !== old", arg=first,
        timeout=WAIT,
    )  # fmt: skip
    before = view.locator("img").first.get_attribute("src")
    page.locator("#microscope-step input[type=range]").press("ArrowRight")
    view.get_by_text("Step 1 of").wait_for(timeout=WAIT)
    assert view.locator("img").first.get_attribute("src") != before
    page.locator("#microscope-flow").get_by_text("local").click()
    view.get_by_text("· local ·").wait_for(timeout=WAIT)
    page.locator("#microscope-play").click()
    page.get_by_role("button", name="▶ Play").first.wait_for(timeout=WAIT)  # at the end it stops
    path = tmp_path / "words.png"
    path.write_text("not an image")
    page.locator("#microscope-upload input[type=file]").set_input_files(str(path))
    page.get_by_text("words.png is not an image that can be read").wait_for(timeout=WAIT)
    page.get_by_text("Choose a test image or one of your own").wait_for(timeout=WAIT)
    view.locator("img").first.wait_for(state="detached", timeout=WAIT)


def test_a_late_picture_does_not_come_back(page, tmp_path, monkeypatch):  # noqa: F811
    """A step still being drawn when a file fails is not shown after it."""
    open_tab(page, "Microscope")
    view = page.locator("#microscope-view")
    view.get_by_text("Step 0 of").wait_for(timeout=WAIT)
    draw = microscope.views.draw
    begun = threading.Event()

    def slowly(*inputs):
        begun.set()
        time.sleep(2)
        return draw(*inputs)

    monkeypatch.setattr(microscope.views, "draw", slowly)
    page.locator("#microscope-step input[type=range]").press("ArrowRight")
    assert begun.wait(WAIT / 1000)
    path = tmp_path / "words.png"
    path.write_text("not an image")
    page.locator("#microscope-upload input[type=file]").set_input_files(str(path))
    page.get_by_text("words.png is not an image that can be read").wait_for(timeout=WAIT)
    view.get_by_text("Choose a test image or one of your own").wait_for(timeout=WAIT)
    page.wait_for_timeout(3000)
    assert view.locator("img").count() == 0


def test_a_toys_flow_is_trained_and_played(page):  # noqa: F811
    open_tab(page, "Microscope")
    open_tab(page, "Points in a plane")
    page.locator("#toy-blocks").get_by_text("2", exact=True).click()
    page.locator("#toy-train").click()
    view = page.locator("#toy-view")
    view.get_by_text("Step 0 of 2").wait_for(timeout=2 * WAIT)
    page.locator("#toy-play").click()
    view.get_by_text("Step 2 of 2").wait_for(timeout=WAIT)


def test_runs_are_compared(page):  # noqa: F811
    open_tab(page, "Compare")
    maps = page.locator("#compare-maps svg image")
    maps.nth(2).wait_for(timeout=WAIT)  # of two runs on the same data, at once
    assert maps.count() == 3
    choose(page, "compare-runs", "weave")
    page.keyboard.press("Escape")
    page.locator("#compare-go").click()
    page.get_by_text("Other data, left out here").wait_for(timeout=WAIT)
    maps.nth(3).wait_for(timeout=WAIT)
    before = page.inner_text("#compare-maps")
    page.locator("#compare-samples button.thumbnail-item").last.click()
    page.wait_for_function(
        "old => document.querySelector('#compare-maps').innerText !== old", arg=before,
        timeout=WAIT,
    )  # fmt: skip
    page.locator("#compare-runs .remove-all").click()
    page.locator("#compare-go").click()
    page.get_by_text("A comparison takes 2 to 6 runs; 0 are chosen").wait_for(timeout=WAIT)


def test_a_study_is_read(page):  # noqa: F811
    open_tab(page, "Studies")
    page.locator("#studies").get_by_text("dnfad-depth:").click()
    page.get_by_text("labkit study dnfad-depth --budget laptop").wait_for(timeout=WAIT)
    page.get_by_text("Nothing of dnfad-depth is finished").wait_for(timeout=WAIT)


def test_a_phone_needs_no_sideways_scrolling(page):  # noqa: F811
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Inspect", "About this run", "Compare", "Microscope", "Studies"):
        open_tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, name
