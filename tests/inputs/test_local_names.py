"""Names of local files with ``~`` and as file URIs."""

from __future__ import annotations

from pathlib import Path

import pytest
from run_cli import call
from video_factories import numbered_frames, write_video

from rayclip.inputs.expansion import expand
from rayclip.inputs.local_names import resolve_local_name
from rayclip.inputs.videos import absolute, folder_of_inputs
from rayclip.settings import Settings

WITHOUT_RAY = ("--model-name", "demo", "--address", "none", "--device", "cpu")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with videos, different from the working directory."""
    home, here = tmp_path / "home", tmp_path / "here"
    (home / "my videos").mkdir(parents=True)
    here.mkdir()
    write_video(home / "my videos" / "with space.mp4", numbered_frames(3))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    return home


def names_of(video: Path) -> dict[str, str]:
    """Ways to write one name."""
    return {
        "home": "~/my videos/with space.mp4",
        "uri": video.as_uri(),
        "uri of a host": video.as_uri().replace("file://", "file://localhost"),
        "uri, unquoted": f"file://{video}",
    }


@pytest.mark.parametrize("way", ["home", "uri", "uri of a host", "uri, unquoted"])
@pytest.mark.parametrize("place", ["argument", "text", "csv", "jsonl"])
def test_a_video_is_found_however_its_name_is_written(way: str, place: str, home: Path) -> None:
    name = names_of(home / "my videos" / "with space.mp4")[way]
    words = ["--file-with-video-paths", f"list.{place}"]
    if place == "argument":
        words = [name]
    elif place == "text":
        Path("list.text").write_text(f"{name}\n")
    elif place == "csv":
        Path("list.csv").write_text(f"path\n{name}\n")
    else:
        Path("list.jsonl").write_text(f'{{"path": "{name}"}}\n')
    ended = call("extract", *words, *WITHOUT_RAY)
    assert ended.status == 0, ended.stderr
    assert "videos: 1 done; 3 frames" in ended.stderr


def test_folders_and_patterns_may_start_with_a_tilde(home: Path) -> None:
    video = str(home / "my videos" / "with space.mp4")
    assert list(expand(["~/my videos"], {})) == [video]
    assert list(expand(["~/*/*.mp4"], {})) == [video]
    assert list(expand([(home / "my videos").as_uri()], {})) == [video]


@pytest.mark.parametrize("name", ["~odd.mp4", "100%25.mp4"])
def test_an_existing_file_of_this_name_comes_first(name: str, home: Path) -> None:
    path = Path(name).absolute()
    path.touch()
    assert resolve_local_name(name) == name
    assert resolve_local_name(f"file://{path}") == str(path)


@pytest.mark.parametrize(
    "name", ["s3://bucket/a%20b.mp4", "zip://a.mp4::file:///b%20c.zip", "http://a/~b.mp4", "a.mp4"]
)
def test_other_names_are_unchanged(name: str) -> None:
    assert resolve_local_name(name) == name
    assert absolute(name, "/folder") in (name, f"/folder/{name}")


def test_paths_of_a_list_may_start_from_its_folder(home: Path) -> None:
    Path(home / "list.txt").write_text("my videos/with space.mp4\nmissing.mp4\n")
    ended = call("extract", "--file-with-video-paths", home / "list.txt", *WITHOUT_RAY)
    assert "videos: 1 done, 1 failed; 3 frames" in ended.stderr
    assert ended.stdout.splitlines()[0] == "my videos/with space.mp4"


def test_paths_of_a_list_start_from_the_working_directory_if_the_first_exists_there(
    home: Path,
) -> None:
    Path("my videos").mkdir()
    Path("my videos/with space.mp4").touch()
    Path(home / "list.txt").write_text("my videos/with space.mp4\n")
    settings = Settings(file_with_video_paths=str(home / "list.txt"))
    assert folder_of_inputs(settings) == str(Path.cwd())


def test_features_are_not_sent_to_a_web_server(home: Path) -> None:
    words = ["--on-extraction", "save_numpy", "--output-path", "https://example.org/features"]
    ended = call("extract", "~/my videos", *WITHOUT_RAY, *words)
    assert ended.status == 2
    assert "https://example.org/features is an http URL" in ended.stderr
