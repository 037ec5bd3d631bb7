"""``rayclip serve``: start the server, and print its address."""

from __future__ import annotations

import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayclip.console import say_to_user, shown
from rayclip.errors import UsageError
from rayclip.output.open_run import model_folders, open_run
from rayclip.search.media_process import MediaPool
from rayclip.serve.library import Library
from rayclip.serve.listening import address, listen
from rayclip.serve.roots import Roots, recorded_folders
from rayclip.session.cores import available_cores

if TYPE_CHECKING:
    from rayclip.serve.app import Page

NO_PICTURES = "No pictures are shown, since no folder of videos was named with --videos."
SHUTDOWN_S = 1  # for answers that are on their way


@dataclass(frozen=True)
class ServeRequest:
    """What to serve.

    Attributes:
        output_path: the output folder of a run, or the folder of one model in it.
        host: the address to listen on.
        port: the port; None takes the default one, or a free one.
        videos: folders whose videos may be shown.
        weights: the checkpoint of a custom model.
    """

    output_path: str
    host: str
    port: int | None
    videos: Sequence[str]
    weights: str | None


def run_server(
    request: ServeRequest, storage_options: Mapping[str, Any], ask: Callable[[str], bool]
) -> None:
    """Serve until a signal ends the program.

    Args:
        request: what to serve.
        storage_options: passed to fsspec for URLs.
        ask: asks the user, at a terminal.

    Raises:
        UsageError: a package is missing, there is no such folder or model, or the port is taken.
    """
    uvicorn = _uvicorn()
    from rayclip.serve.guard import Guard, machine_names

    folders = folders_to_show(request, storage_options, ask)
    with (
        closing(listen(request.host, request.port)) as listening,
        open_page(request.output_path, request.weights, folders, storage_options) as page,
    ):
        page.load_model()
        port, token = listening.getsockname()[1], secrets.token_urlsafe(32)
        config = uvicorn.Config(
            Guard(page.app(), token, port, [request.host, *machine_names()]),
            log_level="warning",
            access_log=False,  # addresses have the token
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        print(f"{address(listening, request.host)}?token={token}", flush=True)
        say_to_user("rayclip: open this address in a browser; Ctrl-C ends the page.")
        uvicorn.Server(config).run(sockets=[listening])


@contextmanager
def open_page(
    output_path: str,
    weights: str | None,
    folders: Sequence[str],
    storage_options: Mapping[str, Any],
) -> Iterator[Page]:
    """Make the page, with processes for its videos and a temporary folder, which end after it.

    Args:
        output_path: the output folder of a run, or the folder of one model in it.
        weights: the checkpoint of a custom model.
        folders: folders whose videos may be shown.
        storage_options: passed to fsspec for URLs.

    Raises:
        UsageError: one of the folders does not exist.
    """
    from rayclip.serve.app import Page
    from rayclip.serve.dropped import DroppedPictures
    from rayclip.serve.playback import Playback

    cores, roots = available_cores(), Roots(folders)
    notes = [] if folders else [NO_PICTURES]
    with (
        tempfile.TemporaryDirectory(prefix="rayclip-serve-") as name,
        closing(MediaPool(cores)) as pool,
    ):
        pool.start()
        temporary = Path(name)
        library = Library(output_path, weights, roots, pool, storage_options, notes)
        playback = Playback(temporary, pool, storage_options)
        with closing(Page(library, DroppedPictures(temporary, pool), playback, cores)) as page:
            yield page


def folders_to_show(
    request: ServeRequest, storage_options: Mapping[str, Any], ask: Callable[[str], bool]
) -> list[str]:
    """Return the folders whose videos may be shown: those that the user names, or agrees to.

    What the record of the run says of them is not trusted, so it is only proposed.
    """
    if request.videos:
        return [*request.videos]
    recorded: dict[str, None] = {}
    for url in model_folders(request.output_path, storage_options):
        run = open_run(url, storage_options).run
        recorded |= dict.fromkeys(recorded_folders(run))
    if not recorded:
        return []
    names = ", ".join(map(shown, recorded))
    if sys.stdin is not None and sys.stdin.isatty():
        return [*recorded] if ask(f"Show videos of {names}?") else []
    say_to_user(f"rayclip: {NO_PICTURES} The run's videos were in {names}.")
    return []


def _uvicorn() -> Any:
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise UsageError(
            "The page needs packages that are missing: pip install 'rayclip[serve]'."
        ) from None
    return uvicorn
