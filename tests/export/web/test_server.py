"""The server gives out the files of its table and nothing else, however it is asked."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from pathlib import Path

import pytest

from keras_effnet.errors import UserError
from keras_effnet.export.web.server import PageServer, open_server

SECRET = b"not for the page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of files, not all of which are served, beside a secret."""
    root = tmp_path_factory.mktemp("served")
    (root / "secret.txt").write_bytes(SECRET)
    (root / "page").mkdir()
    for name, content in (("index.html", b"<!doctype html>"), ("a b\u00e9.tflite", b"TFL3"), ("x.wasm", b"\0asm")):
        (root / "page" / name).write_bytes(content)
    (root / "page/unlisted.txt").write_bytes(SECRET)
    return root


@pytest.fixture(scope="module")
def server(folder):
    names = ("index.html", "a b\u00e9.tflite", "x.wasm")
    files: dict[str, Path | bytes] = {name: folder / "page" / name for name in names}
    with PageServer({**files, "litert/core.mjs": b"export {}"}) as found:
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield found
        found.shutdown()


def ask(server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def raw(server, request: bytes) -> bytes:
    """The answer to bytes that a client library would refuse to send."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("path", "kind", "content"),
    [
        ("/", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/index.html?again", "text/html; charset=utf-8", b"<!doctype html>"),
        ("/a%20b%C3%A9.tflite", "application/octet-stream", b"TFL3"),
        ("/x.wasm", "application/wasm", b"\0asm"),
        ("/litert/core.mjs", "text/javascript; charset=utf-8", b"export {}"),
    ],
)
def test_files_of_the_page_have_their_types(server, path, kind, content):
    status, headers, body = ask(server, path)
    assert (status, headers["Content-Type"], body) == (200, kind, content)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"  # threads need both
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert ask(server, path, "HEAD")[2] == b""
    assert ask(server, path, "HEAD")[1]["Content-Length"] == str(len(content))


def test_nothing_but_the_table_is_given_out(server, folder):
    absolute = str(folder / "secret.txt")
    paths = [
        "/../secret.txt",
        "/litert/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/%2E%2E%2Fsecret.txt",
        "/..%2fsecret.txt",
        "/%252e%252e%252fsecret.txt",
        "/..%5csecret.txt",
        "/..\\secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        absolute,
        f"/{absolute}",
        f"//localhost{absolute}",
        f"file://{absolute}",
        f"http://127.0.0.1{absolute}",
        "/unlisted.txt",
        "/index.html/",
        "/index.html/../unlisted.txt",
        "/./index.html",
        "/INDEX.HTML",
        "/index.html%00.txt",
        "/index.html%00",
        "/%",
        "/litert",
        "/litert/",
        "//[",
        "*",
        "index.html",
        "/" + "a" * 5000,
    ]
    for path in paths:
        status, _, body = ask(server, path)
        assert status == 404 and SECRET not in body, path
    long = raw(server, b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert long.startswith(b"HTTP/1.1 414")
    for request in (
        b"GET /../secret.txt\r\n\r\n",
        b"GET /index.html\0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\0\r\n\r\n",
    ):
        assert SECRET not in raw(server, request)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "PROPFIND", "get"])
def test_no_other_method_is_accepted(server, method):
    status, headers, _ = ask(server, "/index.html", method, **{"Content-Length": "0"})
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_the_content_of_a_request_is_not_taken_for_another_request(server):
    smuggled = b"GET /x.wasm HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for method in (b"POST", b"GET"):
        head = method + b" / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
        assert raw(server, head + smuggled).count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:80", 200), ("evil.example", 421), ("", 421), ("[", 421)],
)
def test_a_name_of_another_site_that_points_here_is_refused(server, host, status):
    assert ask(server, "/", Host=host)[0] == status


def test_a_file_that_becomes_a_link_is_no_longer_given_out(tmp_path):
    (tmp_path / "secret").write_bytes(SECRET)
    for name in ("index.html", "pipe"):
        (tmp_path / name).write_bytes(b"")
    with PageServer({name: tmp_path / name for name in ("index.html", "pipe")}) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        (tmp_path / "index.html").unlink()
        (tmp_path / "index.html").symlink_to("secret")
        (tmp_path / "pipe").unlink()
        os.mkfifo(tmp_path / "pipe")
        assert [ask(server, path)[0] for path in ("/index.html", "/pipe")] == [404, 404]
        server.shutdown()


def test_a_port_in_use_leads_to_the_next_or_to_an_error(server):
    files, port = {"index.html": b""}, server.server_port
    with open_server(files, port=port) as second:
        assert port < second.server_port <= port + 20
        assert second.url == f"http://localhost:{second.server_port}/"
    with pytest.raises(UserError, match=rf"Port {port} is in use: choose another one with --port"):
        open_server(files, port=port, exactly=True)


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(UserError, match=r"Cannot listen on 192\.0\.2\.1: .*Choose an address of this machine"):
        open_server({"index.html": b""}, "192.0.2.1", 0)
