"""Attacks on the page: paths, names, videos and pictures."""

from __future__ import annotations

import asyncio
import io
import json
import os
import struct
import time
import zlib
from pathlib import Path

import httpx2
import pytest
from served_pages import TOKEN, Drawn, client_of, guarded
from starlette.testclient import TestClient

from rayclip.serve.collection import video_id

PATHS = [
    "../../../../etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "/etc/passwd",
    "..\\..\\etc\\passwd",
    "file:///etc/passwd",
    "%00",
    "0123456789abcdef/../../page.html",
]
HOSTILE = """
import ctypes, time
import rayclip.media.frames_at as module
from rayclip.media import watchdog

watchdog.LIBAV.__init__(SILENCE, 2**28, 2**29)
frames_at = module.frames_at

def hostile(source, *rest):
    if "crash" in source:
        ctypes.string_at(0)
    if "hang" in source:
        with watchdog.LIBAV:
            ctypes.CDLL(None).pause()
    yield from frames_at(source, *rest)

module.frames_at = hostile
"""


@pytest.mark.parametrize("path", PATHS)
def test_no_parameter_leads_to_another_file(client: TestClient, path: str) -> None:
    video = video_id("drawn-00")
    answers = [
        client.get(f"/{kind}/{path}", params={"t": 1})
        for kind in ("thumbnails", "videos", "previews", "pictures", "static")
    ]
    answers += [
        client.get(f"/{kind}/{video}", params={"t": 1, "model": path})
        for kind in ("thumbnails", "videos", "previews")
    ]
    answers += [
        client.get(f"/{kind}/{video}", params={"t": path}) for kind in ("thumbnails", "previews")
    ]
    answers += [
        client.get("/", params={"q": "a circle", name: path})
        for name in ("model", "like", "picture", "video", "top", "at")
    ]
    assert {answer.status_code for answer in answers} <= {400, 404}
    answers.append(client.get("/", params={"q": path, "names": path}))
    for answer in answers:
        assert "root:" not in answer.text
        assert "{% for" not in answer.text


def test_an_output_that_names_another_file_does_not_show_it(drawn: Drawn, tmp_path: Path) -> None:
    own = drawn.copy(tmp_path)
    passwd = own.add_features("passwd")
    record = json.loads((own.features / "run.json").read_text())
    record["inputs"] = [{"video_paths": ["/etc/passwd"], "folder": "/"}]
    (own.features / "run.json").write_text(json.dumps(record))
    for roots, statuses in (([own.videos], {404}), ([Path("/etc")], {422})):
        with client_of(own.output, roots) as client:
            answers = [
                client.get(f"/{kind}/{passwd}", params={"t": 1.0})
                for kind in ("videos", "thumbnails", "previews")
            ]
            assert {answer.status_code for answer in answers} == statuses
            assert not any("root:" in answer.text for answer in answers)


def test_a_link_that_leads_out_is_not_followed(drawn: Drawn, tmp_path: Path) -> None:
    own = drawn.copy(tmp_path)
    (own.videos / "drawn-00.mp4").rename(tmp_path / "secret.mp4")
    (own.videos / "drawn-00.mp4").symlink_to(tmp_path / "secret.mp4")
    with client_of(own.output, [own.videos]) as client:
        for kind in ("videos", "thumbnails", "previews"):
            answer = client.get(f"/{kind}/{video_id('drawn-00')}", params={"t": 1.0})
            assert answer.status_code == 404
        assert client.get(f"/videos/{video_id('drawn-01')}").status_code == 200


def test_names_and_queries_are_only_text(drawn: Drawn, tmp_path: Path) -> None:
    own = drawn.copy(tmp_path)
    video = own.add_features("<script>alert(1)<&script>\"'")
    with client_of(own.output, [own.videos]) as client:
        state = {"q": "<script>alert(2)</script>", "names": '"><script>alert(3)', "video": video}
        pages = [client.get("/", params=state).text]
        pages.append(client.get("/", params={"like": f"{video}@1.0", "at": f"{video}@1.0"}).text)
        pages.append(client.get("/", params={"top": "<script>alert(4)"}).text)
        for page in pages:
            assert page.count("<script") == page.count('<script type="module" src=') == 1
        assert "&lt;script&gt;alert(1)" in pages[1]


