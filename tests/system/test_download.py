"""Downloads from a local server that breaks off and refuses: a complete file, or an error of one line."""

import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from keras_effnet.errors import UserError
from keras_effnet.system.download import fetch

CONTENT = bytes(range(256)) * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        """Answers as RFC 9110, section 14, says, but for what the server's attributes ask for."""
        server, wanted = self.server, self.headers["Range"]
        server.requests.append(wanted)
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.resumes else 0
        if server.status is not None:
            return self.send_error(server.status)
        if start >= len(server.content):
            return self.send_error(416)
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if server.tells_length:
            self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        return None  # the connection ends here, whatever length was announced

    def log_message(self, *_):
        pass


class Server(HTTPServer):
    """Serves `content`; the first answers break off after as many bytes as `cuts` says."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cuts, self.requests = CONTENT, [], []
        self.resumes, self.tells_length, self.status = True, True, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/weights.h5"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "models" / "weights.h5"


def part_of(path):
    return path.with_name("weights.h5.part")


def leave_part(path, content):
    path.parent.mkdir()
    part_of(path).write_bytes(content)


def test_a_file_is_downloaded_once(server, path):
    for _ in range(2):
        assert fetch(server.url, str(path), MD5) == path
    assert path.read_bytes() == CONTENT
    assert server.requests == [None]
    assert list(path.parent.iterdir()) == [path]


def test_a_connection_that_breaks_is_resumed_where_it_broke(server, path):
    server.cuts = [100_000, 50_000, 1]
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_server_that_cannot_resume_sends_everything_anew(server, path):
    server.cuts, server.resumes = [100_000], False
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == [None, "bytes=100000-"]


def test_an_attempt_that_brings_nothing_is_the_last(server, path):
    server.cuts = [100_000, 0]
    with pytest.raises(UserError, match="the connection ended at 100000 of 256000 bytes"):
        fetch(server.url, path, MD5)
    assert len(server.requests) == 2


def test_what_arrived_is_kept_for_the_next_call(server, path):
    server.cuts = [100_000, 0]
    with pytest.raises(UserError):
        fetch(server.url, path, MD5)
    assert not path.exists()
    assert part_of(path).read_bytes() == CONTENT[:100_000]
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests[2:] == ["bytes=100000-"]
    assert not part_of(path).exists()


def test_a_server_that_always_cuts_at_the_same_byte_is_given_up(server, path):
    server.cuts, server.resumes = [100_000] * 10, False
    with pytest.raises(UserError, match="100000 of 256000"):
        fetch(server.url, path, MD5)
    assert len(server.requests) == 2


@pytest.mark.parametrize("kept", [CONTENT + b"more", CONTENT], ids=["longer", "whole"])
def test_a_part_that_leaves_nothing_to_ask_for_is_dropped(kept, server, path):
    """The server answers 416; an older file's part would otherwise stand in the way for ever."""
    leave_part(path, kept)
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT
    assert server.requests == [f"bytes={len(kept)}-", None]


def test_a_part_of_another_file_is_found_out_and_removed(server, path):
    leave_part(path, b"x" * 1000)
    with pytest.raises(UserError, match="not the published one"):
        fetch(server.url, path, MD5)
    assert list(path.parent.iterdir()) == []
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT


def test_a_length_that_is_not_told_is_no_hindrance(server, path):
    server.tells_length = False
    fetch(server.url, path, MD5)
    assert path.read_bytes() == CONTENT


def test_another_content_is_refused_and_removed(server, path):
    server.content = b"<html>Please log in to this network.</html>"
    with pytest.raises(UserError, match=r"is not the published one \(its md5 differs\)") as caught:
        fetch(server.url, path, MD5)
    assert_tells_what_to_do(caught, server.url, path)
    assert list(path.parent.iterdir()) == []


def test_a_file_of_that_name_with_another_hash_is_left_alone(server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"weights\.h5 is not the published file .*: remove it and try again"):
        fetch(server.url, path, MD5)
    assert path.read_bytes() == b"mine"
    assert server.requests == []


def assert_tells_what_to_do(caught, url, path):
    message = str(caught.value)
    assert f"Download {url} by other means to {path}." in message
    assert "\n" not in message


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (503, "Service Unavailable"), (416, "Range")])
def test_a_refusal_is_not_asked_for_again(status, reason, server, path):
    server.status = status
    with pytest.raises(UserError, match=rf"Cannot download weights\.h5 \(.*{reason}.*\)") as caught:
        fetch(server.url, path, MD5)
    assert_tells_what_to_do(caught, server.url, path)
    assert len(server.requests) == 1
    assert not path.exists()


def test_a_refusal_in_the_middle_keeps_what_arrived(server, path):
    leave_part(path, CONTENT[:1000])
    server.status = 503
    with pytest.raises(UserError, match="Service Unavailable"):
        fetch(server.url, path, MD5)
    assert part_of(path).read_bytes() == CONTENT[:1000]


def test_a_machine_that_does_not_answer_is_named_with_the_cure(monkeypatch, path):
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/weights.h5"
    with pytest.raises(UserError, match=r"Cannot download weights\.h5 \(.*refused.*\)") as caught:
        fetch(url, path, MD5)
    assert_tells_what_to_do(caught, url, path)


def test_a_folder_that_cannot_be_written_is_said(server, tmp_path):
    (tmp_path / "models").write_text("a file")
    path = tmp_path / "models" / "weights.h5"
    with pytest.raises(UserError, match=r"Cannot download weights\.h5 \(.*models") as caught:
        fetch(server.url, path, MD5)
    assert_tells_what_to_do(caught, server.url, path)
    assert server.requests == []
