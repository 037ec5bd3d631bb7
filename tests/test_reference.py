"""Command lines of video_features' CLIP extractor, and their results."""

from __future__ import annotations

import csv
import pickle
import shlex
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import shapes
from run_cli import call

import rayclip
from rayclip.model import exact_resize
from rayclip.model.checkpoint import openai_clip, without_warnings
from rayclip.model.openai import DEMO_WEIGHTS
from rayclip.model.preprocess import Resizing, resize

PAIR = '"[./sample/v_ZNVhz7ctTq0.mp4, ./sample/v_GGSY1Qvo990.mp4]"'
MODEL = 'feature_type="clip" model_name="demo"'
DOCUMENTED = [
    f'{MODEL} extraction_fps=1 video_paths="[./sample/v_GGSY1Qvo990.mp4]" on_extraction="print"',
    f'{MODEL} device="cuda:0" video_paths={PAIR}',
    f'{MODEL} device="cuda:0" on_extraction=save_numpy '
    "file_with_video_paths=./sample/sample_video_paths.txt",
    f'{MODEL} device="cuda:0" batch_size=128 video_paths={PAIR}',
    f'{MODEL} device="cuda:0" extraction_fps=5 video_paths={PAIR}',
    f'{MODEL} device="cuda:0" extraction_fps=1 show_pred="true" '
    f"pred_texts=\"['a dog smiles', 'a woman is lifting']\" video_paths={PAIR}",
    f'{MODEL} extraction_fps=1 show_pred="true" pred_texts=null video_paths={PAIR}',
    f"{MODEL} video_paths={PAIR} --on_extraction save_numpy --output_path ./features",
    f"{MODEL} video_paths={PAIR} --on_extraction save_pickle",
]
SCENES = [("red", "circle"), ("blue", "star"), ("green", "triangle")]


