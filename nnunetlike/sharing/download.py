"""Fetching a file over HTTP so that a broken connection costs only what was not fetched yet.

What has come is kept under a name of our own, `PART.part`, with what the server said of the file
beside it. A next request asks for the rest and takes it only of the same file; a server that cannot
give a part begins anew.

Source: range requests and validators as in RFC 9110, sections 13 and 14.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from nnunetlike import __version__
from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError, NnunetlikeError, ResourceError, UsageError
from nnunetlike.core.folders import remove_if_empty
from nnunetlike.core.in_use import alone
from nnunetlike.core.resources import in_words
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.sharing.manifest import CHUNK, sha256_of

logger = logging.getLogger(__name__)
FOLDER = ".downloads"
PARTIAL, RANGE_NOT_SATISFIABLE, TOO_MANY_REQUESTS, TIMEOUT = 206, 416, 429, 408
SERVER_ERROR = 500
LONGEST_WAIT_S = 30.0
LONGEST_REASON = 80


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server is waited for, and how often asked again."""

    timeout_s: float = 60
    """Without a byte."""

    tries: int = 5
    """In a row without a new byte."""

    wait_s: float = 1
    """Before the second try; it doubles from try to try."""


class _PassingError(Exception):
    """What may be gone when it is tried again."""


class _ChangedError(_PassingError):
    """What has come so far is of another file."""


