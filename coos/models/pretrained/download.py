"""Files from the web into a cache, checked on the way in and before every use."""

import contextlib
import hashlib
import http.client
import os
import pathlib
import re
import string
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from tqdm import tqdm

CACHE_VARIABLE = "COOS_CACHE"
DEFAULT_CACHE = "~/.cache/coos/weights"
TIMEOUT = 30.0  # seconds without data
CHUNK = 1 << 20
DIGEST_LENGTHS = {"sha256": (64, 64), "md5": (32, 32), "sha256-prefix": (8, 64)}


class _Checksum(NamedTuple):
    """An algorithm of hashlib and the (beginning of the) digest that a file must have, in hexadecimal digits."""

    algorithm: str
    expected: str

    def hasher(self) -> Any:
        """A new hash to update."""
        return hashlib.new(self.algorithm, usedforsecurity=False)

    def accepts(self, digest: str) -> bool:
        """Whether a file with this digest is the right one."""
        return digest.startswith(self.expected)


def fetch(
    url: str,
    *,
    checksum: str,
    cache_dir: str | pathlib.Path | None = None,
    expected_size: int | None = None,
) -> pathlib.Path:
    """The path of a verified local copy of `url`, downloaded unless the cache has it.

    Args:
        url: http or https; the last part of its path is the file's name in the cache.
        checksum: "sha256:<64 digits>", "md5:<32 digits>" or "sha256-prefix:<8 digits or more>".
        cache_dir: folder of the cache (default: $COOS_CACHE or ~/.cache/coos/weights).
        expected_size: bytes, where known.

    Raises:
        ValueError: the file cannot be had, or is not the one that the checksum names. It says where to place the file
            by hand. A wrong file in the cache stays there and is never used.
    """
    wanted = _parse(checksum)
    folder = pathlib.Path(cache_dir or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser()
    path = folder / _file_name(url)
    if path.exists():
        _verify(path, wanted, url)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    # A name of its own: two processes may download the same file at once.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        _download(url, temporary, path, wanted, expected_size)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _parse(checksum: str) -> _Checksum:
    kind, _, digest = checksum.partition(":")
    shortest, longest = DIGEST_LENGTHS.get(kind, (1, 0))
    if not shortest <= len(digest) <= longest or not set(digest) <= set(string.hexdigits):
        raise ValueError(
            f"checksum {checksum!r}: give sha256:<64 digits>, md5:<32 digits> or sha256-prefix:<8 digits or more>, "
            "in hexadecimal"
        )
    return _Checksum(kind.removesuffix("-prefix"), digest.lower())


def _file_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    name = urllib.parse.unquote(parts.path.rpartition("/")[2])
    if parts.scheme not in ("http", "https") or not re.fullmatch(r"[^/\\\0]+", name) or name in (".", ".."):
        raise ValueError(f"{url}: not a web address of a file (http:// or https://, ending in its name)")
    return name


def _verify(path: pathlib.Path, wanted: _Checksum, url: str) -> None:
    """Raise ValueError unless the file in the cache is the one wanted."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, wanted.hasher).hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: in the cache, but cannot be read ({error.strerror})") from error
    if not wanted.accepts(digest):
        raise ValueError(
            f"{path}: in the cache, but not the file that {url} should be: {wanted.algorithm} {digest}, expected "
            f"{wanted.expected}. It is not used; delete it to download it again"
        )


def _download(
    url: str, temporary: pathlib.Path, path: pathlib.Path, wanted: _Checksum, expected_size: int | None
) -> None:
    """Stream into `temporary`, hashing on the way; `path` is only for messages."""
    hasher, received = wanted.hasher(), 0
    with _response(url, path) as response, temporary.open("xb") as file:
        size = _announced_size(response, url, expected_size)
        with tqdm(total=size, desc=path.name, unit="B", unit_scale=True, disable=None) as bar:
            for chunk in _chunks(response, url, path):
                received += len(chunk)
                if expected_size is not None and received > expected_size:
                    raise ValueError(f"{url}: gives more than the {expected_size} bytes expected")
                hasher.update(chunk)
                file.write(chunk)
                bar.update(len(chunk))
    if size is not None and received != size:
        raise ValueError(f"{url}: ended after {received} of {size} bytes; try again")
    if not wanted.accepts(hasher.hexdigest()):
        raise ValueError(
            f"{url}: {wanted.algorithm} {hasher.hexdigest()}, expected {wanted.expected}: not the file it should be; "
            "nothing was kept"
        )


def _announced_size(response: Any, url: str, expected_size: int | None) -> int | None:
    """Bytes to come: what the server says, else what the caller expects."""
    header = response.headers.get("Content-Length", "")
    size = int(header) if header.isascii() and header.isdigit() else expected_size
    if expected_size is not None and size != expected_size:
        raise ValueError(f"{url}: has {size} bytes, expected {expected_size}: not the file it should be")
    return size


@contextlib.contextmanager
def _response(url: str, path: pathlib.Path) -> Iterator[Any]:
    request = urllib.request.Request(url, headers={"User-Agent": "coos"})
    with _named_errors(url, path):
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    with response:
        yield response


def _chunks(response: Any, url: str, path: pathlib.Path) -> Iterator[bytes]:
    while True:
        with _named_errors(url, path):
            chunk = response.read(CHUNK)
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _named_errors(url: str, path: pathlib.Path) -> Iterator[None]:
    """The network's many errors as one, with what to do about them."""
    try:
        yield
    except urllib.error.HTTPError as error:
        reason = f"HTTP {error.code} {error.reason}"
        error.close()
        raise _unreachable(url, path, reason) from error
    except urllib.error.URLError as error:
        raise _unreachable(url, path, str(error.reason)) from error
    except TimeoutError as error:
        raise _unreachable(url, path, f"no data for {TIMEOUT:g} s") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _unreachable(url, path, f"{type(error).__name__}: {error}") from error


def _unreachable(url: str, path: pathlib.Path, reason: str) -> ValueError:
    return ValueError(
        f"{url}: cannot be downloaded ({reason}). Download it elsewhere and place it as {path}; it is looked for there "
        f"first (the folder is ${CACHE_VARIABLE})"
    )