@pytest.fixture(scope="module")
def shapes_video(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A video of three seconds at 10 fps, and the label of each of its frames."""
    path = tmp_path_factory.mktemp("video") / "shapes.mp4"
    return path, shapes.write_video(path, SCENES, fps=10, seconds_per_scene=1)


@pytest.fixture
def checkout(
    shapes_video: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A working folder with the files of a video_features checkout."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sample").mkdir()
    names = ["./sample/v_ZNVhz7ctTq0.mp4", "./sample/v_GGSY1Qvo990.mp4"]
    for name in names:
        shutil.copyfile(shapes_video[0], name)
    Path("sample/sample_video_paths.txt").write_bytes("\r\n".join([*names, "", ""]).encode())
    return tmp_path


@pytest.mark.parametrize("command", DOCUMENTED)
def test_a_documented_command_line_works(command: str, checkout: Path) -> None:
    ended = call("extract", *shlex.split(command), "--address", "none")
    assert ended.status == 0, ended.stderr
    videos = 1 if "ZNVhz" not in command and "sample_video_paths" not in command else 2
    assert f"videos: {videos} done" in ended.stderr
    missing_gpu = "device cuda:0 was requested, but there is no GPU here" in ended.stderr
    assert missing_gpu == ("cuda" in command and not _has_gpu())
    if "save" in command:
        root = checkout / ("features" if "./features" in command else "output") / "clip/demo"
        suffix = "pkl" if "pickle" in command else "npy"
        kinds = ["clip", "fps", "timestamps_ms"]
        assert sorted(path.name for path in root.glob(f"v_GGSY*.{suffix}")) == [
            f"v_GGSY1Qvo990_{kind}.{suffix}" for kind in kinds
        ]
        assert ended.stdout == ""
    else:
        assert ended.stdout.count("timestamps_ms\n") == videos
        tables = (3 * videos) if "show_pred" in command else 0
        assert ended.stdout.count("  Logits | Prob. | Label \n") == tables


def test_a_list_is_read_from_standard_input(checkout: Path) -> None:
    words = ["--file-with-video-paths", "-", "--model-name", "demo", "--address", "none"]
    ended = call("extract", *words, stdin="sample/v_GGSY1Qvo990.mp4\n")
    assert ended.status == 0, ended.stderr
    assert ended.stdout.startswith("sample/v_GGSY1Qvo990.mp4\n")


def test_pickle_numpy_and_python_give_equal_arrays(
    shapes_video: tuple[Path, list[str]], tmp_path: Path
) -> None:
    words = ["extract", shapes_video[0], "--model-name", "demo", "--address", "none"]
    call(*words, "--on-extraction", "save_numpy", "--output-path", tmp_path / "npy")
    call(*words, "--on-extraction", "save_pickle", "--output-path", tmp_path / "pkl")
    summary = rayclip.extract(
        shapes_video[0],
        model_name="demo",
        address="none",
        on_extraction="save_numpy",
        output_path=str(tmp_path / "python"),
    )
    assert (summary.done, summary.frames, summary.failed) == (1, 30, ())
    for kind in ("clip", "timestamps_ms", "fps"):
        array = np.load(tmp_path / f"npy/clip/demo/shapes_{kind}.npy")
        python = np.load(tmp_path / f"python/clip/demo/shapes_{kind}.npy")
        pickled = pickle.loads((tmp_path / f"pkl/clip/demo/shapes_{kind}.pkl").read_bytes())
        assert array.dtype == pickled.dtype == python.dtype
        np.testing.assert_array_equal(pickled, array)
        np.testing.assert_array_equal(python, array)


def test_features_do_not_depend_on_the_batch_size(
    shapes_video: tuple[Path, list[str]], tmp_path: Path
) -> None:
    features = {}
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    for batch_size in (1, 7, 64):
        how = [f"batch_size={batch_size}", f"output_path={tmp_path / str(batch_size)}"]
        assert call("extract", shapes_video[0], *words, *how).status == 0
        clip = np.load(tmp_path / f"{batch_size}/clip/demo/shapes_clip.npy")
        features[batch_size] = clip - clip.mean(axis=0)
    for batch_size in (7, 64):
        a, b = features[1], features[batch_size]
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert cosine.min() >= 0.9999


def test_show_pred_finds_the_drawn_shape_with_openais_numbers(
    shapes_video: tuple[Path, list[str]], tmp_path: Path
) -> None:
    video, drawn = shapes_video
    texts = [f"a photo of a {label}" for label in shapes.LABELS]
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    words += ["--show-pred", "--pred-texts", f"[{', '.join(texts)}]", "--output-path", tmp_path]
    ended = call("extract", video, *words)
    assert ended.status == 0, ended.stderr
    with (tmp_path / "clip/demo/shapes_pred.csv").open() as file:
        rows = list(csv.DictReader(file))
    best = [row["label"] for row in rows if row["rank"] == "1"]
    assert np.mean([a == f"a photo of a {b}" for a, b in zip(best, drawn, strict=True)]) >= 0.95

    import torch

    clip = openai_clip()
    with without_warnings(), torch.no_grad():
        model, preprocess = clip.load(str(DEMO_WEIGHTS), device="cpu")
        seen = [frame.to_image() for frame in av.open(str(video)).decode(video=0)]
        images = model.encode_image(torch.stack([preprocess(image) for image in seen])).double()
        prompts = model.encode_text(clip.tokenize(texts, context_length=16)).double()
        images /= images.norm(dim=1, keepdim=True)
        prompts /= prompts.norm(dim=1, keepdim=True)
        logits = model.logit_scale.exp().double() * images @ prompts.T
        probabilities, order = logits.softmax(dim=1).sort(dim=1, descending=True)
    printed = iter(ended.stdout.splitlines()[1:])
    for frame in range(len(drawn)):
        assert float(next(printed).removesuffix(" ms")) == pytest.approx(100 * frame, abs=0.06)
        assert next(printed) == "  Logits | Prob. | Label "
        for rank in range(5):
            index = int(order[frame, rank])
            logit, probability, label = next(printed).split(" | ")
            assert float(logit) == pytest.approx(float(logits[frame, index]), abs=1.1e-3)
            assert float(probability) == pytest.approx(
                float(probabilities[frame, rank]), abs=1.1e-3
            )
            assert label == texts[index]
        assert next(printed) == ""


@pytest.mark.parametrize(("total", "frames"), [(1, [15]), (4, [3, 11, 18, 26]), (99, range(30))])
def test_extraction_total_selects_the_middle_frames_of_equal_parts(
    total: int, frames: list[int], shapes_video: tuple[Path, list[str]], tmp_path: Path
) -> None:
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    ended = call(
        "extract", shapes_video[0], *words, f"extraction_total={total}", f"output_path={tmp_path}"
    )
    assert ended.status == 0, ended.stderr
    times = np.load(tmp_path / "clip/demo/shapes_timestamps_ms.npy")
    assert times.tolist() == pytest.approx([100 * frame for frame in frames])


def test_keep_tmp_files_keeps_and_uses_the_reencoded_video(
    shapes_video: tuple[Path, list[str]], tmp_path: Path
) -> None:
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    words += ["keep_tmp_files=true", "extraction_fps=5", f"tmp_path={tmp_path / 't m p'}"]
    ended = call("extract", shapes_video[0], *words, f"output_path={tmp_path}")
    assert ended.status == 0, ended.stderr
    kept = tmp_path / "t m p/clip/demo/shapes_new_fps.mp4"
    with av.open(str(kept)) as container:
        assert container.streams.video[0].average_rate == Fraction(5)
    frames = [resize(rgb, Resizing(64)) for _, rgb in rayclip.iter_frames(kept)]
    clip = np.load(tmp_path / "clip/demo/shapes_clip.npy")
    np.testing.assert_array_equal(
        clip, rayclip.load_clip("demo", device="cpu").encode_image(np.stack(frames))
    )
    assert np.load(tmp_path / "clip/demo/shapes_timestamps_ms.npy").tolist() == pytest.approx(
        [200 * tick for tick in range(15)]
    )
    assert float(np.load(tmp_path / "clip/demo/shapes_fps.npy")) == 10.0


def test_the_sample_of_video_features_at_5_fps_keeps_90_frames(
    shared_data: Path, tmp_path: Path
) -> None:
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    words += ["keep_tmp_files=true", "extraction_fps=5", f"tmp_path={tmp_path / 'tmp'}"]
    video = shared_data / "videos" / "v_GGSY1Qvo990.mp4"
    assert call("extract", video, *words, f"output_path={tmp_path}").status == 0
    assert np.load(tmp_path / "clip/demo/v_GGSY1Qvo990_clip.npy").shape == (90, 64)
    with av.open(str(tmp_path / "tmp/clip/demo/v_GGSY1Qvo990_new_fps.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(5)
        assert sum(1 for _ in container.decode(video=0)) == 90


def test_naming_path_mirrors_folders_of_inputs_with_equal_stems(checkout: Path) -> None:
    (checkout / "other").mkdir()
    shutil.copyfile("sample/v_GGSY1Qvo990.mp4", "other/v_GGSY1Qvo990.mp4")
    words = ["sample/v_GGSY1Qvo990.mp4", "other/v_GGSY1Qvo990.mp4", "--model-name", "demo"]
    words += ["--address", "none", "--on-extraction", "save_numpy"]
    refused = call("extract", *words)
    assert refused.status == 2
    assert "sample/v_GGSY1Qvo990.mp4 and other/v_GGSY1Qvo990.mp4" in refused.stderr
    assert "--naming path" in refused.stderr
    assert call("extract", *words, "--naming", "path").status == 0
    for folder in ("sample", "other"):
        assert (checkout / f"output/clip/demo/{folder}/v_GGSY1Qvo990_clip.npy").exists()
    assert "2 done before" in call("extract", *words, "--naming", "path").stderr


def test_a_text_that_is_too_long_is_named(shapes_video: tuple[Path, list[str]]) -> None:
    long = "a very long text " * 10
    ended = call(
        *["extract", shapes_video[0], "--model-name", "demo", "--address", "none"],
        *["--show-pred", "--pred-texts", long],
    )
    assert ended.status == 2
    assert long.strip() in ended.stderr
    assert "too long" in ended.stderr


def test_float16_is_saved_on_request(shapes_video: tuple[Path, list[str]], tmp_path: Path) -> None:
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    words += ["--feature-dtype", "float16", "--output-path", tmp_path]
    assert call("extract", shapes_video[0], *words).status == 0
    assert np.load(tmp_path / "clip/demo/shapes_clip.npy").dtype == np.float16
    assert "1 done before" in call("extract", shapes_video[0], *words).stderr


def test_features_do_not_depend_on_the_c_library(
    shapes_video: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model-name", "demo", "--address", "none", "--on-extraction", "save_numpy"]
    saved = {}
    for way in ("library", "Pillow"):
        output = tmp_path / way
        ended = call("extract", shapes_video[0], *words, "--verbose", "--output-path", output)
        assert ended.status == 0, ended.stderr
        says_so = "Pillow resizes the frames" in ended.stderr
        assert says_so != exact_resize.is_available()
        saved[way] = (output / "clip/demo/shapes_clip.npy").read_bytes()
        monkeypatch.setattr(exact_resize, "_resize", None)
    assert saved["library"] == saved["Pillow"]


def test_features_equal_those_of_video_features(shared_data: Path) -> None:
    weights = Path.home() / ".cache" / "clip" / "ViT-B-32.pt"
    if not weights.exists():
        pytest.skip(f"OpenAI's ViT-B/32 weights are not in {weights}")
    reference = np.load(shared_data / "reference/v_GGSY1Qvo990.vit-b-32.native.clip.npy")
    model = rayclip.load_clip("ViT-B/32", device="cpu")
    video = shared_data / "videos" / "v_GGSY1Qvo990.mp4"
    frames = [resize(rgb, Resizing(model.n_px)) for _, rgb in rayclip.iter_frames(video)]
    features = model.encode_image(np.stack(frames))
    assert cosines(features, reference).min() >= 0.9999
    centred = features - features.mean(axis=0), reference - reference.mean(axis=0)
    assert cosines(*centred).min() >= 0.999


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
