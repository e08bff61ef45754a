"""Archives of a toy dataset and a server in a thread, which may break off, that gives them."""

import hashlib
import io
import tarfile
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from labkit.data.entry import Archive, Source

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
