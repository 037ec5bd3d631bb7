"""Generate a short video of moving shapes, extract its CLIP features, and check their meaning."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import shapes

OUTPUT = Path("demo_output")
VIDEO = OUTPUT / "shapes.mp4"
TEXTS = {f"a photo of a {label}": label for label in shapes.LABELS}
SCENES = [
    ("red", "circle"),
    ("blue", "square"),
    ("yellow", "star"),
    ("green", "triangle"),
    ("white", "cross"),
]
TABLE_LINES = 8
MIN_ACCURACY = 0.95
REPORT = OUTPUT / "report.html"
RAYCLIP = Path(sys.executable).parent / "rayclip"


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    drawn = shapes.write_video(VIDEO, SCENES)
    print(f"Drew {VIDEO}: {len(drawn)} frames, {', '.join(dict.fromkeys(drawn))}.\n")
    command = f"rayclip extract {VIDEO} model_name=demo extraction_fps=5 show_pred=true"
    command += f" on_extraction=save_numpy output_path={OUTPUT} --overwrite"
    print(f'$ {command} pred_texts="[{next(iter(TEXTS))}, … 40 texts]"', flush=True)
    words = [*shlex.split(command), f"pred_texts=[{', '.join(TEXTS)}]"]
    ended = subprocess.run(
        [sys.executable, "-m", *words], stdout=subprocess.PIPE, text=True, check=True
    )
    print("\n".join(ended.stdout.splitlines()[:TABLE_LINES]), "\n…", sep="")

    folder = OUTPUT / "clip" / "demo"
    features, timestamps_ms, fps = (
        np.load(folder / f"{VIDEO.stem}_{name}.npy") for name in ("clip", "timestamps_ms", "fps")
    )
    print(
        f"\nclip {features.shape} {features.dtype}, timestamps_ms {timestamps_ms.shape}, fps {fps}"
    )
    truth = [drawn[round(time * fps / 1000)] for time in timestamps_ms]
    with (folder / f"{VIDEO.stem}_pred.csv").open() as file:
        best = [row for row in csv.DictReader(file) if row["rank"] == "1"]
    predicted = [TEXTS[row["label"]] for row in best]
    print("\n    time  drawn            best of 40 texts  probability")
    for row, true_label, label in zip(best, truth, predicted, strict=True):
        if float(row["timestamp_ms"]) % 400 == 0:
            seconds = float(row["timestamp_ms"]) / 1000
            print(f"{seconds:6.1f} s  {true_label:15}  {label:16}  {row['probability']:.5}")
    accuracy = float(np.mean([a == b for a, b in zip(truth, predicted, strict=True)]))
    print(f"\nThe best text is correct for {accuracy:.0%} of the frames.")
    if accuracy < MIN_ACCURACY:
        sys.exit(f"expected at least {MIN_ACCURACY:.0%}")
    show_search()


def show_search() -> None:
    """Search the saved features for two texts, and write the report."""
    texts = [f"a photo of a {shapes.label(*scene)}" for scene in SCENES]
    run(["search", str(OUTPUT), *texts[:2], "--top", "1"])
    run(["report", str(OUTPUT), "--texts", f"[{', '.join(texts)}]", "--to", str(REPORT)])
    print(f"Its address in a browser of this machine: {REPORT.absolute().as_uri()}")
    command = f"{RAYCLIP} serve {OUTPUT} --videos {OUTPUT}"
    print(f"\nTo search the video on a page and play it there: {command}")


def run(words: list[str]) -> None:
    """Show and run a command of rayclip."""
    print(f"\n$ rayclip {shlex.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "rayclip", *words], check=True)


if __name__ == "__main__":
    main()
