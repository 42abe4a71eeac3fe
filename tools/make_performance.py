"""docs/performance.md from docs/timings.csv: .venv/bin/python tools/make_performance.py

The words are those of `performance.template.md`; the CSV is made by
`python -m deeplung_nb benchmark --output docs/timings.csv`.
"""

import json
from pathlib import Path

import pandas as pd

from deeplung_nb.report.numbers import number

DOCS = Path(__file__).resolve().parent.parent / "docs"
NAMES = {"ours": "ours (DenseNet)", "packaged": "packaged (light trunk)", "unet2d": "U-Net 2D",
         "unet3d": "U-Net 3D", "convlstm": "ConvLSTM alone", "ensemble": "three packaged"}


def markdown(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in lines)


def seconds(row, by=1.0, unit=""):
    text = f"{number(row.seconds_median / by)}{unit}"
    if row.repeats > 1:
        text += f" ({number(row.seconds_min / by)} to {number(row.seconds_max / by)})"
    return text


def name(row):
    width = f", {row.width} to {16 * row.width}" if row.width else ""
    return f"{NAMES[row.model]}{width}"


class Timings:
    def __init__(self, frame):
        self.frame = frame
        self.least = int(frame.loc[frame.task == "network", "n_slices"].min())

    def of(self, model, way="fast", n=None, task="network"):
        rows = self.frame[(self.frame.model == model) & (self.frame.way == way)
                          & (self.frame.n_slices == (n or self.least)) & (self.frame.task == task)]
        return None if rows.empty else rows.iloc[0]

    def ratio(self, above, below):
        return above.seconds_median / below.seconds_median


def network_table(t):
    rows = []
    unet = t.of("unet2d", "plain")
    for row in t.frame[(t.frame.n_slices == t.least) & (t.frame.task == "network")].itertuples():
        rate = row.gflop_per_slice * row.n_slices / row.seconds_median
        rows.append([name(row), row.way, seconds(row, row.n_slices / 1000),
                     number(row.seconds_median / unet.seconds_median), number(row.gflop_per_slice),
                     f"{100 * rate / most(row):.0f} %", number(row.peak_memory_gb)])
    return markdown(["network", "way", "ms a slice, median (range)", "of U-Net 2D, plain",
                     "GFLOP a slice", "of the machine’s most", "peak memory, GB"], rows)


def most(row):
    """What the machine can do at most, GFLOP/s."""
    return max(row.matmul_gflops, row.convolution_gflops)


def long_table(t):
    rows = []
    for row in t.frame[(t.frame.n_slices > t.least) & (t.frame.task == "network")].itertuples():
        rows.append([name(row), row.n_slices, seconds(row),
                     number(1000 * row.seconds_median / row.n_slices), number(row.peak_memory_gb)])
    return markdown(["network", "slices", "s, median (range)", "ms a slice", "peak memory, GB"],
                    rows)


def file_table(t):
    rows = []
    for row in t.frame[t.frame.task == "file"].itertuples():
        alone = t.of("ensemble", n=row.n_slices)
        rows.append([f"{row.n_slices} × 512 × 512", seconds(row), number(alone.seconds_median),
                     number(row.seconds_median / alone.seconds_median),
                     number(row.peak_memory_gb)])
    return markdown(["CT file to mask, volumes and provenance", "s", "of which three networks "
                     "alone, s", "ratio", "peak memory, GB"], rows)


def training_table(t):
    rows = []
    for row in t.frame[t.frame.task == "training"].itertuples():
        loading = t.of("ours", "plain", row.n_slices, "loading")
        share = "" if loading is None else \
            f"{100 * loading.seconds_median / row.seconds_median:.1f} %"
        rows.append([name(row), row.n_slices, row.way, seconds(row), number(row.peak_memory_gb),
                     share])
    return markdown(["network", "slices of the step", "way", "s, median (range)",
                     "peak memory, GB", "windows cut out and augmented, of the step"], rows)


def training_targets(t):
    steps = t.frame[t.frame.task == "training"].n_slices
    if steps.empty:
        return
    plain, half = (t.of("ours", way, steps.min(), "training") for way in ("plain", "bfloat16"))
    if half is not None:
        yield ("training step of " + f"{steps.min()} slices (DenseNet), plain float32 to bfloat16",
               t.ratio(plain, half), "≥", 2)
    largest = t.of("ours", n=steps.max(), task="training")
    if largest is not None:
        yield (f"training step of {steps.max()} slices (DenseNet), peak memory, GB",
               largest.peak_memory_gb, "≤", 24)


