"""Downloads against a server on this machine that fails in every way we ask it to."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nnunetlike.core.errors import DataError, ResourceError, UsageError
from nnunetlike.run import installing
from nnunetlike.run.download_pretrained_model import main as download_by_name
from nnunetlike.run.download_pretrained_model_by_url import main as download_by_url
from nnunetlike.run.export_model_to_zip import main as export
from nnunetlike.sharing import catalogue, download
from nnunetlike.sharing.catalogue import PublicFile, PublicModel
from nnunetlike.sharing.download import FOLDER, Patience, check_url, downloaded

PLACE = "3d_fullres/Task901_Tiny/nnUNetTrainerV2__nnUNetPlansv2.1"
QUICK = Patience(timeout_s=5, tries=2, wait_s=0.01)


@dataclass
class Server:
    """What is served, and how badly."""

    url: str = ""
    content: bytes = bytes(range(256)) * 1000
    ranges: bool = True
    tag: str | None = '"one"'
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the next connections break."""

    status: list[int] = field(default_factory=list)
    """What the next requests are answered with instead."""

    announced: int | None = None
    """Length that is told, if it is not the true one."""

    without_length: bool = False
    redirect: str | None = None
    asked: list[str | None] = field(default_factory=list)
    """The Range of each request."""


class Handler(BaseHTTPRequestHandler):
    server_settings: Server

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        told = self.server_settings
        wanted = self.headers.get("Range")
        told.asked.append(wanted)
        if told.redirect is not None:
            self.send_response(302)
            self.send_header("Location", told.redirect)
            self.end_headers()
            return
        if told.status:
            self.send_error(told.status.pop(0), "No\x1b[2Jway")
            return
        self._send(told, wanted)

    def _send(self, told: Server, wanted: str | None) -> None:
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        same = self.headers.get("If-Range") in (None, told.tag)
        if first >= len(told.content) and told.ranges and same and wanted:
            self.send_error(416)
            return
        partial = bool(wanted) and told.ranges and same
        body = told.content[first:] if partial else told.content
        self.send_response(206 if partial else 200)
        if partial:
            whole = len(told.content)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        if told.tag is not None:
            self.send_header("ETag", told.tag)
        if not told.without_length:
            self.send_header("Content-Length", str(told.announced or len(body)))
        self.send_header("Content-Disposition", 'attachment; filename="../../evil.zip"')
        self.end_headers()
        cut = told.cut_after.pop(0) if told.cut_after else len(body)
        self.wfile.write(body[:cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    settings = Server()
    handler = type("Settled", (Handler,), {"server_settings": settings})
    running = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    settings.url = f"http://127.0.0.1:{running.server_address[1]}/model.zip?download=1"
    yield settings
    running.shutdown()
    thread.join(10)
    running.server_close()


def fetch(server: Server, folder: Path, **options: object) -> bytes:
    with downloaded(server.url, folder, **{"patience": QUICK, **options}) as path:  # type: ignore[arg-type]
        assert path.parent == folder / FOLDER
        return path.read_bytes()


def test_a_file_comes_whole_and_nothing_is_left(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "results" / "nnUNet"
    assert fetch(server, folder) == server.content
    assert server.asked == [None]
    assert not (tmp_path / "results").exists()


def test_a_broken_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut_after = [1000, 500]
    assert fetch(server, tmp_path) == server.content
    assert server.asked == [None, "bytes=1000-", "bytes=1500-"]


def test_without_ranges_a_broken_connection_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut_after = [1000]
    assert fetch(server, tmp_path) == server.content
    assert server.asked == [None, "bytes=1000-"]


def test_a_server_that_always_breaks_is_given_up_and_what_came_is_kept(
    server: Server, tmp_path: Path
) -> None:
    server.cut_after = [1000, 0, 0]
    with pytest.raises(ResourceError, match="1000 bytes are kept and the same command goes on"):
        fetch(server, tmp_path)
    assert [path.stat().st_size for path in (tmp_path / FOLDER).glob("*.part")] == [1000]
    server.asked.clear()
    assert fetch(server, tmp_path) == server.content
    assert server.asked == ["bytes=1000-"]
    assert not (tmp_path / FOLDER).exists()


def test_without_ranges_a_server_that_always_breaks_is_given_up(
    server: Server, tmp_path: Path
) -> None:
    server.ranges = False
    server.cut_after = [1000] * 50
    with pytest.raises(ResourceError, match="the connection ended after 1000 bytes of 250"):
        fetch(server, tmp_path)
    assert len(server.asked) < 6


@pytest.mark.parametrize("tag", ['"two"', None])
def test_a_file_that_changed_meanwhile_begins_anew(
    server: Server, tmp_path: Path, tag: str | None
) -> None:
    server.cut_after = [1000, 0, 0]
    with pytest.raises(ResourceError):
        fetch(server, tmp_path)
    server.content, server.tag = b"other" * 1000, tag
    assert fetch(server, tmp_path) == server.content


def test_a_file_that_shrank_meanwhile_begins_anew(server: Server, tmp_path: Path) -> None:
    server.tag = None
    server.cut_after = [1000, 0, 0]
    with pytest.raises(ResourceError):
        fetch(server, tmp_path)
    server.content = b"short"
    assert fetch(server, tmp_path) == b"short"


def test_a_file_that_came_whole_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ResourceError), downloaded(server.url, tmp_path, patience=QUICK):
        raise ResourceError("the disk is full")
    assert fetch(server, tmp_path) == server.content
    assert len(server.asked) == 1


def test_a_file_that_proves_bad_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError), downloaded(server.url, tmp_path, patience=QUICK):
        raise DataError("a hostile zip")
    assert not (tmp_path / FOLDER).exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_that_is_busy_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.status = [status]
    assert fetch(server, tmp_path) == server.content


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_server_that_refuses_is_not_asked_again(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.status = [status]
    with pytest.raises(ResourceError, match=f"the server answers {status}"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_told_wrongly_is_not_taken_for_the_file(
    server: Server, tmp_path: Path
) -> None:
    server.announced = len(server.content) + 5
    server.ranges = False
    with pytest.raises(ResourceError, match="the connection ended after"):
        fetch(server, tmp_path)


def test_a_file_of_untold_length_is_taken(server: Server, tmp_path: Path) -> None:
    server.without_length = True
    assert fetch(server, tmp_path) == server.content


@pytest.mark.parametrize("without_length", [True, False])
def test_a_file_larger_than_allowed_is_refused(
    server: Server, tmp_path: Path, without_length: bool
) -> None:
    server.without_length = without_length
    with pytest.raises(DataError, match=r"is larger than 1000 bytes.*--max_size"):
        fetch(server, tmp_path, most_bytes=1000)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_than_expected_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the server offers 256000 bytes, the file has 7"):
        fetch(server, tmp_path, size=7)


def test_a_wrong_hash_is_told_and_the_file_removed(server: Server, tmp_path: Path) -> None:
    good = hashlib.sha256(server.content).hexdigest()
    assert fetch(server, tmp_path, sha256=good.upper()) == server.content
    with pytest.raises(DataError, match=rf"has the SHA-256 {good}, not 0000"):
        fetch(server, tmp_path, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_nobody_at_the_address_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(ResourceError, match="the server cannot be reached"),
        downloaded("http://127.0.0.1:9/x.zip", tmp_path, patience=QUICK),
    ):
        pass


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_server_cannot_lead_to_files_of_this_machine(
    server: Server, tmp_path: Path, target: str
) -> None:
    server.redirect = target
    with pytest.raises(ResourceError, match=r"leads to|answers 302"):
        fetch(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://host/x", "model.zip", "https://", "http://a b/", "http://[x"],
)
def test_what_is_no_address_on_the_web_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="is no address of a file on the web"):
        check_url(url)


def test_https_never_becomes_http() -> None:
    redirects = download._Redirects()
    asked = download.urllib.request.Request("https://host/x")
    with pytest.raises(ResourceError, match="not protected"):
        redirects.redirect_request(asked, None, 302, "", {}, "http://host/x")


@pytest.fixture
def served_model(
    server: Server, make_model: Callable[..., Path], results: Path, tmp_path: Path
) -> Server:
    """The server offers a zip of a model."""
    make_model(results)
    zipped = tmp_path / "served.zip"
    assert export(["-t", "901", "-o", str(zipped), "-f", "0"]) == 0
    server.content = zipped.read_bytes()
    return server


def test_a_model_is_fetched_and_installed_by_url(
    served_model: Server, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download_by_url([served_model.url]) == 0
    out = capsys.readouterr().out
    assert f"{served_model.url}: made by nnunetlike" in out
    assert "predict with: nnUNet_predict" in out
    assert sorted(p.name for p in (elsewhere / PLACE).iterdir()) == [
        "fold_0", "nnunetlike_manifest.json", "plans.pkl", "postprocessing.json",
    ]  # fmt: skip
    assert [p.name for p in elsewhere.iterdir()] == ["3d_fullres"]


def test_a_model_whose_hash_is_wrong_is_not_installed(
    served_model: Server, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download_by_url([served_model.url, "--sha256", "f" * 64]) == 3
    assert "has the SHA-256" in capsys.readouterr().err
    assert not elsewhere.exists()


def test_a_hash_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert download_by_url(["https://host/x.zip", "--sha256", "abc"]) == 2
    assert "give 64 hexadecimal digits" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"), [(b"<html>not found</html>", "no zip file"), (b"", "no zip file")]
)
def test_a_page_instead_of_a_zip_is_refused_and_leaves_nothing(
    server: Server, home: Path, content: bytes, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.content = content
    assert download_by_url([server.url]) == 3
    assert words in capsys.readouterr().err
    assert not (home / "results").exists()


def test_what_is_not_there_ends_with_code_4_and_leaves_nothing(
    server: Server, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.status = [404]
    assert download_by_url([server.url]) == 4
    err = capsys.readouterr().err
    assert server.url in err and "404 (No[2Jway)" in err
    assert not (home / "results").exists()


@pytest.fixture
def public(served_model: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The catalogue has one model, which the server offers."""
    digest = hashlib.sha256(served_model.content).hexdigest()
    file = PublicFile(served_model.url, len(served_model.content), digest)
    model = PublicModel(
        name="Task901_Tiny", subject="a cube", source="nowhere", page="http://nowhere",
        structures=("cube",), channels=("MR",), licence="CC0", notes=(), downloads=(file,),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "catalogue", lambda: {model.name: model})
    return served_model


def test_a_public_model_is_fetched_by_name_or_number_once(
    public: Server, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download_by_name(["Task901_Tiny"]) == 0
    assert "Licence of the data: CC0" in capsys.readouterr().out
    assert (elsewhere / PLACE / "plans.pkl").is_file()
    assert download_by_name(["901"]) == 0
    assert "is installed already, with the same files" in capsys.readouterr().out


def test_a_public_model_that_was_changed_on_the_server_is_refused(
    public: Server, elsewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public.content = public.content[:-1] + b"!"
    assert download_by_name(["Task901_Tiny"]) == 3
    assert "has the SHA-256" in capsys.readouterr().err
    assert not elsewhere.exists()


def test_of_several_zips_one_that_is_refused_does_not_hold_up_the_others(
    public: Server, elsewhere: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (model,) = catalogue.catalogue().values()
    bad = replace(model.downloads[0], sha256="0" * 64)
    several = replace(model, downloads=(bad, *model.downloads))
    monkeypatch.setattr(catalogue, "catalogue", lambda: {several.name: several})
    assert download_by_name(["901"]) == 3
    assert "not 0000" in capsys.readouterr().err
    assert (elsewhere / PLACE / "plans.pkl").is_file()


def test_two_downloads_do_not_write_the_same_file(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        downloaded(server.url, tmp_path, patience=QUICK),
        pytest.raises(UsageError, match="is in use by"),
    ):
        fetch(server, tmp_path)


def test_the_options_of_installing_are_those_of_downloading_too(
    served_model: Server, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    real = installing.install_archive

    def watch(path: Path, results: Path, **options: object) -> object:
        seen.append(options["limits"].max_ratio)  # type: ignore[attr-defined]
        return real(path, results, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(installing, "install_archive", watch)
    assert download_by_url([served_model.url, "--max_ratio", "7"]) == 0
    assert seen == [7.0]
