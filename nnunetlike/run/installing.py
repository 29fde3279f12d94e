"""What the commands that install models share: their options and what they say."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunetlike.core import paths
from nnunetlike.run.command_line import CommandParser
from nnunetlike.sharing.archive import GIB, Limits
from nnunetlike.sharing.download import check_url, downloaded
from nnunetlike.sharing.install import Installation, Installed, install_archive
from nnunetlike.sharing.layout import predict_command

DEFAULT = Limits()


def add_installing_options(parser: CommandParser) -> None:
    """Add `--force` and the limits."""
    add = parser.add_argument
    add("--force", action="store_true", help="install although another model of that name is "
        "there, which is kept as replaced-1-NAME")  # fmt: skip
    add("--max_size", type=float, default=DEFAULT.max_bytes / GIB, metavar="GIB",
        help="refuse a zip that is larger unpacked")  # fmt: skip
    add("--max_ratio", type=float, default=DEFAULT.max_ratio, metavar="TIMES",
        help="refuse a zip with a file that grows more when unpacked")  # fmt: skip


def limits(args: argparse.Namespace) -> Limits:
    """Return the limits of the command line."""
    return Limits(max_bytes=args.max_size * GIB, max_ratio=args.max_ratio)


def fetch_and_install(
    url: str, args: argparse.Namespace, *, sha256: str | None = None, size: int | None = None
) -> None:
    """Fetch a zip, install it, and print what became of it.

    Args:
        url: http or https.
        args: with the options of `add_installing_options`.
        sha256: what the zip must have; None: not known.
        size: bytes it must have; None: not known.
    """
    check_url(url)
    most = limits(args).max_bytes
    if url.startswith("http:"):
        print("note: http is not protected on its way; prefer https, or give --sha256")
    print(f"fetching {url}", flush=True)
    with downloaded(url, paths.results(), sha256=sha256, size=size, most_bytes=most) as path:
        install_and_tell(path, args, url)


def install_and_tell(path: Path, args: argparse.Namespace, name: str | None = None) -> None:
    """Install a zip and print what became of it and how to predict.

    Args:
        path: of the zip.
        args: with the options of `add_installing_options`.
        name: what to call the zip; None: its path.
    """
    results = paths.results()
    done = install_archive(path, results, force=args.force, limits=limits(args))
    _tell_origin(name or str(path), done)
    for model in done.models:
        if not model.place.is_ensemble:
            _tell(model, results)


def _tell_origin(name: str, done: Installation) -> None:
    if done.manifest is None:
        print(
            f"{name} has no manifest, as zips of nnU-Net v1: whether it is whole and unchanged "
            "could not be checked. Its files were opened without executing anything"
        )
        return
    print(f"{name}: made by nnunetlike {done.manifest.nnunetlike_version}; all hashes are right")
    print(f"licence: {done.manifest.licence or 'none stated; ask its makers'}")


def _tell(model: Installed, results: Path) -> None:
    folds = ", ".join(model.folds)
    place = model.place.folder(results)
    if model.outcome == "identical":
        print(f"{place} is installed already, with the same files ({folds}); nothing was done")
    elif model.outcome == "completed":
        print(f"{place}: what was missing was added; the zip has {folds}")
    else:
        print(f"installed {place}: {folds}")
    if model.former is not None:
        print(f"the model that was there before is {model.former}")
    print(f"predict with: {predict_command(model.place, model.names)}")
