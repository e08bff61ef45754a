"""Downloads against a server in a thread: resumed, verified, unpacked in their place alone."""

import errno
import hashlib
import io
import json
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from labkit import cli
from labkit.datasets import catalogue, download
from labkit.datasets.entry import Archive, Entry, Source

BUSY = "Another process is getting toy"
NOISE = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


def tar(members, suffix="gz"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{suffix}") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def zipped(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


MEMBERS = {"good/000.png": NOISE, "readme.txt": b"hello"}
WHOLE = tar(MEMBERS)


class Server(ThreadingHTTPServer):
    """Serves `files` by path; it may not know ranges, or drop the line after so many bytes."""

    ranges, breaks_after, status = True, None, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {}, []
        self.daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content, asked = self.server.files[self.path], self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status:
            self.send_error(self.server.status)
            return
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if asked and self.server.ranges else 200)
        if asked and self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def archive(server, content=WHOLE, name="toy.tar.gz", checksum=True, size=True):
    server.files[f"/{name}"] = content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if checksum is True else checksum
    url = f"http://127.0.0.1:{server.server_port}/{name}?download=1"
    server.files[f"/{name}?download=1"] = content
    return Archive(url, len(content) if size else None, digest)


def source(*archives):
    return Source(
        name="toy",
        title="Toys (Maker 2020)",
        licence="CC BY 4.0",
        page="https://example.org/toys",
        folders=("toy",),
        holds=("good",),
        archives=archives,
        size=sum(a.size or 0 for a in archives),
    )


def partly(tmp_path, content, name="toy.tar.gz"):
    part = tmp_path / "toy.download" / f"{name}.part"
    part.parent.mkdir()
    part.write_bytes(content)
    return part


def get(toy, root):
    return download.get(toy, root, progress=False)


def test_a_dataset_is_put_in_place_whole(server, tmp_path):
    toy = source(archive(server), archive(server, zipped({"test/1.png": b"1"}), "more.zip"))
    folder = get(toy, tmp_path / "new")
    assert folder == tmp_path / "new" / "toy" == toy.place(tmp_path / "new")
    assert (folder / "good" / "000.png").read_bytes() == NOISE
    assert (folder / "test" / "1.png").read_bytes() == b"1"
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]
    assert server.asked == [None, None]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_half_is_completed_not_loaded_again(server, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, WHOLE).hexdigest()}"
    partly(tmp_path, WHOLE[:1000])
    get(source(archive(server, checksum=checksum)), tmp_path)
    assert server.asked == ["bytes=1000-"]


@pytest.mark.parametrize("size", [True, False])
def test_a_whole_part_needs_no_byte(server, tmp_path, size):
    partly(tmp_path, WHOLE)
    get(source(archive(server, size=size)), tmp_path)
    assert server.asked == ([] if size else [f"bytes={len(WHOLE)}-"])


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges = False
    partly(tmp_path, b"x" * 1000)
    folder = get(source(archive(server)), tmp_path)
    assert (folder / "good" / "000.png").read_bytes() == NOISE


def test_a_broken_line_is_taken_up_again(server, tmp_path):
    server.breaks_after = len(WHOLE) // 3
    folder = get(source(archive(server)), tmp_path)
    assert (folder / "good" / "000.png").read_bytes() == NOISE
    assert server.asked[0] is None
    assert server.asked[1] == f"bytes={server.breaks_after}-"


def test_a_line_that_always_breaks_keeps_what_came(server, tmp_path):
    server.breaks_after = 100
    with pytest.raises(ValueError, match=r"broke 5 times, last at 500 bytes; run .* goes on"):
        get(source(archive(server)), tmp_path)
    part = tmp_path / "toy.download" / "toy.tar.gz.part"
    assert part.read_bytes() == WHOLE[:500]
    assert not (tmp_path / "toy").exists()
    server.breaks_after = None
    get(source(archive(server)), tmp_path)
    assert server.asked[-1] == "bytes=500-"


