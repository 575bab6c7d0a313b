"""HTTP server for a fixed table of files: it looks names up and never walks the file system. Standard library only.

It answers GET and HEAD, by default on this machine alone, and takes nothing in.
"""

from __future__ import annotations

import errno
import os
import shutil
import socketserver
import stat
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from keras_effnet.errors import UserError
from keras_effnet.export.web.page import INDEX

LOCALHOST = "127.0.0.1"
_LATER_PORTS = 20  # that are tried if the first is in use
_LARGEST_PORT = 65535
_SECONDS = 30  # until a silent connection is closed
_METHODS = "GET, HEAD"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".wasm": "application/wasm",
    ".tflite": "application/octet-stream",
}
_HEADERS = {
    "Cache-Control": "no-cache",
    # WebAssembly has threads only on pages that share no process with others.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'none'",  # the rest of the policy is in the page
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Server of a table of files.

    Args:
        files: Dict of name, with `/` between folders, to a path or to the content.
        host: String, address to listen on.
        port: Int; 0 for any free one.
    """

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # on Windows it would share a port that is in use

    def __init__(self, files: Mapping[str, Path | bytes], host: str = LOCALHOST, port: int = 0):
        self.files = {f"/{name}": source for name, source in files.items()}
        self.files["/"] = self.files[f"/{INDEX}"]
        self.loopback = is_loopback(host)
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without the look-up of the host's name, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def url(self) -> str:
        """Address for a browser on this machine."""
        host = "localhost" if self.loopback or self.server_name == "0.0.0.0" else self.server_name
        return f"http://{host}:{self.server_port}/"

    def handle_error(self, request, client_address) -> None:
        """Stay silent: a browser that goes away in the middle of an answer is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "keras-effnet", ""
    protocol_version = "HTTP/1.1"
    timeout = _SECONDS

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def __getattr__(self, name: str):
        if name.startswith("do_"):  # any other method
            return self._refuse_method
        raise AttributeError(name)

    def _refuse_method(self) -> None:
        self.close_connection = True  # whatever it sent is not read
        self._say(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": _METHODS})

    def _answer(self, body: bool) -> None:
        if self.headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # the content of a request is not read
        if self.server.loopback and not _names_this_machine(self.headers.get("Host", "")):
            return self._say(HTTPStatus.MISDIRECTED_REQUEST)  # another site's name that was made to point here
        name = unquote(self.path.partition("?")[0], errors="replace")
        source = self.server.files.get(name)
        if source is None:
            return self._say(HTTPStatus.NOT_FOUND)
        try:
            stream, size = _opened(source)
        except OSError:  # removed since, or replaced by a link
            return self._say(HTTPStatus.NOT_FOUND)
        with stream:
            suffix = Path(INDEX if name == "/" else name).suffix.lower()
            self._start(HTTPStatus.OK, _TYPES.get(suffix, "application/octet-stream"), size)
            if body:
                shutil.copyfileobj(stream, self.wfile)

    def _start(self, status: HTTPStatus, kind: str, size: int, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(size), **_HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _say(self, status: HTTPStatus, more: Mapping[str, str] | None = None) -> None:
        text = f"{status.value} {status.phrase}\n".encode()
        self._start(status, _TYPES[".txt"], len(text), more)
        if self.command != "HEAD":
            self.wfile.write(text)

    def log_message(self, *args) -> None:
        """Print nothing: the address bar is the interface."""


def _opened(source: Path | bytes) -> tuple[BinaryIO, int]:
    """Open a file that is still a regular one, and no link since the server started."""
    if isinstance(source, bytes):
        return BytesIO(source), len(source)
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = os.fdopen(os.open(source, flags), "rb")
    found = os.fstat(stream.fileno())
    if not stat.S_ISREG(found.st_mode):
        stream.close()
        raise OSError(errno.EINVAL, "not a regular file")
    return stream, found.st_size


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def _names_this_machine(header: str) -> bool:
    """Whether the Host header of a request names this machine, as a browser on it does."""
    try:
        return is_loopback(urlsplit(f"//{header}").hostname or "")
    except ValueError:
        return False


def open_server(
    files: Mapping[str, Path | bytes], host: str = LOCALHOST, port: int = 8000, *, exactly: bool = False
) -> PageServer:
    """Start to listen, on the next free port if one is in use.

    Args:
        files: As for `PageServer`.
        host: String.
        port: Int.
        exactly: Bool, whether to fail if the port is in use.

    Returns:
        A `PageServer`; `serve_forever()` answers requests.

    Raises:
        UserError: The port or the address cannot be used.
    """
    last = port if exactly else min(port + _LATER_PORTS, _LARGEST_PORT)
    for candidate in range(port, last + 1):
        try:
            return PageServer(files, host, candidate)
        except OSError as error:
            problem = error
            if error.errno != errno.EADDRINUSE:
                break
    if problem.errno == errno.EADDRINUSE:
        ports = f"Port {port} is" if exactly else f"Ports {port} to {last} are"
        raise UserError(f"{ports} in use: choose another one with --port, or --port 0 for any free one.")
    if problem.errno in (errno.EACCES, errno.EPERM):
        raise UserError(f"Port {port} may not be used: choose one from 1024 on with --port.")
    raise UserError(f"Cannot listen on {host}: {problem.strerror or problem}. Choose an address of this machine.")
