"""Ways into the app in a real Chromium: the clipboard, a camera, the keyboard alone."""

import base64

import pytest
from PIL import Image
from test_app_browser import MAPS, WAIT, chromium, open_tab, page  # noqa: F401  (fixtures)

pytestmark = pytest.mark.browser
COPY = """async coded => {
  const picture = await (await fetch("data:image/png;base64," + coded)).blob();
  await navigator.clipboard.write([new ClipboardItem({"image/png": picture})]);
}"""


def test_a_picture_is_pasted_into_the_tab_that_is_open(page, quick_run, tmp_path):  # noqa: F811
    path = tmp_path / "gear.png"
    Image.fromarray(quick_run.samples()[0].read()).save(path)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(COPY, base64.b64encode(path.read_bytes()).decode())
    page.keyboard.press("Control+V")
    page.locator("#verdict").get_by_text("image.png").wait_for(timeout=WAIT)
    open_tab(page, "Batch")
    for count in (1, 2):
        page.keyboard.press("Control+V")
        page.locator("#files a").nth(count - 1).wait_for(timeout=WAIT)


def test_a_camera_takes_a_picture(page):  # noqa: F811
    page.context.grant_permissions(["camera"])
    page.get_by_role("button", name="Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#camera video')?.videoWidth", timeout=WAIT)
    page.locator("#camera [aria-label='capture photo']").click(timeout=WAIT)
    page.locator("#verdict").get_by_text("image.png").wait_for(timeout=WAIT)
    assert page.locator(MAPS).count() == 4


def test_the_keyboard_is_enough(page):  # noqa: F811
    page.locator("#run input").focus()
    page.locator("#run .options").wait_for(timeout=WAIT)
    page.keyboard.press("Tab")
    page.locator("#run .options").wait_for(state="detached", timeout=WAIT)
    focused = "[document.activeElement.innerText, getComputedStyle(document.activeElement)"
    assert page.evaluate(f"{focused}.outlineStyle]") == ["Inspect", "solid"]
    open_tab(page, "Train")
    page.locator("#budget input").first.focus()
    for key, value in (("ArrowRight", "laptop"), ("ArrowLeft", "quick"), ("ArrowLeft", "laptop")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.value") == value


def test_an_error_is_said_once_and_leaves(page, quick_run, tmp_path):  # noqa: F811
    path, good = tmp_path / "words.png", tmp_path / "gear.png"
    path.write_text("not an image")
    Image.fromarray(quick_run.samples()[0].read()).save(good)
    for sent, message in ((path, "words.png is not an image"), (good, "")):
        page.locator("#upload input[type=file]").set_input_files(str(sent))
        page.get_by_text(message or "gear.png").first.wait_for(timeout=WAIT)
        assert not page.locator("[data-testid=status-tracker] .error:visible").count()
    page.locator("#message").wait_for(state="hidden", timeout=WAIT)
