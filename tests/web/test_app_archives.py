"""A stranger's ZIP: its pictures come out, and nothing else ever does."""

import io
import stat
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from labkit_apps.web import archives
from labkit_apps.web.archives import SIZE, is_zip, unpack


def picture(seed=0, size=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


@pytest.fixture
def pack(tmp_path):
    """A ZIP of members, each (name or ZipInfo, content)."""

    def write(*members, name="parts.zip", method=zipfile.ZIP_DEFLATED):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, content in members:
                archive.writestr(member, content)
        return path

    return write


def refused(path, tmp_path, words, size=SIZE):
    """It says why in one sentence that names the archive, and wrote nothing."""
    out = tmp_path / "out" / "deep"
    before = {p for p in tmp_path.rglob("*") if "out" not in p.parts}
    with pytest.raises(ValueError, match=words) as told:
        unpack(path, out, size)
    assert str(told.value).count("\n") == 0
    assert path.name in str(told.value)
    assert str(tmp_path) not in str(told.value)
    assert {p for p in tmp_path.rglob("*") if "out" not in p.parts} == before
    assert not list(tmp_path.rglob("evil*"))


def test_pictures_come_out_where_they_lay_and_the_rest_stays(pack, tmp_path):
    members = [("b/2.png", picture(1)), ("a.PNG", picture()), ("notes.txt", b"no picture"),
               ("__MACOSX/a.png", b"junk"), ("b/.hidden.png", b"junk"), ("b/", b"")]  # fmt: skip
    path = pack(*members)
    assert is_zip(path)
    assert not is_zip(tmp_path / "a.png")
    assert unpack(path, tmp_path / "out") == ["b/2.png", "a.PNG"]
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.*")) == ["2.png", "a.PNG"]
    assert (tmp_path / "out/b/2.png").read_bytes() == picture(1)


LEAVING = ["../evil.png", "a/../../evil.png", "/evil.png", "\\evil.png", "..\\evil.png",
           "a\\..\\..\\evil.png", "C:\\evil.png", "C:evil.png", "\\\\server\\share\\evil.png",
           "evil.png\0.txt"]  # fmt: skip
KINDS = [stat.S_IFREG] * len(LEAVING) + [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR]


@pytest.mark.parametrize(
    ("name", "kind"), [*zip([*LEAVING, *["evil.png"] * 3], KINDS, strict=True)]
)
def test_no_name_leaves_the_folder_and_there_are_no_links_and_devices(pack, tmp_path, name, kind):
    info = zipfile.ZipInfo("x")
    info.filename, info.create_system, info.external_attr = name, 3, (kind | 0o777) << 16
    words = "outside the folder" if name in LEAVING else "link or a device"
    refused(pack(("a.png", picture()), (info, picture())), tmp_path, words)


def test_no_archives_in_archives(pack, tmp_path):
    inner = pack(("a.png", picture()), name="inner.zip").read_bytes()
    refused(pack(("a.png", picture()), ("more/inner.zip", inner)), tmp_path, "archive itself")


def test_no_encryption(pack, tmp_path):
    path = pack(("a.png", picture()), method=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the flag in the member's own header and in the table of contents
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    refused(path, tmp_path, "encrypted")


def test_bombs_are_told_by_their_sizes(pack, tmp_path, monkeypatch):
    flat = pack(("evil.bmp", bytes(3_000_000)))
    refused(flat, tmp_path, "would grow")
    several = pack(*[(f"{k}.png", picture(k)) for k in range(4)])
    total = sum(len(picture(k)) for k in range(4))
    refused(several, tmp_path, "would grow", total - 1)
    assert len(unpack(several, tmp_path / "fits", total)) == 4
    monkeypatch.setattr(archives, "MEMBERS", 3)
    refused(several, tmp_path, "more than 3 members")


def test_a_table_of_contents_is_measured_before_it_is_read(pack, tmp_path, monkeypatch):
    path = pack(*[(f"{k}{'x' * 3000}.png", b"") for k in range(3)])
    monkeypatch.setattr(archives, "ZipFile", None)
    monkeypatch.setattr(archives, "MEMBERS", 2)
    refused(path, tmp_path, "more than 2 members")


def test_sizes_that_lie(pack, tmp_path):
    """The table says 10 bytes; the member holds a megabyte, and it never comes out."""
    path = pack(("evil.png", bytes(1 << 20)))
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + place
        content[at : at + 4] = struct.pack("<I", 10)
    path.write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="cannot be unpacked"):
        unpack(path, out)
    assert sum(p.stat().st_size for p in out.rglob("*.png")) <= 10


@pytest.mark.parametrize("limit", [0, 60, 200])
def test_a_damaged_archive_is_one_sentence(pack, tmp_path, limit):
    path = pack(("a.png", picture()))
    path.write_bytes(path.read_bytes()[:limit])
    refused(path, tmp_path, "no ZIP archive")


def test_damaged_inside(pack, tmp_path):
    path = pack(("a.png", picture()))
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    refused(path, tmp_path, "cannot be unpacked")


def test_a_picture_twice_or_none(pack, tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = pack(("a.png", picture()), ("a.png", picture()))
    refused(twice, tmp_path, "File exists")
    refused(pack(("a.txt", b"words")), tmp_path, "no picture")
    refused(pack(), tmp_path, "no picture")
    clash = pack(("a.png", picture()), ("a.png/b.png", picture()))
    refused(clash, tmp_path, "cannot be unpacked")
