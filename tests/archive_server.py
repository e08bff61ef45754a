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
    """Serves `files` by path; it may answer an error, or drop the line after so many bytes."""

    breaks_after, status, daemon_threads = None, 200, True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {}, []


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        content = self.server.files[self.path.removesuffix("?download=1")]
        self.server.asked.append(self.path)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: self.server.breaks_after])

    def log_message(self, *_):
        pass


def archive(server, content=WHOLE, name="toy.tar.gz", checksum=True):
    server.files[f"/{name}"] = content
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}" if checksum is True else checksum
    url = f"http://127.0.0.1:{server.server_port}/{name}?download=1"
    return Archive(url, len(content), digest)


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
