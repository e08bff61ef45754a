"""Who may ask the server: its own names and its own page, and passwords not without end.

A browser tells in each request which name it asked for (`Host`) and which page asks (`Origin`, or
`Sec-Fetch-Site`). A page of another site that reaches the server, by its address or by a name that
was pointed at it, is refused before anything is read; so is its upload.
"""

import contextlib
import logging
import re
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from gradio.routes import App, ORJSONResponse
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = ("0.0.0.0", "::", "")  # hosts that stand for all addresses of the machine
TRIES, LOCK, KEPT = 5, 60.0, 10_000  # wrong passwords of one address, seconds, addresses
BUSY = f"Too many wrong passwords; try again in {LOCK:.0f} seconds."
log = logging.getLogger(__name__)


class GuardedApp(App):
    """Gradio's server with the guard before everything else."""

    def __init__(self, host: str, names: Sequence[str] = ()) -> None:
        super().__init__(default_response_class=ORJSONResponse)
        self._host, self._names = host, checked(names)
        self.add_exception_handler(TypeError, _nameless)

    def build_middleware_stack(self) -> ASGIApp:
        """All that Gradio has, behind the guard."""
        return Guard(super().build_middleware_stack(), self._host, self._names)


class Guard:
    """Lets through what the own page, a program or a typed address asks.

    Args:   host: what the server listens on; names: others it is known by, as behind a proxy.
    """

    def __init__(self, app: ASGIApp, host: str, names: set[str]) -> None:
        self.app, self.names = app, names
        self.hosts = {*LOCAL, *self.names, host.strip("[]").lower()}
        if host in EVERYWHERE:
            own = socket.gethostname().lower()
            self.hosts |= {own, own.partition(".")[0], own.partition(".")[0] + ".local"}
        self._wrong: dict[str, list[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it with one line in the log."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        client = (scope.get("client") or ["?"])[0]
        fault, status = self._fault(scope), 403
        if not fault and scope["path"].rstrip("/").endswith("/login"):
            send, fault, status = *self._login(client, send), 429
        if fault:
            log.warning("refused %s from %s: %s", scope["path"][:80], client, fault)
            await PlainTextResponse(fault, status)(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            _keep_cookies_home(message)
            await send(message)

        await self.app(scope, receive, answer)

    def _fault(self, scope: Scope) -> str:
        """Why a request is not answered, or nothing."""
        headers, here = Headers(scope=scope), (scope.get("server") or [""])[0]
        host = headers.get("host", "").lower()
        if _name(host) not in {*self.hosts, here.removeprefix("::ffff:")}:
            return f"This app has no host name {host[:80]!r}; its owner may give it with --name."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is None:
            followed = scope["path"] == "/" and headers.get("sec-fetch-dest") == "document"
            own = followed or site in ("none", "same-origin")
        else:
            page = origin.lower().partition("://")[2]
            own = page == host or _name(page) in self.names
        return "" if own else f"A page of another site ({origin or site!r:.80}) may not use this."

    def _login(self, client: str, send: Send) -> tuple[Send, str]:
        """A login counts as wrong until its answer says that it was right; some may be wrong."""
        now = time.monotonic()
        recent = [then for then in self._wrong.pop(client, ()) if now - then < LOCK]
        if len(recent) < TRIES and len(self._wrong) > KEPT:
            self._wrong.pop(next(iter(self._wrong)))
        fault = BUSY if len(recent) >= TRIES else ""
        self._wrong[client] = recent if fault else [*recent, now]

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self._wrong.pop(client, None)
            await send(message)

        return counted, fault


def checked(names: Sequence[str]) -> set[str]:
    """Host names in small letters.

    Raises: ValueError for one with more in it than a name.
    """
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"--name {name} is no host name; give one such as app.example.org.")
    return {name.lower() for name in names}


def _nameless(request: Request, error: Exception) -> PlainTextResponse:
    """Gradio takes the upload of a part without a file name for a fault of its own."""
    if not request.url.path.endswith("/upload"):
        raise error
    return PlainTextResponse("A file has no name; give it one.", 400)


def _name(place: str) -> str:
    """The host without its port; empty if it is none."""
    with contextlib.suppress(ValueError):
        return (urlsplit(f"//{place}").hostname or "").rstrip(".")
    return ""


def _keep_cookies_home(message: Message) -> None:
    """No cookie goes along with what the page of another site asks."""
    if message["type"] == "http.response.start":
        message["headers"] = [
            (key, re.sub(rb"(?i)samesite=none", b"SameSite=lax", value))
            if key.lower() == b"set-cookie" else (key, value)
            for key, value in message.get("headers", ())
        ]  # fmt: skip
