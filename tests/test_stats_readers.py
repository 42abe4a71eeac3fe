"""Several readers, several readings a subject: edges that used to be silent."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import optimize

from deeplung_nb.stats import paired, reliability

RNG = np.random.default_rng(8)


def grouped(between, within, seed, m=12):
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(m), rng.integers(2, 6, m))
    a = rng.uniform(10, 50, len(subject))
    d = rng.normal(0, between, m)[subject] + rng.normal(0.5, within, len(subject))
    return pd.DataFrame({"s": subject, "a": a, "b": a + d})


def restricted_likelihood(logs, d, sizes, codes):
    """-2 log REML of the one-way random model, written out from its definition."""
    between, within = np.exp(logs)
    same = codes[:, None] == codes[None]
    v = between * same + within * np.eye(len(d))
    inverse = np.linalg.inv(v)
    one = np.ones(len(d))
    precision = one @ inverse @ one
    mean = one @ inverse @ d / precision
    return (np.linalg.slogdet(v)[1] + np.log(precision)
            + (d - mean) @ inverse @ (d - mean))


def test_reml_maximises_the_restricted_likelihood():
    frame = grouped(2.0, 1.0, 3)
    d, codes = (frame.b - frame.a).to_numpy(), frame.s.to_numpy()
    best = optimize.minimize(restricted_likelihood, [0.0, 0.0], (d, None, codes),
                             method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    found = reliability.clustered_limits(frame, "s", "a", "b", method="reml")
    np.testing.assert_allclose([found.variance_between, found.variance_within], np.exp(best.x),
                               rtol=1e-3)
    assert found.reason == ""


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_singular_mixed_model_says_so_and_warns_nobody(unit):
    frame = grouped(0.0, 1.0, 1)
    assert reliability.clustered_limits(frame, "s", "a", "b").reason  # the data are such
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = reliability.clustered_limits(
            frame.assign(a=frame.a * unit, b=frame.b * unit), "s", "a", "b", method="reml")
    assert "boundary, 0 (singular fit)" in found.reason
    assert found.variance_between == 0.0
    d = frame.b - frame.a
    assert found.bias == pytest.approx(d.mean() * unit)
    assert found.sd == pytest.approx(d.std() * unit)
    assert np.isfinite(found.bias_ci).all()


@pytest.mark.parametrize("method", ["anova", "reml"])
def test_a_constant_difference_has_its_limits_and_a_reason(method):
    frame = grouped(1.0, 1.0, 2).assign(b=lambda f: f.a + 0.3)
    found = reliability.clustered_limits(frame, "s", "a", "b", method=method)
    assert found.bias == pytest.approx(0.3)
    assert (found.sd, found.loa_lower, found.loa_upper) == (0.0, found.bias, found.bias)
    assert found.reason == "all differences are equal: no variance to split"


def test_what_is_missing_can_be_dropped_and_is_counted():
    frame = grouped(1.0, 1.0, 4)
    holed = frame.copy()
    holed.loc[[0, 5], "b"] = np.nan
    with pytest.raises(ValueError, match="missing='drop'"):
        reliability.clustered_limits(holed, "s", "a", "b")
    found = reliability.clustered_limits(holed, "s", "a", "b", missing="drop")
    rest = reliability.clustered_limits(frame.drop([0, 5]), "s", "a", "b")
    assert found.n_missing == 2
    assert found.bias_ci == rest.bias_ci

    long = pd.DataFrame({"s": np.repeat(range(8), 2), "r": ["x", "y"] * 8,
                         "v": RNG.normal(0, 1, 16)})
    gap = long.copy()
    gap.loc[3, "v"] = np.nan
    with pytest.raises(ValueError, match="missing='drop'"):
        reliability.icc(gap, "s", "r", "v")
    with pytest.raises(ValueError, match=r"subject '1' lacks .*missing='drop'"):
        reliability.icc(long.drop(index=3), "s", "r", "v")
    for short in (gap, long.drop(index=3)):
        dropped = reliability.icc(short, "s", "r", "v", missing="drop")
        assert dropped.n_missing == 1
        assert dropped.icc_a1 == reliability.icc(long[long.s != 1], "s", "r", "v").icc_a1

    adjusted = paired.holm([0.01, None, 0.04], missing="drop")
    np.testing.assert_allclose(adjusted, [0.02, np.nan, 0.04])
    with pytest.raises(ValueError, match="missing='drop'"):
        paired.holm([0.01, None, 0.04])


def test_a_subject_without_a_name_is_refused():
    frame = grouped(1.0, 1.0, 5).astype({"s": object})
    frame.loc[3, "s"] = None
    with pytest.raises(ValueError, match=r"column 's': empty in row 4 .* leave the row out"):
        reliability.clustered_limits(frame, "s", "a", "b")
    with pytest.raises(ValueError, match="no column 'who'"):
        reliability.icc(frame, "who", "a", "b")


def test_a_negative_agreement_has_the_interval_of_psych():
    """R psych::ICC: Spearman-Brown of the single form's bounds, F with Satterthwaite's df."""
    x = np.array([[1.0, 9, 4], [7, 2, 8], [3, 8, 1], [9, 1, 5], [2, 7, 6]])
    n, k = x.shape
    frame = pd.DataFrame({"s": np.repeat(range(n), k), "r": list(range(k)) * n, "v": x.ravel()})
    found = reliability.icc(frame, "s", "r", "v")
    assert found.icc_a1 < 0
    low, high = found.icc_a1_ci
    assert low < found.icc_a1 < high
    # Of the mean of three: minus infinity where one reader's bound is below -1/2.
    assert low < -1 / (k - 1)
    assert found.icc_ak_ci == (-np.inf, pytest.approx(high * k / (1 + high * (k - 1))))
    # psych's own lines, by another route than ours
    from scipy import stats

    means = x.mean(axis=1), x.mean(axis=0)
    msb = k * means[0].var(ddof=1)
    msj = n * means[1].var(ddof=1)
    mse = ((x - means[0][:, None] - means[1] + x.mean())**2).sum() / ((n - 1) * (k - 1))
    icc2, fj = found.icc_a1, msj / mse
    vn = (k - 1) * (n - 1) * (k * icc2 * fj + n * (1 + (k - 1) * icc2) - k * icc2)**2
    vd = (n - 1) * k**2 * icc2**2 * fj**2 + (n * (1 + (k - 1) * icc2) - k * icc2)**2
    f3u, f3l = stats.f.ppf(.975, n - 1, vn / vd), stats.f.ppf(.975, vn / vd, n - 1)
    rest = k * msj + (k * n - k - n) * mse
    np.testing.assert_allclose(found.icc_a1_ci, [
        n * (msb - f3u * mse) / (f3u * rest + n * msb),
        n * (f3l * msb - mse) / (rest + n * f3l * msb)], rtol=1e-10)
