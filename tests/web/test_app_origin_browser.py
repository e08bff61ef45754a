"""In a real Chromium: a page of another site can do nothing to the app but link to it."""
# ruff: noqa: F811  (a fixture of another file is a parameter here)

import http.server
import threading
from functools import partial

import pytest
from test_app_browser import WAIT, chromium  # noqa: F401  (a fixture)

pytestmark = pytest.mark.browser
PAGE = """<a href="{url}">open</a><img src="{url}theme.css"><iframe src="{url}"></iframe><script>
const sent = new FormData();
sent.append("files", new Blob(["x"]), "a.png");
const call = (path, how) => fetch("{url}gradio_api/" + path, {{method: "POST", ...how}}).then(
  () => "read", () => "refused");
Promise.all([
  call("upload", {{body: sent}}), call("upload", {{body: sent, mode: "no-cors"}}),
  call("call/runs", {{body: '{{"data":[]}}', headers: {{"content-type": "application/json"}}}}),
]).then(ends => document.title = ends.join(" "));
</script>"""


@pytest.fixture
def stranger(url, tmp_path):
    """The address of another site, whose page tries what it can."""
    (tmp_path / "index.html").write_text(PAGE.format(url=url))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    handler.func.log_message = lambda *words: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()


def test_a_page_of_another_site_is_refused_and_may_link(chromium, url, stranger):
    page = chromium.new_page()
    answers = {}
    page.on("response", lambda answer: answers.update({answer.url: answer.status}))
    page.goto(stranger)
    page.wait_for_function("() => document.title.includes('refused')", timeout=WAIT)
    assert page.title() == "refused read refused"  # the second is opaque: it reads no answer
    asked = {address: code for address, code in answers.items() if address.startswith(url)}
    assert asked[f"{url}gradio_api/upload"] == 403
    assert set(asked.values()) == {403}
    page.get_by_text("open").click()
    page.wait_for_selector("#run", timeout=WAIT)
    assert page.title() == "labkit"
    page.close()
