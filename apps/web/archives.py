"""Pictures out of a ZIP that a stranger sent, or one sentence on why not.

Nothing is written before the whole table of contents has been checked: names that leave the
folder, links, encryption, archives in archives, and what it would grow to. The sizes in that
table may lie; `zipfile` reads no further than they say.
"""

import shutil
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from labkit.data.images import SUFFIXES

NESTED = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems add unasked
END, CONTENTS = 22 + 65_535, 2048  # bytes: the longest end record, contents a member at most
MEMBERS, SIZE = 5000, 2 << 30  # what an archive may hold: members, bytes unpacked all together
RATIO = 200  # unpacked to packed; pictures hardly shrink, flat drawings up to 100-fold
_BROKEN = (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


def is_zip(path: Path | str) -> bool:
    """Whether a file is meant as a ZIP: by its name, or by how it begins."""
    path = Path(path)
    if path.suffix.lower() == ".zip" or not path.is_file():
        return path.suffix.lower() == ".zip"
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(path: Path, folder: Path, size: int = SIZE) -> list[str]:
    """Write an archive's pictures under a folder, as they lie in it; other files are left out.

    Args:    size: bytes that they may have, all together.
    Returns: their names in it, in order, parts joined by "/".
    Raises:  ValueError in one sentence: no ZIP, damaged, encrypted, too large, no picture in it,
             or a member that is a link, an archive, twice there or outside the folder.
    """
    name = path.name
    try:
        _check_contents(path)
        with ZipFile(path) as archive:
            chosen = _checked(archive.infolist(), name, size)
            for member in chosen:
                target = folder / _place(member)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except UnicodeError:
        raise ValueError(f"{name} has a name that cannot be read; pack it anew.") from None
    except _BROKEN as error:
        message = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = message.partition("\n")[0].rstrip(".")
        raise ValueError(f"{name} cannot be unpacked ({reason}); pack it anew.") from None
    return [str(_place(member)) for member in chosen]


def _check_contents(path: Path) -> None:
    """Refuse a table of contents of millions of members before it is read into memory."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - END))
        tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) < place + 22:
        raise ValueError(f"{path.name} is no ZIP archive; give a .zip of pictures.")
    length = int.from_bytes(tail[place + 12 : place + 16], "little")
    if length > MEMBERS * CONTENTS:
        raise ValueError(_many(path.name))


def _checked(members: Sequence[ZipInfo], name: str, most: int) -> list[ZipInfo]:
    """The pictures among them, once every member is harmless."""
    if len(members) > MEMBERS:
        raise ValueError(_many(name))
    size, packed = (sum(getattr(m, k) for m in members) for k in ("file_size", "compress_size"))
    if size > most or size > RATIO * max(packed, 1):
        raise ValueError(
            f"{name} would grow from {packed / 1e6:.3g} to {size / 1e6:.3g} MB; the limits are "
            f"{most / 1e6:.0f} MB and {RATIO}-fold, so pack fewer pictures."
        )
    for member in members:
        fault = _fault(member)
        if fault:
            raise ValueError(f"{name}: {fault}.")
    files = [member for member in members if not member.is_dir() and not _hidden(member)]
    pictures = [m for m in files if PurePosixPath(m.filename).suffix.lower() in SUFFIXES]
    if not pictures:
        kinds = " ".join(sorted(suffix[1:] for suffix in SUFFIXES))
        raise ValueError(f"{name} holds {len(files)} files and no picture ({kinds}) among them.")
    return pictures


def _fault(member: ZipInfo) -> str:
    """Why a member is refused, or nothing."""
    name, mode = member.orig_filename, member.external_attr >> 16
    windows = PureWindowsPath(name)
    if name.startswith(("/", "\\")) or windows.drive or ".." in windows.parts or "\0" in name:
        return f"its member {name[:80]!r} would lie outside the folder it is unpacked to"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return f"its member {name[:80]!r} is a link or a device; pack the pictures themselves"
    if member.flag_bits & 0x1:
        return f"its member {name[:80]!r} is encrypted; pack it without a password"
    if windows.suffix.lower() in NESTED:
        return f"its member {name[:80]!r} is an archive itself; pack its pictures instead"
    return ""


def _hidden(member: ZipInfo) -> bool:
    parts = _place(member).parts
    return any(part.startswith(".") or part in HIDDEN for part in parts)


def _place(member: ZipInfo) -> PurePosixPath:
    """Where it goes, below the folder."""
    return PurePosixPath(*PureWindowsPath(member.filename).parts)


def _many(name: str) -> str:
    return f"{name} has more than {MEMBERS} members; pack fewer pictures."
