"""The app in a real Chromium: what a user does, and that the picture follows."""

import os
import shutil
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from PIL import Image

from labkit_apps.web import app, shelf

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
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
MAPS, PICTURE = "#maps svg image", "() => document.querySelector('#maps').innerHTML"
WAIT = 60_000  # milliseconds, on a busy machine


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


def open_tab(page, name):
    """Click a tab, in the menu of those that a narrow page has no room for if it is there."""
    page.wait_for_timeout(500)  # the bar of tabs follows the width of the page
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator(".overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown").get_by_text(name, exact=True)
    tab.click()
    page.wait_for_timeout(300)


def choose(page, name, option):
    """Choose an option of a list."""
    page.locator(f"#{name} input").click()
    page.get_by_role("option", name=option).click()


def _set(page, slider, value):
    page.locator(f"#{slider} input[type=number]").fill(value)
    page.locator(f"#{slider} input[type=number]").press("Enter")


def _follows(page, slider, value):
    """Wait until a slider shows that value: parts of one answer reach the page one by one."""
    page.wait_for_function(
        """([slider, value]) => {
          const shown = document.querySelector(`#${slider} input[type=number]`).valueAsNumber;
          return Math.abs(shown - value) <= 1e-6 * Math.abs(value);
        }""",
        arg=[slider, float(value)], timeout=WAIT,
    )  # fmt: skip


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
    low, high, _ = shelf.opened(str(quick_run.folder)).ruler
    assert uploaded != muted
    _set(page, "threshold", f"{low:.6g}")
    page.get_by_text("of good images exceed").wait_for(timeout=WAIT)
    page.locator("#threshold input[type=range]").press("End")
    page.get_by_text("and none of them exceeds it").wait_for(timeout=WAIT)
    assert page.inner_text("#verdict") != verdict
    _set(page, "threshold", "99999")
    page.get_by_text("100000 counts as").wait_for(timeout=WAIT)
    page.keyboard.press("Tab")
    _follows(page, "threshold", high)
    _set(page, "alarm", "50")
    page.get_by_text("of good images exceed").wait_for(timeout=WAIT)
    _follows(page, "threshold", shelf.opened(str(quick_run.folder)).threshold(50))


def test_a_user_looks_closely(page, quick_run):
    page.locator(MAPS).nth(1).click(position={"x": 30, "y": 40})
    page.locator("#position table").first.wait_for(timeout=WAIT)
    page.locator("#nearest img").first.wait_for(timeout=WAIT)
    assert page.locator("#maps .lk-position").count() == 4
    before = page.inner_text("#position")
    page.locator("#maps svg").nth(1).focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "old => document.querySelector('#position').innerText !== old", arg=before, timeout=WAIT
    )

    _swipe(page)
    _wrong_decisions(page, shelf.opened(str(quick_run.folder)))


def _swipe(page):
    choose(page, "view", "local")
    page.locator(".lk-swipe").wait_for(timeout=WAIT)
    assert page.locator("#maps figure").count() == 2
    page.locator(".lk-cut").focus()
    page.keyboard.press("End")
    assert page.locator(".lk-swipe").evaluate("e => e.style.getPropertyValue('--cut')") == "100%"
    choose(page, "view", "all maps")
    page.wait_for_function("document.querySelectorAll('#maps figure').length === 4", timeout=WAIT)


def _wrong_decisions(page, run):
    _set(page, "alarm", "50")
    _follows(page, "threshold", run.threshold(50))
    choose(page, "decision", "wrong decisions")
    wrong = (run.test.score > run.threshold(50)) != (run.test.label == 1)
    told = f"of {wrong.sum()}" if wrong.any() else "none"
    page.locator("#told").get_by_text(told).wait_for(timeout=WAIT)


def test_a_link_opens_a_run_and_an_image(chromium, url, runs_folder):
    _, path = shelf.choices(runs_folder)[1]
    key = shelf.opened(path).test["key"].iloc[-1]
    page = chromium.new_page()
    page.goto(f"{url}?run={Path(path).name}&image={key}")
    page.locator("#verdict").get_by_text(key).wait_for(timeout=WAIT)
    link = page.locator(".lk-copy").get_attribute("data-link")
    assert parse_qs(link[1:]) == {"run": [Path(path).name], "image": [key]}
    page.goto(f"{url}?run=nowhere")
    page.get_by_text("There is no run nowhere here").wait_for(timeout=WAIT)
    page.close()


def test_another_run_changes_the_page(page, runs_folder):
    labels = [label for label, _ in shelf.choices(runs_folder)]

    _changes(page, lambda: choose(page, "run", labels[1]))
    page.get_by_role("tab", name="About this run").click()
    page.get_by_text("procedural/weave · efficientnet_lite0").first.wait_for(timeout=WAIT)
    page.locator("#curves img").wait_for(timeout=WAIT)


def test_a_file_that_is_no_image_is_said_and_the_last_result_stays(page, tmp_path):
    path = tmp_path / "words.png"
    path.write_text("not an image")
    verdict = page.inner_text("#verdict")
    _upload(page, path)
    page.locator("#message").get_by_text("words.png is not an image that").wait_for(timeout=WAIT)
    assert page.inner_text("#verdict") == verdict
    assert page.locator(MAPS).count() == 4


def test_a_folder_without_runs_says_how_to_train(chromium, tmp_path):
    demo, url = app.serve(tmp_path)
    page = chromium.new_page()
    page.goto(url)
    page.get_by_text("labkit train fused elpv/mono").wait_for(timeout=WAIT)
    page.get_by_role("tab", name="Inspect").wait_for(state="detached", timeout=WAIT)
    page.locator("#train").wait_for(timeout=WAIT)
    page.close()
    demo.close(verbose=False)
