"""Models that need torch to be described are described by the worker process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import checkpoints
from video_factories import numbered_frames, write_video

RUN = """
import sys
import rayclip

video, output, *checkpoints = sys.argv[1:]
for weights in checkpoints:
    try:
        rayclip.extract([video], model_name="custom", weights=weights, activation="quickgelu",
                        on_extraction="save_numpy", output_path=output, address="none")
    except rayclip.UsageError as error:
        print(error)
    print("torch" in sys.modules)
"""


def test_the_command_needs_no_torch_for_a_custom_model(tmp_path: Path) -> None:
    video, output = write_video(tmp_path / "a.mp4", numbered_frames(2)), tmp_path / "out"
    text = tmp_path / "text.pt"
    text.write_bytes(b"nothing")
    weights = checkpoints.save_state_dict(checkpoints.small_vit(), tmp_path / "weights.pt")
    words = [sys.executable, "-c", RUN, video, output, text, weights]
    ended = subprocess.run(words, capture_output=True, text=True, check=True)
    refused, *imported = ended.stdout.splitlines()
    assert refused.startswith(f"{text} is neither")
    assert imported == ["False", "False"]
    assert (output / "clip" / "custom" / "a_clip.npy").exists()
