"""The page: what it finds and shows."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from drawn_collection import picture_of
from PIL import Image
from served_pages import Drawn, client_of, extract
from starlette.testclient import TestClient

from rayclip.serve.collection import video_id

MOMENT = re.compile(r'data-video="(\w+)" data-start="([\d.]+)" data-best="([\d.]+)" data-name="')


def found(client: TestClient, **state: str | int) -> list[tuple[str, float]]:
    """The moments: IDs of videos, and starts in seconds."""
    answer = client.get("/", params=state)
    assert answer.status_code == 200, answer.text
    return [(video, float(start)) for video, start, _ in MOMENT.findall(answer.text)]


def expected(drawn: Drawn, number: int) -> tuple[str, float]:
    scene = drawn.scenes[number]
    return video_id(scene.video), scene.start_s


@pytest.mark.parametrize("number", [0, 5, 10])
def test_a_text_finds_its_moment_first(drawn: Drawn, client: TestClient, number: int) -> None:
    text = f"a photo of a {drawn.scenes[number].label}"
    assert found(client, q=text)[0] == expected(drawn, number)


def test_the_first_page_shows_no_moment_and_says_what_to_do(client: TestClient) -> None:
    assert found(client) == []
    assert "drop a picture" in client.get("/").text


def test_more_like_a_moment_finds_itself_first(drawn: Drawn, client: TestClient) -> None:
    video, start_s = expected(drawn, 6)
    assert found(client, like=f"{video}@{start_s + 1}")[0] == (video, start_s)


def test_videos_are_filtered_by_link_and_by_name(drawn: Drawn, client: TestClient) -> None:
    text = f"a photo of a {drawn.scenes[0].label}"
    other = video_id("drawn-01")
    for state in ({"video": other}, {"names": "WN-01"}):
        videos = {video for video, _ in found(client, q=text, **state)}
        assert videos == {other}
    assert "of 1 video<" in client.get("/", params={"q": text, "video": other}).text.replace(
        "\n", ""
    )
    assert found(client, q=text, names="no such name") == []


def test_as_many_moments_are_shown_as_are_asked_for(client: TestClient) -> None:
    text = "a photo of a red circle"
    assert len(found(client, q=text, top=2)) == 2
    page = client.get("/", params={"q": text, "top": 2}).text
    assert 'href="/?q=a+photo+of+a+red+circle&amp;top=32"' in page


def test_a_reload_shows_new_videos_and_new_models(drawn: Drawn, tmp_path: Path) -> None:
    own = drawn.copy(tmp_path)
    text = f"a photo of a {drawn.scenes[0].label}"
    with client_of(own.output, [own.videos]) as client:
        before = found(client, q=text)
        new = own.add_features("new")
        after = found(client, q=text)
        assert new not in dict(before)
        assert new in dict(after)
        shutil.copytree(own.features, own.output / "clip" / "second")
        assert '<option value="second">' in client.get("/", params={"model": "demo"}).text
        (own.output / "clip/second/new_clip.npy").unlink()
        assert new not in dict(found(client, q=text, model="second"))


def test_features_in_shards_are_shown_like_others(drawn: Drawn, tmp_path: Path) -> None:
    extract(drawn.videos, tmp_path / "parquet", "save_parquet")
    scene = drawn.scenes[6]
    video = video_id(str(drawn.videos / f"{scene.video}.mp4"))
    with client_of(tmp_path / "parquet", [drawn.videos]) as client:
        assert found(client, q=f"a photo of a {scene.label}")[0] == (video, scene.start_s)
    with client_of(tmp_path / "parquet", [drawn.videos]) as client:  # which has seen no video yet
        assert client.get(f"/thumbnails/{video}", params={"t": 1.0}).status_code == 200
        assert found(client, like=f"{video}@{scene.start_s + 1}")[0] == (video, scene.start_s)
        page = client.get("/", params={"at": f"{video}@1.0"}).text
        assert f'data-name="{scene.video}.mp4"' in page


def test_a_picture_is_of_its_moment(drawn: Drawn, client: TestClient) -> None:
    video, start_s = expected(drawn, 4)
    answer = client.get(f"/thumbnails/{video}", params={"t": start_s + 1})
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)), np.float64)
    with av.open(str(drawn.videos / f"{drawn.scenes[4].video}.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert np.abs(shown - frames[round(10 * (start_s + 1))]).mean() < 8


def test_a_video_is_sent_in_ranges(drawn: Drawn, client: TestClient) -> None:
    content = (drawn.videos / "drawn-00.mp4").read_bytes()
    path = f"/videos/{video_id('drawn-00')}"
    whole = client.get(path)
    assert (whole.content, whole.headers["content-type"]) == (content, "video/mp4")
    part = client.get(path, headers={"Range": "bytes=1000-1999"})
    assert (part.status_code, part.content) == (206, content[1000:2000])
    beyond = client.get(path, headers={"Range": f"bytes={len(content)}-"})
    assert beyond.status_code == 416


def test_a_part_is_converted_for_browsers(drawn: Drawn, client: TestClient) -> None:
    start_s = 4.0
    answer = client.get(f"/previews/{video_id('drawn-02')}", params={"t": start_s})
    assert answer.status_code == 200, answer.text
    with av.open(io.BytesIO(answer.content)) as preview:
        stream = preview.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        shown = [frame.to_ndarray(format="rgb24") for frame in preview.decode(video=0)]
    with av.open(str(drawn.videos / "drawn-02.avi")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == len(frames) - 40
    for number in (0, 15, 39):
        away = np.abs(shown[number].astype(float) - frames[40 + number])
        assert away.mean() < 8


def test_a_part_after_the_end_is_said(client: TestClient) -> None:
    answer = client.get(f"/previews/{video_id('drawn-02')}", params={"t": 1000.0})
    assert (answer.status_code, answer.text) == (422, "the video shows nothing then\n")


def test_a_dropped_picture_finds_its_moment(drawn: Drawn, client: TestClient) -> None:
    file = io.BytesIO()
    picture_of(drawn.scenes[9].label, 1).save(file, "PNG")
    answer = client.post("/pictures", content=file.getvalue())
    assert answer.status_code == 200, answer.text
    assert found(client, picture=answer.text)[0] == expected(drawn, 9)
    assert client.get(f"/pictures/{answer.text}").headers["content-type"] == "image/jpeg"


def test_a_picture_that_is_gone_is_said(client: TestClient) -> None:
    answer = client.get("/", params={"picture": "0" * 32})
    assert answer.status_code == 400
    assert "drop it again" in answer.text


def test_without_folders_of_videos_moments_have_no_pictures(drawn: Drawn, tmp_path: Path) -> None:
    with client_of(drawn.output, []) as client:
        assert found(client, q="a photo of a red circle")
        for kind in ("thumbnails", "videos", "previews"):
            answer = client.get(f"/{kind}/{video_id('drawn-00')}", params={"t": 1.0})
            assert answer.status_code == 404
