# %% [markdown]
# # E1 · Exercises
#
# Six small tasks on one table of readings. They need neither a CT nor torch, and run on the example that comes
# with the repository, or on a run of your own: start Jupyter with its folder as `DEEPLUNG_RUN`. Each task is a function
# with a gap: put your lines in the place of the one that raises, run the cell, then run the check below it. It says
# whether the answer is right, or what kind of mistake it is, with a hint to unfold; it asks with other numbers than
# those of the text too. Before you run a check, guess what it will say.
#
# You need half an hour, and will have seen once, by hand, every number that the study rests on.
#
# This notebook and its twin with the solutions, `E1_solutions.ipynb`, are made from one file, `exercises.py`, so
# that the questions and the answers can't drift apart.
# %%
import os

import numpy as np

from deeplung_nb import course, measurements
from deeplung_nb.runs import read_run
from deeplung_nb.stats import agreement, overlap, paired

run = read_run(os.environ.get("DEEPLUNG_RUN") or "results/example")
readings = measurements.read(run.measurements_csv)
pairs = measurements.pair(readings, "expert", "model", "ggo", role="external")
# %% [markdown]
# `readings` has one row for each case, reader and structure; `pairs` has the ground-glass volumes of the external
# cases, the expert's as `reference` and the network's as `test`, in mL.
#
# ## 1 · From voxels to millilitres
#
# A mask has 52,000 voxels; the slices are 5 mm apart and the pixels 0.8 mm wide and high. How many millilitres are
# that? One millilitre is 1,000 cubic millimetres. It is the one formula on which every volume in this project rests,
# and the easiest one to get wrong: a spacing taken from the wrong axis goes unnoticed until somebody compares.
# %%
def volume_ml(n_voxels, spacing_mm):
    return n_voxels * np.prod(spacing_mm) / 1000  # solution
# %%
course.check_volume(volume_ml)
# %% [markdown]
# A reader who marks one pixel more around a lesion changes this number by some per cent: that is the size of
# difference which two experts have between them, and no machine need be better than that.
#
# ## 2 · Dice by hand
#
# Of a lesion's voxels, `tp` were found, `fn` were missed, and `fp` were marked beside it. Dice is twice the common
# part over the sum of both masks. What should it be when both masks are empty? There is no right answer: 0/0 is not
# a number. Return `nan`, so that whoever averages must decide, and say so, what an empty case counts.
# %%
def dice(tp, fp, fn):
    size = 2 * tp + fp + fn  # solution
    return 2 * tp / size if size else float("nan")  # solution
# %%
course.check_dice(dice)
# %% [markdown]
# With it every Dice of the study can be made again from the counts that stand beside it in the table. Guess first: how
# many cases of ground glass have one below 0.5?
# %%
found = readings.query("reader == 'model' and structure == 'ggo'").dropna(subset="dice")
own = [dice(*counts) for counts in found[["tp", "fp", "fn"]].itertuples(index=False)]
np.allclose(own, found.dice), sum(value < 0.5 for value in own), len(own)
# %% [markdown]
# A Dice of 0.8 on a lesion of 2 mL and one of 0.8 on
# a lesion of 400 mL are the same number and two different things at the bedside.
#
# ## 3 · Bias and limits of agreement
#
# The difference is always *automatic − expert*. Bias is its mean, and the limits of agreement are bias ± 1.96 standard
# deviations (with n − 1 in the denominator, numpy's `ddof=1`): between them lie the differences that one should expect
# for about 95 of 100 new patients, if differences are roughly normal and do not grow with the size of the lesion.
# %%
def limits(expert, automatic):
    difference = automatic - expert  # solution
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)  # solution
    return bias, bias - spread, bias + spread  # solution
# %%
course.check_limits(limits)
# %% [markdown]
# Now on the study's readings. Guess first, from the bias alone: how wide will the limits be?
# %%
library = agreement.bland_altman(pairs.reference, pairs.test)
limits(pairs.reference.to_numpy(), pairs.test.to_numpy()), library
# %% [markdown]
# The library's factor is 1.959964, not 1.96, hence the tolerance. It adds what your three numbers lack: intervals
# that say how badly limits are known from few cases, and two tests of the assumptions in the sentence above.
#
# ## 4 · A machine that correlates perfectly and is of no use
#
# Make readings of a machine that has a rank correlation of exactly 1 with the expert and yet a concordance below one
# half. You may use nothing but the expert's readings. (How would a machine come to such readings? By a wrong voxel
# size, for instance.) Afterwards, look for the word "excellent" beside a correlation in a paper that you know.
# %%
def useless_machine(expert):
    return 4 * expert  # solution
