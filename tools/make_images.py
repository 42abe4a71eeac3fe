"""Pictures of README and gallery, of a synthetic run: .venv/bin/python tools/make_images.py RUN"""

import sys
from pathlib import Path

from PIL import Image

from deeplung_nb.runs import read_run

NAMES = (
    "fig1_preparation", "fig2_architecture", "fig3_cross_validation", "fig4_ground_glass",
    "fig5_both_classes", "fig6_agreement_cv", "fig_i_agreement_external", "learning_curves",
    "dice_by_scanner_cv", "case_worst", "slice_profile_worst", "waterfall_cv",
)
WIDTH = 1200


def main(source: Path) -> None:
    """Write docs/images/<name>.png, 1200 pixels wide, from the figures of one run."""
    if not read_run(source).synthetic:
        sys.exit(f"{source}: a run of real cases; only synthetic ones may be shown")
    target = Path(__file__).resolve().parent.parent / "docs" / "images"
    target.mkdir(exist_ok=True)
    for name in NAMES:
        picture = Image.open(source / "figures" / f"{name}.png").convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        small = picture.resize((WIDTH, height), Image.Resampling.LANCZOS)
        # The octree keeps rare colours, such as a small yellow lesion; median cut does not.
        colours = small.quantize(256, method=Image.Quantize.FASTOCTREE)
        colours.save(target / f"{name}.png", optimize=True)
        print(target / f"{name}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