@pytest.mark.parametrize("stage", ["_verify", "unpack"])
def test_a_process_killed_in_the_middle_goes_on(server, tmp_path, monkeypatch, stage):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    toy = source(archive(server))
    with monkeypatch.context() as patch:
        patch.setattr(download, stage, killed)
        with pytest.raises(Killed):
            get(toy, tmp_path)
    assert toy.place(tmp_path) is None
    (tmp_path / "toy.download" / "unpacked").mkdir()
    (tmp_path / "toy.download" / "unpacked" / "half").touch()
    folder = get(toy, tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["good", "readme.txt"]
    assert len(server.asked) == 1  # no byte twice


def test_another_checksum_or_size_is_told_and_removed(server, tmp_path):
    wrong = "sha256:" + "0" * 64
    with pytest.raises(
        ValueError, match=rf"has the sha256 [0-9a-f]{{64}}, not {'0' * 64}; it was"
    ):
        get(source(archive(server, checksum=wrong)), tmp_path)
    assert list(tmp_path.iterdir()) == []
    toy = source(Archive(archive(server).url, len(WHOLE) - 1, None))
    with pytest.raises(ValueError, match=rf"has {len(WHOLE)} bytes, not {len(WHOLE) - 1}"):
        get(toy, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "name"),
    [(WHOLE[:-2000], "t.tar.gz"), (b"no archive", "t.tar"), (zipped(MEMBERS)[:-9], "t.zip"),
     (tar(MEMBERS, "xz")[:-2000], "t.tar.xz")],
    ids=["tar.gz", "no archive", "zip", "tar.xz"],  # the bytes hold the time: workers would differ
)  # fmt: skip
def test_a_damaged_archive_without_checksum_is_told_and_removed(server, tmp_path, content, name):
    with pytest.raises(ValueError, match=rf"{name} is damaged .*; it was removed"):
        get(source(archive(server, content, name, checksum=None)), tmp_path)
    assert not (tmp_path / "toy").exists()
    assert not (tmp_path / "toy.download" / name).exists()


def link(target):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, target
        made.addfile(info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (tar({"../evil": b"x"}), "t.tar.gz"),
        (tar({"a/../../evil": b"x"}), "t.tar.gz"),
        (zipped({"../evil": b"x"}), "t.zip"),
        (link("/etc"), "t.tar"),
    ],
    ids=["parent", "parent of a folder", "zip", "link"],
)
def test_nothing_is_written_outside(server, tmp_path, content, name):
    with pytest.raises(ValueError, match=rf"{name} (has the member|is not unpacked)"):
        get(source(archive(server, content, name)), tmp_path)
    assert not list(tmp_path.rglob("*evil*"))
    assert not (tmp_path / "toy").exists()


def test_what_stands_in_the_way_is_one_sentence(server, tmp_path, monkeypatch):
    toy = source(archive(server))
    with (
        FileLock(_made(tmp_path / "toy.download") / ".lock"),
        pytest.raises(ValueError, match="A"),
    ):
        get(toy, tmp_path)
    server.status = 404
    with pytest.raises(ValueError, match="answers 404 Not Found"):
        get(toy, tmp_path)
    huge = source(Archive(toy.archives[0].url, 10**18, None))
    with pytest.raises(ValueError, match=r"needs about 2000000000.0 GB, but the disk"):
        get(huge, tmp_path)
    server.status = None
    get(toy, tmp_path)
    with pytest.raises(ValueError, match=r"is already in .*toy; remove that"):
        get(toy, tmp_path)
    with pytest.raises(ValueError, match=r"no address without a login; ask .*example.org/toys"):
        get(source(), tmp_path / "other")
    _made(tmp_path / "third" / "toy")
    with pytest.raises(ValueError, match="is there without Toys"):
        get(toy, tmp_path / "third")
    nowhere = source(Archive("http://127.0.0.1:9/toy.tar"))
    with pytest.raises(ValueError, match=r"127.0.0.1:9 cannot be reached"):
        get(nowhere, tmp_path / "fourth")


def _made(folder):
    folder.mkdir(parents=True)
    return folder


def test_a_full_disk_keeps_the_part(server, tmp_path, monkeypatch):
    opened = Path.open

    def full(path, mode="r", *rest, **more):
        file = opened(path, mode, *rest, **more)
        if path.suffix == ".part" and "b" in mode and "r" not in mode:
            file.write(WHOLE[:77])
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(ValueError, match="is full; free some space and run"):
            get(source(archive(server)), tmp_path)
    get(source(archive(server)), tmp_path)
    assert server.asked == [None, "bytes=77-"]


@pytest.fixture
def labkit(monkeypatch, capsys, server):
    toy = source(archive(server))
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
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize("name", ["toy", "toy/a"])
def test_the_command_tells_the_terms_and_asks(labkit, tmp_path, server, name):
    code, out, err = labkit("data", "get", name, "--root", tmp_path, answer="n\n")
    assert code == 2
    assert out == ""
    assert all(word in err for word in ("CC BY 4.0", "https://example.org/toys", "0.00 GB"))
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
    ("name", "said"), [("procedural/gear", "drawn on demand"), ("toi", "nearest name is 'toy/a'")]
)
def test_the_command_says_what_it_cannot_get(labkit, tmp_path, name, said):
    code, out, err = labkit("data", "get", name, "--root", tmp_path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


SOURCES = {e.source.name: e.source for e in catalogue.table().values() if e.source}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_fit_for_download(name, tmp_path):
    known = SOURCES[name]
    assert download.source_of(name) is known
    files = [download._file_name(part) for part in known.archives]
    assert len(set(files)) == len(files)
    assert all(Path(file).suffix in {".gz", ".xz", ".tar", ".zip"} for file in files)
    assert all(part.checksum is None or ":" in part.checksum for part in known.archives)
    assert known.holds
    assert known.page.startswith("http")
    assert known.licence in download.terms(known, tmp_path)
