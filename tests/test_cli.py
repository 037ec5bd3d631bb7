"""The command line as users call it, without Ray."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import shapes
from run_cli import Finished, call, rayclip, start_rayclip

from rayclip.io import retry
from rayclip.io.retry import RetryPolicy
from rayclip.options import GROUPS
from rayclip.settings import OPTIONS

WITHOUT_RAY = ("--model-name", "demo", "--address", "none")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "shapes.mp4"
    shapes.write_video(path, [("red", "circle"), ("blue", "star")], fps=10, seconds_per_scene=1)
    return path


def save(output: Path, *words: str | Path) -> Finished:
    return call(
        "extract", *words, *WITHOUT_RAY, "--on-extraction", "save_numpy", "--output-path", output
    )


def load(output: Path, name: str) -> np.ndarray:
    return np.load(output / "clip" / "demo" / f"{name}.npy")


def test_each_video_has_three_files_of_the_documented_types(clip: Path, tmp_path: Path) -> None:
    ended = save(tmp_path, clip)
    assert ended.status == 0, ended.stderr
    assert ended.stdout == ""
    features, times, fps = (load(tmp_path, f"shapes_{k}") for k in ("clip", "timestamps_ms", "fps"))
    assert (features.shape, features.dtype) == ((20, 64), np.float32)
    assert (times.shape, times.dtype) == ((20,), np.float64)
    assert times.tolist() == pytest.approx([100 * i for i in range(20)])
    assert (fps.shape, fps.dtype, float(fps)) == ((), np.float64, 10.0)


@pytest.mark.parametrize("option", ["--extraction-fps", "--extraction_fps"])
def test_extraction_fps_sets_the_timestamps(option: str, clip: Path, tmp_path: Path) -> None:
    assert save(tmp_path, clip, option, "2.5").status == 0
    assert load(tmp_path, "shapes_timestamps_ms").tolist() == [0.0, 400.0, 800.0, 1200.0, 1600.0]


def test_print_writes_only_the_arrays_to_standard_output(clip: Path) -> None:
    ended = call("extract", clip, *WITHOUT_RAY, "--extraction-fps", "5")
    assert ended.status == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[:2] == [str(clip), "clip"]
    assert [line for line in lines if line in ("clip", "fps", "timestamps_ms")] == [
        "clip",
        "fps",
        "timestamps_ms",
    ]
    assert "max: 10.00000000; mean: 10.00000000; min: 10.00000000" in lines
    assert "videos: " in ended.stderr


def test_rerunning_the_same_command_decodes_nothing(clip: Path, tmp_path: Path) -> None:
    save(tmp_path, clip)
    before = (tmp_path / "clip/demo/shapes_clip.npy").stat().st_mtime_ns
    again = save(tmp_path, clip)
    assert again.status == 0
    assert "1 done before" in again.stderr
    assert (tmp_path / "clip/demo/shapes_clip.npy").stat().st_mtime_ns == before


def test_only_a_video_with_missing_features_is_extracted_again(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    shutil.copyfile(clip, other)
    output = tmp_path / "output"
    save(output, clip, other)
    kept = (output / "clip/demo/shapes_clip.npy").stat().st_mtime_ns
    (output / "clip/demo/other_clip.npy").unlink()
    again = save(output, clip, other)
    assert "videos: 1 done" in again.stderr
    assert "1 done before" in again.stderr
    assert load(output, "other_clip").tobytes() == load(output, "shapes_clip").tobytes()
    assert (output / "clip/demo/shapes_clip.npy").stat().st_mtime_ns == kept


def test_overwrite_extracts_everything_again(clip: Path, tmp_path: Path) -> None:
    save(tmp_path, clip)
    again = save(tmp_path, clip, "--overwrite", "--extraction-fps", "5")
    assert again.status == 0, again.stderr
    assert load(tmp_path, "shapes_clip").shape == (10, 64)


def test_changed_settings_in_the_same_folder_are_refused_by_name(
    clip: Path, tmp_path: Path
) -> None:
    save(tmp_path, clip, "--extraction-fps", "5")
    mixed = save(tmp_path, clip, "--extraction-fps", "2")
    assert mixed.status == 2
    assert "extraction_fps=5 (now 2)" in mixed.stderr
    assert len(mixed.stderr.splitlines()) == 1


def test_bad_videos_are_listed_in_failures_and_good_ones_are_done(
    clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    _write_audio_with_cover(tmp_path / "song.mp3")
    listed = tmp_path / "videos.txt"
    names = ["missing.mp4", "empty.mp4", "text.mp4", "song.mp3"]
    listed.write_text("\n".join([*(str(tmp_path / name) for name in names), str(clip)]))
    output = tmp_path / "output"
    ended = save(output, "--file-with-video-paths", listed)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert load(output, "shapes_clip").shape == (20, 64)
    lines = (output / "clip/demo/failures.jsonl").read_text().splitlines()
    failures = {Path(line["video"]).name: line for line in map(json.loads, lines)}
    assert {name: failures[name]["code"] for name in names} == {
        "missing.mp4": "not_found",
        "empty.mp4": "empty_file",
        "text.mp4": "not_a_video",
        "song.mp3": "no_video_stream",
    }
    assert {line["stage"] for line in failures.values()} == {"open"}


def test_a_folder_a_pattern_and_json_lines_are_extracted(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "videos" / "deep").mkdir(parents=True)
    for name in ("a.mp4", "deep/b.mp4", "c.bin"):
        shutil.copyfile(clip, tmp_path / "videos" / name)
    shutil.copyfile(clip, tmp_path / "listed.mp4")
    listed = tmp_path / "videos.jsonl"
    listed.write_text(json.dumps({"url": str(tmp_path / "listed.mp4"), "label": 1}))
    words = [tmp_path / "videos", tmp_path / "videos" / "c.*", "--extraction-fps", "1"]
    ended = save(tmp_path, *words, "--file-with-video-paths", listed, "--path-column", "url")
    assert ended.status == 0, ended.stderr
    names = sorted(path.name for path in (tmp_path / "clip/demo").glob("*_clip.npy"))
    assert names == ["a_clip.npy", "b_clip.npy", "c_clip.npy", "listed_clip.npy"]


def test_a_limited_run_estimates_the_time_for_all_inputs(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    for number in range(3):
        shutil.copyfile(clip, tmp_path / "videos" / f"{number}.mp4")
    words = [tmp_path / "videos", "--extraction-fps", "1", "--limit"]
    for limit, has_estimate in (("2", True), ("2", False), ("3", False)):  # the second skips all
        ended = save(tmp_path / "output", *words, limit)
        assert ended.status == 0, ended.stderr
        assert ("all 3 videos would take about " in ended.stderr) == has_estimate
    assert len(list((tmp_path / "output/clip/demo").glob("*_clip.npy"))) == 3


def test_a_failure_that_is_fixed_is_removed_from_the_list(clip: Path, tmp_path: Path) -> None:
    late, output = tmp_path / "late.mp4", tmp_path / "output"
    assert save(output, late).status == 1
    shutil.copyfile(clip, late)
    assert save(output, late).status == 0
    assert (output / "clip/demo/failures.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "No videos were given"),
        (("a.mp4", "--model-name", "ViT-B/31"), "There is no model 'ViT-B/31'"),
        (("a.mp4", "--extraction-fps", "0"), "extraction_fps must be a number above zero"),
        (("a.mp4", "--extraction-fps", "often"), "extraction_fps must be a number above zero"),
        (("a.mp4", "--on-extraction", "save_jpeg"), "on_extraction must be one of"),
        (("a.mp4", "--device", "tpu"), "device must be cpu, cuda or cuda:N"),
        (("a.mp4", "--batch-size", "0"), "batch_size must be at least 1"),
        (("*.mp4",), "No file matches *.mp4"),
        ((".",), "The folder . has no files with a video suffix"),
        (("a.mp4", "--limit", "0"), "limit must be at least 1"),
        (("a.mp4", "--path-column", ""), "path_column is empty"),
        (("a.mp4", "--weights", "w.pt", "--model-name", "demo"), "weights are only for model_name"),
        (("a.mp4", "--model-name", "custom", "--weights", "w.pt"), "does not exist"),
        (("--file-with-video-paths", "no.txt"), "no.txt cannot be read"),
        (("a.mp4", "--address", "ray://head:10001"), "ray job submit"),
        (("a.mp4", "--storage-options", "secret"), "storage_options must be a JSON object"),
        (("a/x.mp4", "b/x.mp4", "--on-extraction", "save_numpy"), "a/x.mp4 and b/x.mp4"),
        (("a/x.mp4", "b/x.mp4", "--keep-tmp-files"), "a/x.mp4 and b/x.mp4"),
        (
            ("a/x.mp4", "b/x.mp4", "--keep-tmp-files", "--on-extraction", "save_parquet"),
            "a/x.mp4 and b/x.mp4",
        ),
        (("a.mp4", "--output-path", ""), "output_path is empty"),
        (("a.mp4", "--tmp-path", "s3://b/tmp"), "tmp_path must be a local folder"),
        (("a.mp4", "--pred-texts", "\udcff"), "of pred_texts is blank or not printable"),
        (("a.mp4", ""), "One of the video_paths is empty"),
        (
            ("a.mp4", "--on-extraction", "save_numpy", "--output-path", "nowhere://x"),
            "nowhere://x/clip/demo cannot be used: Protocol not known",
        ),
    ],
)
def test_a_usage_error_is_one_sentence_and_status_2(
    words: tuple[str, ...], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = () if "--model-name" in words else ("--model-name", "demo")
    address = () if "--address" in words else ("--address", "none")
    ended = call("extract", *words, *model, *address)
    assert ended.status == 2, ended.stderr
    assert sentence in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_refused_overwrite_keeps_existing_features(clip: Path, tmp_path: Path) -> None:
    save(tmp_path, clip)
    before = (tmp_path / "clip/demo/shapes_clip.npy").read_bytes()
    long = ["--show-pred", "--pred-texts", "too long " * 50]
    refused = save(tmp_path, clip, "--overwrite", *long)
    assert refused.status == 2
    assert "too long" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert (tmp_path / "clip/demo/shapes_clip.npy").read_bytes() == before


def test_an_output_path_that_is_a_file_is_refused(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = save(tmp_path / "file", clip)
    assert refused.status == 2
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content"),
    [("run.json", b"\xff\xfe"), ("run.json", b"{}"), ("failures.jsonl", b'\xff\n{"video": {}}\n')],
)
def test_damaged_records_cause_no_traceback(
    name: str, content: bytes, clip: Path, tmp_path: Path
) -> None:
    save(tmp_path, clip)
    (tmp_path / "clip/demo" / name).write_bytes(content)
    again = save(tmp_path, clip)
    if name == "run.json":
        assert again.status == 2
        assert "is damaged" in again.stderr
    else:
        assert again.status == 0


def test_a_closed_pipe_stops_the_run_with_one_sentence(clip: Path, tmp_path: Path) -> None:
    words = ["extract", clip, clip, *WITHOUT_RAY, "--extraction-fps", "1"]
    with start_rayclip(*words) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        stderr = running.stderr.read()
        assert running.wait() == 3, stderr
    assert "Standard output cannot be written" in stderr
    assert "Traceback" not in stderr


def test_an_unknown_option_is_refused() -> None:
    ended = call("extract", "a.mp4", "--fps", "3")
    assert ended.status == 2
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["extract", "--help"], "Extract the CLIP features of videos."),
        (["--version"], f"rayclip {version('rayclip')}"),
    ],
)
def test_help_and_version_need_no_heavy_imports(words: list[str], expected: str) -> None:
    code = (
        "import sys; from rayclip.cli import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    print(end.code, [m for m in ('ray', 'torch', 'clip') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True
    )
    assert expected in shown.stdout
    assert shown.stdout.splitlines()[-1] == "0 []"


def test_help_shows_lists_with_brackets() -> None:
    text = " ".join(call("extract", "--help").stdout.split())
    assert "pip install 'rayclip[index]'" in call("index", "--help").stdout
    assert 'video_paths="[a.mp4, b.mp4]" show_pred=true' in text


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_help_shows_each_option_once_in_its_group_within_80_columns(locale: str) -> None:
    shown = rayclip("extract", "--help", env={"LC_ALL": locale, "PYTHONUTF8": "0"})
    assert shown.status == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    listed: dict[str, list[str]] = {}
    for line in lines:
        if panel := re.match(r"\W+ (\w+) [^\w\s]+$", line):
            flags = listed[panel[1]] = []
        elif flag := re.match(r"\W+(--[\w-]+)\s", line):
            flags.append(flag[1])
    assert listed.pop("Options") == ["--help"]
    assert listed.pop("Arguments") == []
    assert listed == {
        group.capitalize(): [
            option.flag
            for option in OPTIONS.values()
            if option.group == group and option.name != "video_paths"
        ]
        for group in GROUPS
    }


def test_help_may_be_cut_off_by_a_pipe() -> None:
    command = f"{shlex.quote(sys.executable)} -m rayclip extract --help | head -n 1"
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert ended.stderr == ""


def test_a_run_works_without_some_standard_streams(clip: Path, tmp_path: Path) -> None:
    closed = "<&- 2>&-"
    words = [clip, "--model-name", "demo", "--address", "none", "--device", "cpu"]
    command = shlex.join([sys.executable, "-m", "rayclip", "extract", *map(str, words)])
    ended = subprocess.run(
        ["sh", "-c", f"exec {command} {closed}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == 0
    assert ended.stdout.splitlines()[:2] == [str(clip), "clip"]
    assert "videos:" not in ended.stdout
    (tmp_path / "nothing.txt").write_text("")
    words = ["--file-with-video-paths", tmp_path / "nothing.txt", "--address", "none"]
    command = shlex.join([sys.executable, "-m", "rayclip", "extract", *map(str, words)])
    refused = subprocess.run(
        ["sh", "-c", f"exec {command} {closed}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert refused.stdout == ""


def test_an_encoder_that_cannot_start_stops_the_run(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "RESTART", RetryPolicy(2, 60, first_pause_s=0.01))
    words = ["--model-name", "RN50", "--address", "none", "--device", "cpu"]
    unreachable = {"https_proxy": "http://127.0.0.1:9", "HOME": str(tmp_path)}
    ended = call("extract", clip, *words, env=unreachable)
    assert ended.status == 3
    assert "No encoder can start" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_changed_precision_is_refused_by_name(clip: Path, tmp_path: Path) -> None:
    ended = save(tmp_path, clip, "precision=bf16", "--extraction-fps", "2")
    assert ended.status == 0, ended.stderr
    features = load(tmp_path, "shapes_clip")
    assert features.dtype == np.float32
    mixed = save(tmp_path, clip, "--extraction-fps", "2")
    assert mixed.status == 2
    assert "precision=bf16 (now auto)" in mixed.stderr
    assert save(tmp_path, clip, "--extraction-fps", "2", "--overwrite").status == 0
    assert (load(tmp_path, "shapes_clip") != features).any()


def test_compiling_without_a_compiler_stops_the_run_with_one_sentence(clip: Path) -> None:
    without = {"CXX": "no-such-compiler"}
    ended = call("extract", clip, *WITHOUT_RAY, "compile=true", env=without)
    assert ended.status == 3, ended.stderr
    assert "rayclip: No encoder can start: compile needs a C++ compiler" in ended.stderr
    assert "no-such-compiler" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_secrets_in_storage_options_are_never_written(clip: Path, tmp_path: Path) -> None:
    ended = save(tmp_path, clip, "--storage-options", '{"auto_mkdir": true}')
    assert ended.status == 0, ended.stderr
    assert "auto_mkdir" not in (tmp_path / "clip/demo/run.json").read_text()


def test_a_missing_gpu_is_reported_and_the_cpu_is_used(clip: Path, tmp_path: Path) -> None:
    words = ["extract", clip, *WITHOUT_RAY, "--device", "cuda:0", "--extraction-fps", "1"]
    ended = call(*words, env={"CUDA_VISIBLE_DEVICES": ""})
    assert ended.status == 0, ended.stderr
    assert "device cuda:0 was requested, but there is no GPU here" in ended.stderr


def _write_audio_with_cover(path: Path) -> None:
    """Write an mp3 file with a cover as its only picture."""
    import av

    silence = av.AudioFrame.from_ndarray(
        np.zeros((1, 1152), np.float32), format="fltp", layout="mono"
    )
    silence.sample_rate = 44100
    with av.open(str(path), "w", format="mp3") as container:
        sound = container.add_stream("libmp3lame", rate=44100, layout="mono", format="fltp")
        cover = container.add_stream("png")
        cover.width, cover.height, cover.pix_fmt = 64, 64, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(cover.encode(picture))
        for number in range(40):
            silence.pts = number * 1152
            container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
