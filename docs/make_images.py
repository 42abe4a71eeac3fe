"""Pictures of the README from a synthetic run: .venv/bin/python docs/make_images.py RUN"""

import json
import sys
from pathlib import Path

from PIL import Image

NAMES = ("fig1_preparation", "fig5_both_classes", "fig6_agreement_external")
WIDTH = 1200


def main(run: Path) -> None:
    """Write docs/images/<name>.png, 1200 pixels wide, from the figures of one run."""
    cohorts = json.loads((run / "run.json").read_text(encoding="utf-8"))["config"]["cohorts"]
    if any(not name.startswith("phantom") for name in cohorts):
        sys.exit(f"{run}: cohorts {', '.join(cohorts)}; only synthetic cases may be shown")
    target = Path(__file__).parent / "images"
    target.mkdir(exist_ok=True)
    for name in NAMES:
        picture = Image.open(run / "figures" / f"{name}.png").convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        # The octree keeps rare colours, such as a small yellow lesion; median cut does not.
        colours = small.quantize(256, method=Image.Quantize.FASTOCTREE)
        colours.save(target / f"{name}.png", optimize=True)
        print(target / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
