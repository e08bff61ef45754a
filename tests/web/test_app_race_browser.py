"""An upload gets its own verdict, by the run in view and at its threshold, whenever it comes."""

import re

import pytest
from PIL import Image
from test_app_browser import MAPS, WAIT, choose, chromium  # noqa: F401  (a fixture)

from labkit_apps.web import shelf
from labkit_apps.web.views.judged_image import judge_file

pytestmark = pytest.mark.browser
TIMES = 20
SCORE = r"raw score\s+(\S+)"


@pytest.fixture(scope="module")
def parts(quick_run, tmp_path_factory):
    """Two images of their own names: one good, one defective."""
    folder, paths = tmp_path_factory.mktemp("early"), []
    for label in (0, 1):
        sample = next(one for one in quick_run.samples() if one.label == label)
        paths.append(folder / f"part{label}.png")
        Image.fromarray(sample.read()).save(paths[-1])
    return paths


def _settled(page, name):
    """The verdict of that image once nothing is pending, as text."""
    page.locator("#verdict").get_by_text(name).wait_for(timeout=WAIT)
    page.wait_for_function(
        "() => !document.querySelector('.progress-text, .eta-bar, .generating')", timeout=WAIT
    )
    page.wait_for_timeout(300)
    assert page.locator(MAPS).count() == 4
    return page.inner_text("#verdict")


def _is_of(verdict, run, path):
    """The score, threshold and decision are those of this image under this run."""
    answer, shown = judge_file(run, str(path)).answer, shelf.opened(run)
    threshold = shown.threshold(shown.rates[1])
    assert re.search(SCORE, verdict)[1] == f"{answer.score:.4g}"
    assert f"The threshold is a score of {threshold:.4g}," in verdict
    assert ("Looks normal" in verdict) == (answer.score <= threshold)


def test_an_upload_as_the_page_opens(chromium, url, runs_folder, parts):  # noqa: F811
    run = shelf.choices(runs_folder)[0][1]
    for time in range(TIMES):
        page, path = chromium.new_page(), parts[time % 2]
        page.goto(url)
        page.locator("#upload input[type=file]").set_input_files(str(path))
        _is_of(_settled(page, path.name), run, path)
        page.close()


def test_an_upload_while_another_run_is_opened(chromium, url, runs_folder, parts):  # noqa: F811
    runs, page = shelf.choices(runs_folder), chromium.new_page()
    page.goto(url)
    page.wait_for_selector(MAPS, timeout=WAIT)
    for time in range(TIMES):
        label, run = runs[(time + 1) % 2]
        shelf._opened.cache_clear()  # so that opening takes its time
        choose(page, "run", label)
        path = parts[time // 2 % 2]
        page.locator("#upload input[type=file]").set_input_files(str(path))
        page.wait_for_function(
            "end => document.querySelector('#verdict')?.innerText.includes(end)",
            arg=f"a score of {shelf.opened(run).threshold(shelf.opened(run).rates[1]):.4g},",
            timeout=WAIT,
        )
        _is_of(_settled(page, path.name), run, path)
    page.close()


def test_of_two_uploads_in_a_row_the_second_stays(chromium, url, runs_folder, parts):  # noqa: F811
    run, page = shelf.choices(runs_folder)[0][1], chromium.new_page()
    page.goto(url)
    upload = page.locator("#upload input[type=file]")
    for first, second in (parts, parts[::-1]):
        upload.set_input_files(str(first))
        upload.set_input_files(str(second))
        _is_of(_settled(page, second.name), run, second)
    page.close()
