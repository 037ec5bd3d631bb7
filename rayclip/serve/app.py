"""The routes of the page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rayclip.errors import RayclipError, UsageError
from rayclip.report.progress_words import count
from rayclip.search.moments import Found, Query
from rayclip.search.page import templates
from rayclip.search.thumbnails import Thumbnails
from rayclip.search.timeline import clock
from rayclip.serve.collection import Collection, Known, video_id
from rayclip.serve.dropped import MAX_BYTES, DroppedPictures, declared_too_large
from rayclip.serve.library import LARGE, SMALL, Library, Model
from rayclip.serve.media_work import ClientGone, MediaWork
from rayclip.serve.playback import PREVIEW_S, CannotShow, Playback, check_found
from rayclip.serve.state import MOST, TOP, PageState, Place, parse_seconds, parse_state, parse_video

ASSETS = Path(__file__).parent / "assets"
LOOKUPS = 4  # of files, at once
SHORT_LIVED = {"Cache-Control": "private, max-age=600"}

T = TypeVar("T")


class Page:
    """The page and what it shows."""

    def __init__(
        self, library: Library, dropped: DroppedPictures, playback: Playback, cores: int
    ) -> None:
        """Prepare.

        Args:
            library: the output folder.
            dropped: pictures that were dropped.
            playback: videos for the browser.
            cores: how many calls run at once.
        """
        self._library = library
        self._dropped = dropped
        self._playback = playback
        self._searches = ThreadPoolExecutor(cores, thread_name_prefix="search")
        self._lookups = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")
        self._work = MediaWork(cores)
        environment = templates(ASSETS)
        environment.globals["count"] = count
        self._template = environment.get_template("page.html")

    def load_model(self) -> None:
        """Load the first model, so that no search waits for it.

        Raises:
            UsageError, WeightsUnavailable: it cannot be loaded.
        """
        self._library.collection("").load_model()

    def app(self) -> Starlette:
        """Return the application, without any protection."""
        return Starlette(
            routes=[
                Route("/", self.page),
                Route("/thumbnails/{video}", self.thumbnail),
                Route("/videos/{video}", self.video),
                Route("/previews/{video}", self.preview),
                Route("/pictures", self.drop, methods=["POST"]),
                Route("/pictures/{picture}", self.picture),
                Mount("/static", StaticFiles(directory=ASSETS / "static")),
            ],
            exception_handlers={
                UsageError: _say(404),
                RayclipError: _say(503),
                CannotShow: _say(422),
                ClientGone: _say(499),
                ClientDisconnect: _say(499),
            },
        )

    def close(self) -> None:
        """Start no further work."""
        self._work.close()
        for threads in (self._searches, self._lookups):
            threads.shutdown(wait=False, cancel_futures=True)

    async def page(self, request: Request) -> Response:
        """The page: form and moments."""
        state, problem, found = PageState(), None, None
        models: Sequence[Model] = []
        try:
            state = parse_state(request.query_params)
            models = await _run(self._lookups, self._library.models)
            if state.has_query and not await request.is_disconnected():
                found = await _run(self._searches, partial(self._search, state))
        except RayclipError as error:
            problem = str(error)
        html = await _run(self._lookups, partial(self._render, state, models, problem, found))
        return HTMLResponse(html, 200 if problem is None else 400)

    async def thumbnail(self, request: Request) -> Response:
        """A picture of a video at a time: JPEG."""
        time_ms = 1000 * parse_seconds(request.query_params.get("t", ""))
        collection, path = await self._find(request)
        size = LARGE if "large" in request.query_params else SMALL
        thumbnails = self._library.thumbnails(collection, size)
        jpeg = thumbnails.cached(path, time_ms)
        if jpeg is None:
            jpeg = await self._work.run(
                path, partial(_picture, thumbnails, path, time_ms), request.is_disconnected
            )
        return Response(jpeg, media_type="image/jpeg", headers=SHORT_LIVED)

    async def video(self, request: Request) -> Response:
        """A video as it is, in ranges."""
        _, path = await self._find(request)
        if "://" in path:
            raise CannotShow("it is not on this machine, so parts of it are converted")
        kind = self._playback.known_type(path)
        if kind is None:
            call = partial(self._playback.media_type, path)
            kind = await self._work.run(path, call, request.is_disconnected)
        return FileResponse(path, media_type=kind)

    async def preview(self, request: Request) -> Response:
        """A part of a video that the browser cannot play as it is: mp4, in ranges."""
        _, path = await self._find(request)
        start_s = parse_seconds(request.query_params.get("t", ""))
        file = self._playback.known_preview(path, start_s)
        if file is None:
            call = partial(self._playback.preview, path, start_s)
            file = await self._work.run(path, call, request.is_disconnected, takes_long=True)
        return FileResponse(file, media_type="video/mp4")

    async def drop(self, request: Request) -> Response:
        """Take a picture; the answer is its ID."""
        if declared_too_large(request.headers):
            raise _too_large()
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > MAX_BYTES:
                raise _too_large()
        try:
            picture = await _run(self._searches, partial(self._dropped.add, bytes(content)))
        except UsageError as error:
            return PlainTextResponse(str(error), 415)
        return PlainTextResponse(picture)

    async def picture(self, request: Request) -> Response:
        """A picture that was dropped: a small JPEG."""
        jpeg = self._dropped.shown(request.path_params["picture"])
        return Response(jpeg, media_type="image/jpeg", headers=SHORT_LIVED)

    def _render(
        self, state: PageState, models: Sequence[Model], problem: str | None, found: Found | None
    ) -> bytes:
        html = self._template.render(
            state=state,
            models=models,
            problem=problem,
            found=found,
            cards=[] if found is None else _cards(state, found),
            filtered=self._name(state, state.video),
            playing=self._playing(state),
            notes=self._library.notes,
            top_more=min(state.top + TOP, MOST),
            preview_s=PREVIEW_S,
        )
        return html.encode("utf-8", "backslashreplace")

    def _search(self, state: PageState) -> Found:
        collection = self._library.collection(state.model)
        found = collection.search(
            self._query(collection, state), state.top, state.video, state.names
        )
        shown = [Known(moment.video, moment.source) for moment in found.moments]
        self._lookups.submit(collection.locate, shown)  # the browser soon asks for pictures
        return found

    def _query(self, collection: Collection, state: PageState) -> Query:
        if state.like is not None:
            return collection.frame_query(state.like)
        if state.picture is not None:
            return collection.picture_query(self._dropped.rgb(state.picture))
        return collection.text_query(state.q)

    def _playing(self, state: PageState) -> Mapping[str, str] | None:
        """What the template shows of the place that is played."""
        if state.at is None:
            return None
        return {
            "video": state.at.video,
            "start": repr(state.at.seconds),
            "name": self._name(state, state.at.video) or "",
            "like": state.asking(like=state.at),
        }

    def _name(self, state: PageState, video: str | None) -> str | None:
        """The name of a video, without its folder; None if there is none."""
        if video is None:
            return None
        try:
            name = self._library.collection(state.model).known(video).name
        except RayclipError:
            return None
        return name.rpartition("/")[2]

    async def _find(self, request: Request) -> tuple[Collection, str]:
        """Find the file of the video that a request names, and its model."""
        video = parse_video(request.path_params["video"])

        def find() -> tuple[Collection, str]:
            collection = self._library.collection(request.query_params.get("model", ""))
            return collection, check_found(collection.path(video))

        return await _run(self._lookups, find)


async def _run(threads: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, call)


def _picture(thumbnails: Thumbnails, path: str, time_ms: float) -> bytes:
    pictures = thumbnails.get(path, [time_ms])
    if time_ms not in pictures.jpegs:
        raise CannotShow(pictures.error or "the video shows nothing then")
    return pictures.jpegs[time_ms]


def _cards(state: PageState, found: Found) -> Sequence[Mapping[str, str]]:
    """What the template shows of each moment."""
    cards = []
    for moment in found.moments:
        video = video_id(moment.video)
        folder, _, name = moment.video.rpartition("/")
        cards.append(
            {
                "video": video,
                "start": repr(moment.start_s),
                "best": repr(moment.best_s),
                "folder": folder,
                "name": name,
                "span": f"{clock(moment.start_s)} to {clock(moment.end_s)}",
                "score": f"{moment.score.stands_out:+.1f} sd",
                "cosine": f"{moment.score.cosine:.3f}",
                "play": state.link(at=Place(video, moment.start_s)),
                "like": state.asking(like=Place(video, moment.best_s)),
                "only": state.link(video=video, names="", top=TOP, at=None),
            }
        )
    return cards


def _say(status: int) -> Callable[[Request, Exception], Response]:
    return lambda request, error: PlainTextResponse(f"{error}\n", status)


def _too_large() -> HTTPException:
    return HTTPException(413, f"A picture may have {MAX_BYTES // 2**20} MB: make it smaller.")
