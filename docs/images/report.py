"""Makes report.png, the beginning of a real report, for README.md: the digits of `streamcurate demo`.

    pip install -e '.[images]' && python docs/images/report.py      # needs Chromium

Runs the demo in a temporary folder, writes each digit as an image named by its id, and takes a picture of the report
on the demo's own draw.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT, MOST_BYTES = 1100, 970, 300_000


def main() -> None:
    """Write report.png beside this file."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("Chromium is not installed: the picture is a screenshot of a page")
    out = Path(__file__).with_name("report.png")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        demo = folder / "digits"
        streamcurate = [sys.executable, "-m", "streamcurate.cli.main"]
        subprocess.run([*streamcurate, "demo", folder, "--quiet"], check=True)
        images = folder / "images"
        images.mkdir()
        pixels = np.load(demo / "embeddings.npy").reshape(-1, 8, 8)
        for identity, one in zip((demo / "ids.txt").read_text(encoding="utf-8").splitlines(), pixels, strict=True):
            shown = Image.fromarray((255 - one * (255 / 16)).astype(np.uint8))
            shown.resize((64, 64), Image.Resampling.NEAREST).save(images / f"{identity}.png")
        # From within the folder: the page names the paths as they were given.
        report = ["report", "digits/run", "--selection", "digits/curated.parquet", "--images", "images"]
        subprocess.run([*streamcurate, *report, "--out", "report.html"], check=True, cwd=folder)
        picture = folder / "report.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--blink-settings=preferredColorScheme=1"]
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--screenshot={picture}", f"--user-data-dir={folder / 'profile'}"]
        subprocess.run([browser, *options, *size, (folder / "report.html").as_uri()], check=True)
        # A palette is enough for flat colours, and a third of the bytes.
        Image.open(picture).convert("RGB").quantize(128).save(out, optimize=True)
    print(f"{out}: {out.stat().st_size:,} bytes")
    if out.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{out} is larger than {MOST_BYTES:,} bytes")


if __name__ == "__main__":
    main()
