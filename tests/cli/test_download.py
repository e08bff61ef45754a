"""`labkit data get` against a server in a thread: verified, unpacked in their place alone."""

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from archive_server import MEMBERS, NOISE, WHOLE, archive, source, tar, zipped
from filelock import FileLock

from labkit.data import catalogue
from labkit.data.entry import Archive, Entry, counted
from labkit_apps.cli import download


def get(toy, root):
    return download.get(toy, root, progress=False)


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_a_dataset_is_put_in_place_whole(server, tmp_path):
    toy = source(archive(server), archive(server, zipped({"test/1.png": b"1"}), "more.zip"))
    folder = get(toy, tmp_path / "new")
    assert folder == tmp_path / "new" / "toy" == toy.place(tmp_path / "new")
    assert (folder / "good" / "000.png").read_bytes() == NOISE
    assert (folder / "test" / "1.png").read_bytes() == b"1"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    assert server.asked == ["/toy.tar.gz?download=1", "/more.zip?download=1"]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_that_is_there_is_verified_and_used(server, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, WHOLE).hexdigest()}"
    file = made(tmp_path / "toy.download") / "toy.tar.gz"
    for content, asked in ((WHOLE, 0), (WHOLE[:1000], 1)):  # what is not whole is loaded anew
        made(file.parent).joinpath(file.name).write_bytes(content)
        folder = get(source(archive(server, checksum=checksum)), tmp_path)
        assert (folder / "good" / "000.png").read_bytes() == NOISE
        assert len(server.asked) == asked
        shutil.rmtree(folder)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_line_for_curl_makes_what_get_takes(server, tmp_path):
    toy = source(archive(server))
    server.breaks_after = len(WHOLE) // 3
    with pytest.raises(ValueError, match=r"cannot be loaded \(\w+\) after 4 attempts") as caught:
        get(toy, tmp_path)
    assert len(server.asked) == 4
    assert not (tmp_path / "toy").exists()
    server.breaks_after = None
    (tmp_path / "toy.download").mkdir(exist_ok=True)
    line = str(caught.value).split("`")[1]
    subprocess.run(line, shell=True, check=True, capture_output=True)
    get(toy, tmp_path)
    assert len(server.asked) == 5  # curl's alone


@pytest.mark.parametrize("stage", ["fetch", "unpack"])
def test_a_process_killed_in_the_middle_goes_on(server, tmp_path, monkeypatch, stage):
    class Killed(BaseException):
        pass

    def killed(*arguments):
        if stage == "fetch":  # after the archive is there
            fetch(*arguments)
        raise Killed

    toy, fetch = source(archive(server)), download.fetch
    with monkeypatch.context() as patch:
        patch.setattr(download, stage, killed)
        with pytest.raises(Killed):
            get(toy, tmp_path)
    assert toy.place(tmp_path) is None
    (made(tmp_path / "toy.download" / "unpacked") / "half").touch()
    folder = get(toy, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["good", "readme.txt"]
    assert len(server.asked) == 1  # no byte twice


def test_another_checksum_is_refused_and_nothing_stays(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    with pytest.raises(ValueError, match=rf"has another checksum than {wrong}; run the command"):
        get(source(archive(server, checksum=wrong)), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "name"),
    [(WHOLE[:-2000], "t.tar.gz"), (b"no archive", "t.tar"), (zipped(MEMBERS)[:-9], "t.zip"),
     (tar(MEMBERS, "xz")[:-2000], "t.tar.xz")],
    ids=["tar.gz", "no archive", "zip", "tar.xz"],  # the bytes hold the time: workers would differ
)  # fmt: skip
def test_a_damaged_archive_without_checksum_is_removed(server, tmp_path, content, name):
    with pytest.raises(ValueError, match=rf"{name} is damaged .*; it was removed"):
        get(source(archive(server, content, name, checksum=None)), tmp_path)
    assert not (tmp_path / "toy").exists()
    assert not (tmp_path / "toy.download" / name).exists()


def link(target):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as packed:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, target
        packed.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (tar({"../evil": b"x"}), "t.tar.gz"),
        (tar({"a/../../evil": b"x"}), "t.tar.gz"),
        (link("/etc"), "t.tar"),
        (zipped({"../evil": b"x", "/evil": b"x", "good/1.png": b"1"}), "t.zip"),
    ],
    ids=["parent", "parent of a folder", "link", "zip"],
)
def test_nothing_is_written_outside(server, tmp_path, content, name):
    toy = source(archive(server, content, name))
    if name == "t.zip":  # what lies outside is left out
        folder = get(toy, tmp_path)
        assert [path.name for path in folder.rglob("*")] == ["good", "1.png"]
    else:
        with pytest.raises(ValueError, match=rf"{name} is not unpacked"):
            get(toy, tmp_path)
        assert not (tmp_path / "toy").exists()
    assert not list(tmp_path.rglob("*evil*"))


