"""The sources of the methods that a text names: what it cites, and nothing else."""

from __future__ import annotations

SOURCES: tuple[tuple[str, str], ...] = (
    ("limits of agreement", "Bland & Altman 1986, Lancet 1:307; 1999, Stat Methods Med Res 8:135"),
    ("MOVER", "Zou 2013, Stat Methods Med Res 22:630"),
    ("jackknife", "Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 11 and 21"),
    ("studentized bootstrap", "Davison & Hinkley 1997, Bootstrap Methods and their Application, "
     "sections 2.7.2 and 5.2; Hall 1988, J R Stat Soc B 50:35"),
    ("Davidson & Flachaire", "Davidson & Flachaire 2008, J Econometrics 146:162"),
    ("Breusch–Pagan", "Breusch & Pagan 1979, Econometrica 47:1287"),
    ("Shapiro–Wilk", "Shapiro & Wilk 1965, Biometrika 52:591"),
    ("signed-rank", "Wilcoxon 1945, Biometrics Bull 1:80"),
    ("Hodges–Lehmann", "Hodges & Lehmann 1963, Ann Math Stat 34:598"),
    ("Spearman", "Spearman 1904, Am J Psychol 15:72"),
    ("concordance correlation", "Lin 1989, Biometrics 45:255, corrected 2000, Biometrics 56:324"),
    ("Lin’s", "Lin 1989, Biometrics 45:255, corrected 2000, Biometrics 56:324"),
    ("concordance of ranks", "Tu, Li, Zeng & Shepherd 2023, Stat Med 42:4333"),
    ("TOST", "Schuirmann 1987, J Pharmacokinet Biopharm 15:657"),
    ("order statistics", "Conover 1999, Practical Nonparametric Statistics, section 3.2"),
    ("Dice", "Dice 1945, Ecology 26:297"),
    ("surface Dice", "Nikolov et al. 2021, J Med Internet Res 23:e26151"),
    ("DenseNet", "Huang, Liu, van der Maaten & Weinberger 2017, CVPR, 4700"),
    ("MobileNet", "Sandler, Howard, Zhu, Zhmoginov & Chen 2018, CVPR, 4510"),
    ("convolutional LSTM", "Shi et al. 2015, NeurIPS 28:802"),
    ("region mutual information", "Zhao, Wang, Yang & Cai 2019, NeurIPS 32"),
    ("AdamW", "Loshchilov & Hutter 2019, ICLR"),
    ("U-Net", "Ronneberger, Fischer & Brox 2015, MICCAI, LNCS 9351:234; Çiçek et al. 2016, MICCAI, "
     "LNCS 9901:424"),
)
"""What a text says -> who described it."""


def cite(text: str) -> list[str]:
    """The sources of what a text names, each once, in the order of `SOURCES`.

    >>> cite("Spearman's rho, and limits of agreement")[1]
    'Spearman 1904, Am J Psychol 15:72'
    """
    return list(dict.fromkeys(source for words, source in SOURCES if words in text))
