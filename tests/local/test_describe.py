"""Models that need torch to be described are described by the worker process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import checkpoints
import pytest
from video_factories import numbered_frames, write_video

RUN = """
import sys
import rayclip

video, weights, output = sys.argv[1:]
try:
    rayclip.extract([video], model_name="custom", weights=weights, activation="quickgelu",
                    on_extraction="save_numpy", output_path=output, address="none")
except rayclip.UsageError as error:
    print(error)
print("torch" in sys.modules)
"""


@pytest.mark.parametrize("is_model", [True, False])
def test_the_command_needs_no_torch_for_a_custom_model(is_model: bool, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", numbered_frames(2))
    weights = tmp_path / "weights.pt"
    if is_model:
        checkpoints.save_state_dict(checkpoints.small_vit(), weights)
    else:
        weights.write_bytes(b"nothing")
    output = tmp_path / "out"
    words = [sys.executable, "-c", RUN, str(video), str(weights), str(output)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said.pop() == "False"
    assert (output / "clip" / "custom" / "a_clip.npy").exists() is is_model
    assert [f"{weights} is neither" in line for line in said] == [True] * (not is_model)