def targets(t):
    long = [n for n in sorted(t.frame[t.frame.task == "file"].n_slices.unique())]
    unet, ours, light = t.of("unet2d", "plain"), t.of("ours"), t.of("packaged")
    peak = ours.gflop_per_slice * ours.n_slices / most(ours)
    rows = [
        ("ConvLSTM, plain to fast", t.ratio(t.of("convlstm", "plain"), t.of("convlstm")), "≥", 6),
        ("whole network (DenseNet), plain to fast", t.ratio(t.of("ours", "plain"), ours), "≥", 2),
        ("… of U-Net 2D (paper 0.607)", t.ratio(ours, unet), "≤", 0.15),
        ("packaged network of U-Net 2D", t.ratio(light, unet), "≤", 0.06),
        *training_targets(t),
        ("DenseNet network, of the seconds that its arithmetic takes at the machine’s most",
         ours.seconds_median / peak, "≤", 2),
    ]
    if long:
        file = t.of("ensemble", n=long[0], task="file")
        rows += [(f"{long[0]} slices from file to file, of the networks alone",
                  t.ratio(file, t.of("ensemble", n=long[0])), "≤", 1.5),
                 ("… peak memory, GB", file.peak_memory_gb, "≤", 1.5)]
    if len(long) > 1:
        each = [t.of("ours", n=n).seconds_median / n for n in long[:2]]
        peaks = [t.of("ensemble", n=n, task="file").peak_memory_gb for n in long[:2]]
        more = (long[1] - long[0]) * 512 * 512 * 4 / 1e9  # of the CT itself, as float32
        rows.append((f"{long[1]} slices from file to file, peak above that of {long[0]}, of what "
                     "the CT itself takes more", (peaks[1] - peaks[0]) / more, "≤", 1))
        rows.append((f"{long[1]} of {long[0]} slices, time a slice", each[1] / each[0], "≤", 1.05))
    return markdown(["what", "here", "target", ""], [
        [what, number(value), f"{sign} {target}",
         "met" if (value >= target if sign == "≥" else value <= target) else "not met"]
        for what, value, sign, target in rows])


def cost(t):
    row = t.frame[(t.frame.task == "file") & (t.frame.n_slices == 120)].iloc[0]
    rows = []
    for n in (1_000, 1_000_000):
        hours = n * row.seconds_median / 3600
        rows.append([f"{n:,}", f"{hours:,.1f}", f"{hours / 24:,.1f}", f"{0.1 * hours:,.2f}"])
    return (f"Of 120 slices from file to file on this machine ({row.threads} threads), at "
            f"{number(row.seconds_median)} s each:\n\n" + markdown(
                ["scans", "hours of such a machine", "days", "at 0.10 a machine-hour"], rows))


def quick_table(run):
    """Where the minutes of the recorded quick run went, from its own facts."""
    facts = {path.stem: json.loads(path.read_text(encoding="utf-8"))
             for path in (run / "facts").glob("*.json")}
    notebooks = facts["notebooks"]["notebook_seconds"]

    def trained(prefix):
        return sum(value for name, values in facts.items() if name.startswith(f"train_{prefix}")
                   for key, value in values.items() if key.startswith("seconds_train"))

    measured = {role: facts[f"measure_{role}"][f"seconds_measure_{role}"]
                for role in ("cv", "external")}
    parts = {
        "our network, five trainings": trained("fold_"),
        "U-Net 2D, five trainings": trained("unet2d"),
        "U-Net 3D, five trainings": trained("unet3d"),
        "measuring 30 cases, three readers": measured["cv"],
        "measuring 12 cases, seven readers": measured["external"],
        "notebook 09: times and memories of Tables 3 and 4": notebooks["09_tables"],
    }
    total = sum(notebooks.values())
    parts["the other notebooks, starts of kernels"] = total - sum(parts.values())
    rows = [[what, f"{value:.0f}", f"{100 * value / total:.0f} %"] for what, value in parts.items()]
    return markdown(["what", "s", "share"], [*rows, ["all notebooks", f"{total:.0f}", ""]])


def page(frame):
    t, first = Timings(frame), frame.iloc[0]
    parts = {
        "machine": f"{first.hardware}, {first.threads} threads, torch {first.torch}",
        "least": t.least, "peak": number(first.matmul_gflops),
        "convolution": number(first.convolution_gflops), "copy": number(first.copy_gb_per_s),
        "network": network_table(t), "long": long_table(t), "file": file_table(t),
        "share": number(t.of("ours").gflop_per_slice / t.of("unet2d", "plain").gflop_per_slice),
        "training": training_table(t), "targets": targets(t), "cost": cost(t),
        "quick": quick_table(DOCS.parent / "results" / "example"),
    }
    text = (DOCS / "performance.template.md").read_text(encoding="utf-8")
    for key, value in parts.items():
        text = text.replace("{{" + key + "}}", str(value))
    return text


if __name__ == "__main__":
    (DOCS / "performance.md").write_text(page(pd.read_csv(DOCS / "timings.csv")), encoding="utf-8")