def test_the_page_has_neither_scripts_nor_styles_inside(client: TestClient) -> None:
    page = client.get("/", params={"q": "a circle"}).text
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in "".join(part.split(">")[0] for part in page.split("<")[1:] if "=" in part)


def hostile_processes(folder: Path, monkeypatch: pytest.MonkeyPatch, silence_s: float) -> None:
    """Let some videos crash or hang the processes that decode them."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HOSTILE.replace("SILENCE", str(silence_s)))
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def test_a_video_that_kills_or_hangs_libav_costs_only_its_own_pictures(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile_processes(tmp_path / "hostile", monkeypatch, 0.5)
    own = drawn.copy(tmp_path)
    videos = {name: own.add_features(name) for name in ("crash", "hang")}
    for name in videos:
        (own.videos / f"{name}.mp4").write_bytes((own.videos / "drawn-00.mp4").read_bytes())
    with client_of(own.output, [own.videos]) as client:
        for name, reason in (("crash", "fault"), ("hang", "no progress")):
            answer = client.get(f"/thumbnails/{videos[name]}", params={"t": 1.0})
            assert answer.status_code == 422
            assert reason in answer.text.lower()
            begun_s = time.monotonic()
            again = client.get(f"/thumbnails/{videos[name]}", params={"t": 2.0})
            assert again.text == answer.text
            assert time.monotonic() - begun_s < 0.4, "it was given another process"
        good = client.get(f"/thumbnails/{video_id('drawn-00')}", params={"t": 1.0})
        assert good.status_code == 200


def test_of_many_requests_at_once_a_slow_one_holds_up_no_other(
    drawn: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile_processes(tmp_path / "hostile", monkeypatch, 60.0)
    monkeypatch.setattr("rayclip.serve.server.available_cores", lambda: 2)
    own = drawn.copy(tmp_path)
    slow = own.add_features("hang")
    (own.videos / "hang.mp4").write_bytes((own.videos / "drawn-00.mp4").read_bytes())

    async def ask() -> tuple[bool, set[int]]:
        with guarded(own.output, [own.videos], 80) as app:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", timeout=60
            ) as client:
                await client.get("/", params={"token": TOKEN})
                hanging = [
                    asyncio.create_task(client.get(f"/thumbnails/{slow}", params={"t": number}))
                    for number in range(10)
                ]
                others = [
                    client.get(f"/thumbnails/{video_id(f'drawn-0{number % 3}')}", params={"t": t})
                    for number in range(195)
                    for t in [number // 3 % 8]
                ]
                answers = await asyncio.gather(*others)
                is_slow = not any(task.done() for task in hanging)
                for task in hanging:
                    task.cancel()
        return is_slow, {answer.status_code for answer in answers}

    assert asyncio.run(ask()) == (True, {200})


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(30_000, 30_000), (9_000, 8_000)])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(
    client: TestClient, size: tuple[int, int]
) -> None:
    answer = client.post("/pictures", content=png_header(*size))
    assert answer.status_code == 415
    assert "make it smaller" in answer.text
    assert "/" not in answer.text, "no path of the server"


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", png_header(64, 64)],
)
def test_what_is_no_picture_is_refused(client: TestClient, content: bytes) -> None:
    answer = client.post("/pictures", content=content)
    assert answer.status_code == 415
    assert "cannot be read" in answer.text


def test_a_picture_of_too_many_bytes_is_refused_while_it_arrives(client: TestClient) -> None:
    assert client.post("/pictures", content=bytes(33 * 2**20)).status_code == 413
    endless = io.BytesIO(bytes(33 * 2**20))
    chunked = iter(lambda: endless.read(2**20), b"")
    assert client.post("/pictures", content=chunked).status_code == 413
