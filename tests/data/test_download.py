"""Downloads against a server in a thread: resumed, verified, unpacked in their place alone."""

import errno
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from archive_server import MEMBERS, NOISE, WHOLE, archive, partly, source, tar, zipped
from filelock import FileLock

from labkit.data import download
from labkit.data.entry import Archive

BUSY = "Another process is getting toy"


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
