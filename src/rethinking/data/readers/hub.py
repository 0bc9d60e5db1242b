"""Data sets on the Hugging Face Hub, or in the Hub's own cache if the Hub cannot be reached."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from rethinking.data.readers.contents import Contents, Found, ReadOptions
from rethinking.data.readers.tables import read_loaded
from rethinking.errors import InputError

TIMEOUT = 2.0  # seconds; with the import of `datasets` the whole check stays under 5


def find(repository: str, configuration: str | None, tried: list[str]) -> Found:
    """Returns the data set of a repository `owner/name`.

    tried: other places that were searched before, for the error message
    """
    return Found({}, lambda options: _read(repository, configuration, tried, options), has_columns=True)


def _read(repository: str, configuration: str | None, tried: list[str], options: ReadOptions) -> Contents:
    """Reads the repository from the Hub, else from the Hub's own cache.

    Raises `InputError` if the Hub cannot be reached and its cache lacks the data set. This takes at most `TIMEOUT`;
    `datasets` itself would retry for half a minute.
    """
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    # A captive portal may answer, but not at this address.
    if not offline and not server_answers(f"{endpoint}/api/datasets/{repository}", TIMEOUT, "GET"):
        cached = _from_hub_cache(repository, configuration, options)
        if cached is None:
            raise _unreachable(repository, tried, endpoint)
        return cached
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    huggingface_hub.logging.set_verbosity_error()
    try:
        loaded = datasets.load_dataset(repository, configuration)
    except Exception as error:  # the library raises many types of its own and of its readers
        cached = _from_hub_cache(repository, configuration, options)
        if cached is not None:
            return cached
        if offline:
            raise _unreachable(repository, tried, endpoint) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"cannot read {repository} from the Hub: {reason}") from None
    return read_loaded(loaded, repository, options)


def _from_hub_cache(repository: str, configuration: str | None, options: ReadOptions) -> Contents | None:
    """Reads the files that were downloaded before, without a network; None if there are none."""
    folder = hub_cache_folder(repository)
    if folder is None:
        return None
    from rethinking.data import readers

    found = readers.find(folder, configuration)
    contents = found.read(options)
    return Contents(contents.splits, [*found.notes, *contents.notes])


def hub_cache_folder(repository: str) -> Path | None:
    """Returns the snapshot of a repository in the Hub's own cache: `main`, else the newest one, else None."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    own = cache / f"datasets--{repository.replace('/', '--')}"
    snapshots, main = own / "snapshots", own / "refs" / "main"
    if not snapshots.is_dir():
        return None
    if main.is_file() and (snapshot := snapshots / main.read_text(encoding="utf-8").strip()).is_dir():
        return snapshot
    whole = [folder for folder in snapshots.iterdir() if folder.is_dir() and any(folder.iterdir())]
    return max(whole, key=lambda folder: folder.stat().st_mtime_ns, default=None)


def cached_commit(repository: str) -> str:
    """Returns the commit that the Hub's own cache has as `main`, or ''."""
    folder = hub_cache_folder(repository)
    return folder.name if folder else ""


def _unreachable(repository: str, tried: list[str], endpoint: str) -> InputError:
    places = " and ".join([*tried, f"{endpoint}/datasets/{repository}"])
    return InputError(
        f"{repository}: the Hub is out of reach (tried {places}), and its own cache lacks the data set; use --dataset"
        " digits, --data_root FOLDER with a folder of that name in it, or --dataset PATH"
    )


def server_answers(url: str, timeout: float, method: str = "HEAD") -> bool:
    """Whether a working server answers completely at `url` within `timeout` seconds.

    The look-up of the server's name is part of this time.
    """
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=timeout) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            if error.code in (403, 407) or error.code >= 500:  # the answer of a proxy or of a broken server
                return
        except (OSError, ValueError, http.client.HTTPException):
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(timeout)
    return answered.is_set()