def test_what_stands_in_the_way_is_one_sentence(server, tmp_path):
    toy = source(archive(server))
    with (
        FileLock(made(tmp_path / "toy.download") / ".lock"),
        pytest.raises(ValueError, match="Another process is getting toy"),
    ):
        get(toy, tmp_path)
    server.status = 404
    with pytest.raises(ValueError, match="answers 404 Not Found"):
        get(toy, tmp_path)
    with pytest.raises(ValueError, match=r"needs about 2000000000.0 GB, but the disk"):
        get(source(Archive(toy.archives[0].url, 10**18, None)), tmp_path)
    server.status = 200
    get(toy, tmp_path)
    with pytest.raises(ValueError, match=r"is already in .*toy; remove that"):
        get(toy, tmp_path)
    with pytest.raises(ValueError, match=r"no address without a login; ask .*example.org/toys"):
        get(source(), tmp_path / "other")
    made(tmp_path / "third" / "toy")
    with pytest.raises(ValueError, match="is there without Toys"):
        get(toy, tmp_path / "third")
    with pytest.raises(ValueError, match=r"127.0.0.1:9/toy.tar cannot be loaded \(Conn.*network"):
        get(source(Archive("http://127.0.0.1:9/toy.tar")), tmp_path / "fourth")


SOURCES = {e.source.name: e.source for e in catalogue.table().values() if e.source}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_fit_for_download(name):
    one = SOURCES[name]
    assert download.source_of(name) is one
    files = [download.file_name(part) for part in one.archives]
    assert len(set(files)) == len(files)
    assert all(Path(file).suffix in {".gz", ".xz", ".tar", ".zip"} for file in files)
    checksums = [part.checksum for part in one.archives if part.checksum]
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", one) for one in checksums)
    assert len(checksums) == len(files) or name == "dagm"
    assert not one.size or not files or one.size == sum(part.size for part in one.archives)
    assert one.holds
    assert one.page.startswith("http")


@pytest.fixture
def toy(monkeypatch, server):
    """The catalogue with a toy to download, and one dataset that needs none."""
    entry = Entry(
        title="A toy", licence="CC BY 4.0", counts=counted(1, 0, 0), masks=False,
        how_to_get="", samples=lambda root: ((),), source=source(archive(server)),
    )  # fmt: skip
    shipped = catalogue.table()["procedural/gear"]
    monkeypatch.setattr(catalogue, "table", lambda: {"toy/a": entry, "procedural/gear": shipped})


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", ["toy", "toy/a"])
def test_the_command_tells_the_terms_and_asks(labkit, tmp_path, monkeypatch, server, name):
    monkeypatch.setattr("sys.stdin", io.StringIO("n\ny\n"))
    code, out, err = labkit("data", "get", name, "--root", tmp_path)
    assert (code, out) == (2, "")
    assert all(word in err for word in ("CC BY 4.0", "https://example.org/toys", "0 MB"))
    assert server.asked == []
    code, out, err = labkit("data", "get", name, "--root", tmp_path, "--json")
    assert code == 0
    assert json.loads(out)["folder"] == str(tmp_path / "toy")
    assert (tmp_path / "toy" / "good" / "000.png").is_file()


@pytest.mark.usefixtures("toy")
def test_the_command_does_not_ask_when_told_so(labkit, tmp_path):
    code, out, _ = labkit("data", "get", "toy", "--root", tmp_path, "--yes")
    assert code == 0
    assert out.startswith("Toys (Maker 2020) is in ")
    for name, message in (("toy", "is already in"), ("procedural/gear", "drawn on demand"),
                          ("toi", "nearest name is 'toy/a'")):  # fmt: skip
        code, out, err = labkit("data", "get", name, "--root", tmp_path, "--yes")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err
