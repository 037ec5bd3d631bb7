"""The chaos script finds every kind of error in an output folder, and counts them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import chaos
import pytest
from chaos_checks import content, find_errors, finished
from chaos_rounds import Outcome
from typer.testing import CliRunner

FILES = [f"clip/demo/{name}{end}.npy" for name in "ab" for end in ("_clip", "_fps")]
HEAD = "clip/demo/"


def write_output(output: Path) -> Path:
    (output / "clip" / "demo").mkdir(parents=True)
    for path in FILES:
        (output / path).write_text(f"bits of {path}")
    (output / HEAD / "run.json").write_text(f"a run into {output}")
    return output


def damage_none(output: Path) -> None:
    (output / HEAD / "failures.jsonl").touch()


def damage_bits(output: Path) -> None:
    (output / FILES[0]).write_text("other")


def lose(output: Path) -> None:
    (output / FILES[1]).unlink()


def leave_temporary_file(output: Path) -> None:
    (output / HEAD / ".1234.tmp").touch()


def add_foreign_folder(output: Path) -> None:
    (output / "clip" / "else").mkdir()
    (output / "clip" / "else" / "a_clip.npy").touch()


def fail(output: Path) -> None:
    (output / HEAD / "failures.jsonl").write_text('{"video": "b.mp4"}\n')


@pytest.mark.parametrize(
    ("damage", "sentences"),
    [
        (damage_none, []),
        (damage_bits, ["clip/demo/a_clip.npy has other bits"]),
        (lose, ["clip/demo/a_fps.npy is missing"]),
        (leave_temporary_file, ["clip/demo/.1234.tmp should not be there"]),
        (add_foreign_folder, ["clip/else/a_clip.npy should not be there"]),
        (fail, ['failures.jsonl: {"video": "b.mp4"}']),
    ],
)
def test_every_difference_from_an_undisturbed_run_is_an_error(
    damage: Callable[[Path], None], sentences: list[str], tmp_path: Path
) -> None:
    undisturbed = content(write_output(tmp_path / "undisturbed"))
    output = write_output(tmp_path / "disturbed")
    damage(output)
    assert list(find_errors(undisturbed, output)) == sentences


def test_a_video_whose_features_are_rewritten_is_redone(tmp_path: Path) -> None:
    output = write_output(tmp_path)
    before = finished(output)
    assert before.redone(output) == []
    os.utime(output / FILES[0], (1, 1))
    (output / HEAD / "c_clip.npy").touch()
    assert before.redone(output) == ["a_clip.npy"]


def test_the_report_has_a_row_for_each_kind() -> None:
    outcomes = [
        Outcome("encoder", 0.25, 0, (), 10.0),
        Outcome("encoder", 0.5, 2, ("a_clip.npy is missing", "a_fps.npy is missing"), 14.0),
        Outcome("raylet", None, 0, (), 9.0),
    ]
    lines = chaos.report(outcomes).splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:4]] == [
        ["encoder", "2", "0", "25% to 50%", "2", "1", "12.0"],
        ["raylet", "1", "1", "-", "0", "0", "9.0"],
    ]


def test_an_unknown_kind_of_kill_is_refused() -> None:
    ended = CliRunner().invoke(chaos.app, ["--kinds", "raylet,gcs"])
    assert ended.exit_code == 2
    assert ended.stderr == (
        "chaos: --kinds must be some of encoder, decoder, raylet, driver, lone-driver, not gcs.\n"
    )
