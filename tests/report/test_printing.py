"""``on_extraction=print`` writes the name of the video and then what video_features writes."""

import io
from dataclasses import replace

import numpy as np
import pytest

from rayclip.output.array_folder import Extraction
from rayclip.report.printing import print_result
from rayclip.report.results import Failure, VideoResult

RESULT = VideoResult(
    "cat.mp4",
    2,
    extraction=Extraction(
        np.array([[1.0, -2.0], [0.5, 0.25]], np.float32), np.array([0.0, 40.0]), 25.0
    ),
)


def printed(result: VideoResult) -> str:
    stream = io.StringIO()
    print_result(result, stream=stream)
    return stream.getvalue()


def test_a_video_is_printed_as_video_features_does() -> None:
    assert printed(RESULT) == (
        "cat.mp4\n"
        "clip\n"
        "[[ 1.   -2.  ]\n"
        " [ 0.5   0.25]]\n"
        "max: 1.00000000; mean: -0.06250000; min: -2.00000000\n"
        "\n"
        "fps\n"
        "25.0\n"
        "max: 25.00000000; mean: 25.00000000; min: 25.00000000\n"
        "\n"
        "timestamps_ms\n"
        "[ 0. 40.]\n"
        "max: 40.00000000; mean: 20.00000000; min: 0.00000000\n"
        "\n"
    )


def test_with_several_models_the_keys_name_the_model() -> None:
    text = printed(replace(RESULT, model="ViT-B/32"))
    keys = [line for line in text.splitlines() if line.endswith("_ViT-B/32")]
    assert keys == ["clip_ViT-B/32", "fps_ViT-B/32", "timestamps_ms_ViT-B/32"]


def test_long_arrays_are_abbreviated_as_numpy_does() -> None:
    clip = np.zeros((400, 512), np.float32)
    extraction = Extraction(clip, np.arange(400.0), 25.0)
    text = printed(VideoResult("cat.mp4", 400, extraction=extraction))
    assert f"clip\n{clip}\nmax: 0.00000000; mean: 0.00000000; min: 0.00000000\n\n" in text
    assert "..." in text


def test_a_failed_video_prints_nothing() -> None:
    failure = Failure("cat.mp4", "open", "not_found", "there is no such file", 1)
    assert printed(VideoResult("cat.mp4", 0, failure)) == ""


def test_results_go_to_standard_output_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(RESULT)
    assert capsys.readouterr() == (printed(RESULT), "")
