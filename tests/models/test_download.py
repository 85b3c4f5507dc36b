"""Downloads: from a server on this machine that behaves well, badly and slowly."""

import concurrent.futures
import hashlib
import http.server
import threading
import time

import pytest

from coos.models.pretrained import download

CONTENT = bytes(range(256)) * 9000  # more than two chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
CHECKSUMS = [f"sha256:{SHA256}", f"sha256:{SHA256.upper()}", f"sha256-prefix:{SHA256[:8]}"]
CHECKSUMS += [f"md5:{hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}"]


class Handler(http.server.BaseHTTPRequestHandler):
    """The path says how to misbehave."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if "missing" in self.path:
            self.send_error(404)
            return
        if "barrier" in self.path:
            self.server.barrier.wait()
        length = len(CONTENT) + 1000 * ("truncated" in self.path)
        self.send_response(200)
        if "unknown" not in self.path:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(CONTENT[:-1] if "unknown_short" in self.path else CONTENT)
        if "stalled" in self.path:
            self.server.barrier.wait(5)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.requests = []
        running.barrier = threading.Barrier(4)
        running.url = f"http://127.0.0.1:{running.server_port}"
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("checksum", CHECKSUMS)
def test_a_download_and_then_the_cache(server, tmp_path, checksum):
    url = f"{server.url}/models/net-1234.pth?raw=1"
    for _ in range(2):
        path = download.fetch(url, checksum=checksum, cache_dir=tmp_path / "new", expected_size=len(CONTENT))
        assert path == tmp_path / "new" / "net-1234.pth"
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert list(path.parent.iterdir()) == [path]


def test_the_cache_is_where_the_environment_says(server, tmp_path, monkeypatch):
    monkeypatch.setenv("COOS_CACHE", str(tmp_path / "mine"))
    assert download.fetch(f"{server.url}/a.h5", checksum=CHECKSUMS[0]) == tmp_path / "mine" / "a.h5"
    monkeypatch.delenv("COOS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = tmp_path / ".cache" / "coos" / "weights" / "a.h5"
    assert download.fetch(f"{server.url}/a.h5", checksum=CHECKSUMS[0]) == expected


def refused(folder, url, message, **options):
    with pytest.raises(ValueError, match=message):
        download.fetch(url, **{"checksum": CHECKSUMS[0], "cache_dir": folder, **options})
    assert not list(folder.iterdir())


def test_a_wrong_checksum_names_both_and_leaves_nothing(server, tmp_path):
    for kind, digits in (("sha256", 64), ("md5", 32), ("sha256-prefix", 8)):
        found = hashlib.new(kind.removesuffix("-prefix"), CONTENT).hexdigest()
        message = rf"{server.url}/a\.pth: .* {found}, expected {'0' * digits}:"
        refused(tmp_path, f"{server.url}/a.pth", message, checksum=f"{kind}:{'0' * digits}")


def test_truncated_downloads(server, tmp_path):
    size = len(CONTENT)
    refused(tmp_path, f"{server.url}/truncated", f"truncated: ended after {size} of {size + 1000} bytes")
    options = {"expected_size": size}
    refused(tmp_path, f"{server.url}/unknown_short", f"ended after {size - 1} of {size} bytes", **options)
    refused(tmp_path, f"{server.url}/a", f"has {size} bytes, expected 9", expected_size=9)
    refused(tmp_path, f"{server.url}/unknown", "more than the 9 bytes expected", expected_size=9)
    assert download.fetch(f"{server.url}/unknown", checksum=CHECKSUMS[0], cache_dir=tmp_path).exists()


def test_unreachable_files_say_where_to_place_them(server, tmp_path):
    by_hand = rf"place it as {tmp_path}/a\.pth"
    refused(tmp_path, f"{server.url}/missing/a.pth", f"missing/a.pth: .*HTTP 404 .*{by_hand}")
    refused(tmp_path, "http://127.0.0.1:1/a.pth", f"127.0.0.1:1/a.pth: cannot .*refused.*{by_hand}")


def test_a_server_that_stalls(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    server.barrier = threading.Barrier(2)
    start = time.monotonic()
    refused(tmp_path, f"{server.url}/stalled_truncated", r"no data for 0\.2 s")
    assert time.monotonic() - start < 4
    server.barrier.abort()


def test_a_wrong_file_in_the_cache_is_neither_used_nor_replaced(server, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match=rf"{path}: in the cache, but not .*expected {SHA256}.*delete it"):
        download.fetch(f"{server.url}/a.pth", checksum=CHECKSUMS[0], cache_dir=tmp_path)
    assert path.read_bytes() == b"something else"
    assert not server.requests
    path.write_bytes(CONTENT)  # placed by hand
    assert download.fetch(f"{server.url}/a.pth", checksum=CHECKSUMS[0], cache_dir=tmp_path) == path
    assert not server.requests


def test_downloads_of_one_file_at_once(server, tmp_path):
    """The server answers none of the four before it has all four."""
    url = f"{server.url}/barrier.pth"
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        paths = list(
            pool.map(lambda c: download.fetch(url, checksum=c, cache_dir=tmp_path), [CHECKSUMS[0]] * 4)
        )
    assert len(server.requests) == 4
    assert set(paths) == set(tmp_path.iterdir()) == {tmp_path / "barrier.pth"}
    assert paths[0].read_bytes() == CONTENT


def test_an_interrupted_download_leaves_nothing(server, tmp_path, monkeypatch):
    def interrupted(*arguments):
        yield CONTENT[:100]
        assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download.fetch(f"{server.url}/a.pth", checksum=CHECKSUMS[0], cache_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "checksum", ["", "sha256:", "sha256:12", "md5:" + "g" * 32, "sha1:" + "0" * 40, "sha256-prefix:1234"]
)
def test_checksums_are_checked_themselves(tmp_path, checksum):
    refused(tmp_path, "http://127.0.0.1:1/a", "give sha256:<64 digits>", checksum=checksum)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "http://host", "http://host/", "http://host/..", "a.pth"]
)
def test_only_files_on_the_web(tmp_path, url):
    refused(tmp_path, url, "not a web address of a file")


def test_a_name_cannot_leave_the_cache(tmp_path):
    refused(tmp_path, "http://127.0.0.1:1/a%2F..%2F..%2Fb", "not a web address of a file")