# %%
course.check_useless_machine(useless_machine)
# %% [markdown]
# Correlation asks whether the large are large for both. It never asks how large. This is why no table here shows a
# correlation without bias and limits beside it.
#
# ## 5 · Two averages of the same Dice
#
# Three cases: a large lesion that was found well, a small one that was missed, and a healthy lung in which the machine
# marked nothing. Choose counts so that the *pooled* Dice is above 0.9 while the *mean of the cases* is below 0.5. Both
# numbers are correct; a paper that prints only one of them has chosen for you. A case is written like this:
# %%
overlap.Confusion(tp=90, fp=5, fn=15)
# %%
def three_cases():
    # one overlap.Confusion(tp, fp, fn) for each of the three cases
    large, missed = overlap.Confusion(9500, 300, 300), overlap.Confusion(0, 0, 40)  # solution
    return large, missed, overlap.Confusion(0, 0, 0)  # solution
# %%
course.check_three_cases(three_cases)
# %% [markdown]
# The pooled Dice belongs to the voxels, the mean to the patients; small lesions vanish in the first and rule the
# second. Neither sees the healthy lung: ask for the counts of empty masks.
#
# ## 6 · The right test, and what it does not say
#
# The paper names a "paired Wilcoxon rank-sum test". There is none. Write the test for paired volumes: the function from
# `deeplung_nb.stats.paired` whose null hypothesis is that differences lie symmetrically about zero. Return its p value.
# The cell after the check does the wrong one as well, for two independent groups, on readings that are all 5 % too low.
# Guess first what it will see of that.
# %%
def p_of_pairs(expert, automatic):
    return paired.wilcoxon_signed_rank(expert, automatic).p_value  # solution
# %%
course.check_p_of_pairs(p_of_pairs)
# %%
rng = np.random.default_rng(0)
expert = rng.lognormal(5, 1, 60)
low = 0.95 * expert * rng.normal(1, 0.03, 60)
p_of_pairs(expert, low), paired.mann_whitney(expert, low).p_value
# %% [markdown]
# The wrong test sees nothing, since the patients differ from each other far more than the readers do. A small p says that there is a shift; it does not say that the shift matters: here it is 5 %. A large p does not
# say that two readers agree. Only limits of agreement, set against a margin that was chosen beforehand, do that.
# %% [markdown] solution
# ## The questions of the other notebooks
#
# (answers)
# %% [markdown] solution
# ## To think about
#
# These have no single answer. Here are ours.
#
# **00** 20 mL is about what two careful experts differ by on 300 mL: 5 is finer than a rim of one pixel, and 60 would
# change the class of severity. What matters is that it was written down before the limits were seen.
#
# **01** Scanner, reconstruction kernel, slice thickness, contrast and breathing change how a lesion looks. Age, sex, BMI
# and smoking change how much there is, or how noisy the picture is.
#
# **02** Turned by 10°, a lung that was stretched in one direction becomes sheared, which no lung is. In a square box both
# directions have one scale, and turning stays turning.
#
# **03** The round consolidation: its neighbourhoods are mostly inside it and alike. A thin line has a rim everywhere, and a
# pixel beside it that is wrong spoils all nine neighbourhoods that hold it.
#
# **04** A training that goes on knows the epoch's number but not how often the generator was called before. If draws hung on
# that, those of epoch 5 would be others after a restart, and so would the weights.
#
# **05** Sort the rows of `model` by `dice` and look at `volume_ml` of the same case by `expert`. As a rule it is high
# opacity of a few mL: two voxels' width of rim is then most of the lesion.
#
# **06** Look for the scanner and the slice gap first, then for the share of cases without high opacity. To be sure one would
# need cases that differ in one of these only: the same scanner with other gaps, or one patient on two scanners.
#
# **07** Bias and limits together decide. Limits of ± 60 mL are too wide to follow one patient from day to day, and narrow
# enough to sort patients into quarters of severity, or to compare groups, where the errors of many average out.
#
# **08** One would think that the network outlines every lesion. A rule that is printed, and the worst case beside the
# median one, is what protects a reader from that.
#
# **09** A mean Dice would need other `dice` in the rows of the reader `model`; a quartile of volumes only the rows next to it
# in rank; a p value the order and the signs of all differences.
#
# **10** In relative terms the large one: its rim is a small part of it. In mL the small one may be closer, and the plot of
# differences, which opens to the right, says just that.
#
# **11** By the 32 mL it is none, by the factor of 1.26, or 1.34 to be safe, it is one (55 / 40 = 1.38), and the error grows
# with the volume, so the factor is right. It holds if one reader read both, on scans made alike. If the expert read the first
# and the network the second, the limits between the two decide: in the example 1.38 is outside, in other runs it may not be.
#
# **12** Two experts are rare because a second reading costs as much as the first. Where only one has read, nobody can say
# whether a machine that differs from that one is worse than the next expert would be: then say so, and read some cases twice.
#
# **13** Agreement with that reader: bias, limits, correlation and Dice all come out too good, since what was left as it was
# agrees by construction. What may be said is how much had to be changed, and how long it took.
#
# **E2** Quartiles, counts, Table 1 and rank correlations stay: they are built in. Means, bias, limits, p values and
# everything by protocol move: the printed quartiles leave them open.