def check_url(url: str) -> None:
    """Do nothing if a URL can be fetched.

    Raises:
        UsageError: it is none, or of another kind than http and https.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        good = False
    if not good or not all(c.isprintable() and c != " " for c in url):
        raise UsageError(f"{url!r} is no address of a file on the web (https://HOST/FILE)")


@contextmanager
def downloaded(
    url: str,
    folder: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    most_bytes: float = float("inf"),
    patience: Patience | None = None,
) -> Iterator[Path]:
    """Yield the path of a fetched file, which is removed when the block ends without error.

    It is removed as well when the block ends with `DataError`, so that a bad file is fetched anew;
    other errors leave it, and the next call goes on from there.

    Args:
        url: http or https.
        folder: below which files are kept while they are fetched.
        sha256: what the file must have; None: not known.
        size: bytes it must have; None: not known.
        most_bytes: above which it is refused.
        patience: None: the usual one.

    Raises:
        UsageError: the URL is none.
        ResourceError: the server or the net failed; what has come is kept.
        DataError: the file is not the one that was expected.
    """
    check_url(url)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    home = folder / FOLDER
    home.mkdir(parents=True, exist_ok=True)
    try:
        with alone(home):
            part = home / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}.part"
            keep = True
            try:
                _Fetch(url, part, size, most_bytes, patience or Patience()).run()
                _check_hash(url, part, sha256)
                yield part
                keep = False
            except DataError:
                keep = False
                raise
            finally:
                if not keep:
                    _forget(part)
    finally:
        for path in (home, *made):
            remove_if_empty(path)


def _check_hash(url: str, part: Path, sha256: str | None) -> None:
    if sha256 is None:
        return
    found = sha256_of(part)
    if found != sha256.lower():
        raise DataError(
            f"{url}: the file has the SHA-256 {found}, not {sha256}. It is damaged or not the one "
            "that was meant; it was removed. Try again, or ask who shares it"
        )


def _facts_file(part: Path) -> Path:
    return part.with_suffix(".json")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _facts_file(part).unlink(missing_ok=True)


@dataclass
class _Fetch:
    """One file on its way."""

    url: str
    part: Path
    size: int | None
    most_bytes: float
    patience: Patience

    def run(self) -> None:
        """Fetch until all is there; ask again as often as patience says."""
        failures, furthest = 0, self.there
        while True:
            try:
                self._ask()
            except _PassingError as error:
                if isinstance(error, _ChangedError):
                    _forget(self.part)
                failures = 0 if self.there > furthest else failures + 1
                furthest = max(furthest, self.there)
                if failures >= self.patience.tries:
                    raise ResourceError(self._given_up(str(error))) from None
                wait = min(self.patience.wait_s * 2 ** max(0, failures - 1), LONGEST_WAIT_S)
                logger.warning("%s; trying again in %g s", error, wait)
                time.sleep(wait)
            else:
                return

    @property
    def there(self) -> int:
        """Bytes that have come."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def _given_up(self, problem: str) -> str:
        kept = f"{in_words(self.there)} are kept and the same command goes on from there"
        return (
            f"{self.url}: {problem}. {kept if self.there else 'Nothing came'}. Or fetch it with a "
            "browser and give the file to nnUNet_install_pretrained_model_from_zip"
        )

    def _ask(self) -> None:
        facts = self._facts()
        begin = self.there if facts else 0
        if begin and begin == facts.get("total"):
            return
        headers = {"User-Agent": f"nnunetlike/{__version__}", "Accept-Encoding": "identity"}
        if begin:
            headers["Range"] = f"bytes={begin}-"
            if facts.get("validator"):
                headers["If-Range"] = facts["validator"]
        request = urllib.request.Request(self.url, headers=headers)
        with self._problems(), _opener().open(request, timeout=self.patience.timeout_s) as answer:
            self._receive(answer, begin, facts)

    def _facts(self) -> dict[str, Any]:
        """Return what the server said of the file that is there in part."""
        path = _facts_file(self.part)
        facts = load_json(path) if path.is_file() else {}
        return facts if facts.get("url") == self.url else {}

    def _receive(self, answer: Any, begin: int, facts: Mapping[str, Any]) -> None:
        """Write what comes behind what is there, or anew where the server begins anew."""
        validator = _validator(answer.headers)
        if answer.status == PARTIAL:
            first, total = _content_range(answer.headers)
            if first != begin or total != facts.get("total") or validator != facts["validator"]:
                raise _ChangedError("the file on the server has changed")
        else:
            begin, total = 0, _length(answer.headers)
        self._check_size(total)
        save_json({"url": self.url, "total": total, "validator": validator}, _facts_file(self.part))
        if total is not None:
            require_space(
                self.part.parent, total - begin, f"downloading {self.url}",
                "choose another RESULTS_FOLDER",
            )  # fmt: skip
        self._write(answer, begin, total)
        if total is not None and self.there != total:
            raise _PassingError(
                f"the connection ended after {in_words(self.there)} of {in_words(total)}"
            )

    def _check_size(self, total: int | None) -> None:
        if self.size is not None and total is not None and total != self.size:
            raise DataError(
                f"{self.url}: the server offers {total} bytes, the file has {self.size}. It is not "
                "the one that was meant"
            )
        if total is not None and total > self.most_bytes:
            raise self._too_large()

    def _too_large(self) -> NnunetlikeError:
        return DataError(
            f"{self.url} is larger than {in_words(self.most_bytes)}. If you trust it, raise the "
            "limit with --max_size"
        )

    def _write(self, answer: IO[bytes], begin: int, total: int | None) -> None:
        with (
            self.part.open("ab" if begin else "wb") as sink,
            tqdm(total=total, initial=begin, unit="B", unit_scale=True, disable=None) as bar,
        ):
            while chunk := answer.read(CHUNK):
                sink.write(chunk)
                sink.flush()
                bar.update(len(chunk))
                if sink.tell() > self.most_bytes:
                    raise self._too_large()

    @contextmanager
    def _problems(self) -> Iterator[None]:
        """Turn what the net does into what passes and what does not."""
        try:
            yield
        except urllib.error.HTTPError as error:
            with error:
                self._refused(error.code, error.reason)
        except urllib.error.URLError as error:
            raise _PassingError(f"the server cannot be reached ({error.reason})") from None
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            name = type(error).__name__
            raise _PassingError(f"the connection broke ({name}: {error})") from None

    def _refused(self, status: int, reason: str) -> None:
        if status == RANGE_NOT_SATISFIABLE:
            raise _ChangedError("the file on the server has changed")
        words = "".join(c for c in str(reason) if c.isprintable())[:LONGEST_REASON]
        said = f"the server answers {status} ({words})"
        if status >= SERVER_ERROR or status in (TOO_MANY_REQUESTS, TIMEOUT):
            raise _PassingError(said)
        raise ResourceError(
            f"{self.url}: {said}. Look at the address with a browser; a file fetched there is "
            "installed by nnUNet_install_pretrained_model_from_zip"
        )


def _validator(headers: Message) -> str | None:
    """Return what tells this version of the file from others; weak tags do not."""
    tag = headers.get("ETag")
    if tag is not None and not tag.startswith("W/"):
        return tag
    return headers.get("Last-Modified")


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _content_range(headers: Message) -> tuple[int | None, int | None]:
    """Return the first byte and the total of `bytes 100-199/200`."""
    unit, _, rest = headers.get("Content-Range", "").partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0]
    if unit != "bytes" or not first.isdigit() or not total.isdigit():
        return None, None
    return int(first), int(total)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """Return the request for the new address."""
        before, after = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if after not in ("http", "https") or (before == "https" and after == "http"):
            raise ResourceError(
                f"{req.full_url}: the server leads to {newurl!r}, which is not protected. Refused"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return what fetches over http and https, and reads neither files nor FTP."""
    opener = urllib.request.OpenerDirector()
    handlers: tuple[Callable[[], Any], ...] = (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, _Redirects,
    )  # fmt: skip
    for handler in handlers:
        opener.add_handler(handler())
    return opener
