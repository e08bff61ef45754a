"""`labkit data get` as a user types it, against a server in a thread, and what sources say."""

import io
import json
import sys
from pathlib import Path

import pytest
from archive_server import archive
from archive_server import source as toy_source

from labkit.data import catalogue
from labkit.data.entry import Entry
from labkit_apps.cli import download, main


@pytest.fixture
def labkit(monkeypatch, capsys, server):
    toy = toy_source(archive(server))
    entry = Entry(
        title="A toy", licence="CC BY 4.0", n_train=1, n_test_good=0, n_test_bad=0, masks=False,
        how_to_get="", samples=lambda root: ((),), source=toy,
    )  # fmt: skip
    shipped = catalogue.table()["procedural/gear"]
    monkeypatch.setattr(catalogue, "table", lambda: {"toy/a": entry, "procedural/gear": shipped})

    def call(*arguments, answer=""):
        monkeypatch.setattr(sys, "argv", ["labkit", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = 0
        try:
            main.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", ["toy", "toy/a"])
def test_the_command_tells_the_terms_and_asks(labkit, tmp_path, server, name):
    code, out, err = labkit("data", "get", name, "--root", tmp_path, answer="n\n")
    assert code == 2
    assert out == ""
    assert all(word in err for word in ("CC BY 4.0", "https://example.org/toys", "0 MB"))
    assert server.asked == []
    code, out, err = labkit("data", "get", name, "--root", tmp_path, "--json", answer="y\n")
    assert code == 0
    assert json.loads(out)["folder"] == str(tmp_path / "toy")
    assert (tmp_path / "toy" / "good" / "000.png").is_file()


def test_the_command_does_not_ask_when_told_so(labkit, tmp_path):
    code, out, _ = labkit("data", "get", "toy", "--root", tmp_path, "--yes")
    assert code == 0
    assert out.startswith("Toys (Maker 2020) is in ")
    code, _, err = labkit("data", "get", "toy", "--root", tmp_path, "--yes")
    assert code == 2
    assert "is already in" in err


@pytest.mark.parametrize(
    ("name", "message"),
    [("procedural/gear", "drawn on demand"), ("toi", "nearest name is 'toy/a'")],
)
def test_the_command_says_what_it_cannot_get(labkit, tmp_path, name, message):
    code, out, err = labkit("data", "get", name, "--root", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


SOURCES = {e.source.name: e.source for e in catalogue.table().values() if e.source}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_fit_for_download(name):
    source = SOURCES[name]
    assert download.source_of(name) is source
    files = [download._file_name(part) for part in source.archives]
    assert len(set(files)) == len(files)
    assert all(Path(file).suffix in {".gz", ".xz", ".tar", ".zip"} for file in files)
    assert all(part.checksum is None or ":" in part.checksum for part in source.archives)
    assert source.holds
    assert source.page.startswith("http")
