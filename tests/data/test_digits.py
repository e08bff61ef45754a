"""The digits of scikit-learn: real pixels, a split between writers, honest counts."""

import numpy as np
from sklearn.datasets import load_digits

from labkit.data import catalogue
from labkit.data.builtin import digits


def test_the_split_falls_between_two_forms():
    labels = load_digits().target
    form = labels[:40]
    starts = [k for k in range(len(labels) - 40) if (labels[k : k + 40] == form).mean() > 0.8]
    assert digits.TRAIN in starts
    assert all(gap > 100 for gap in np.diff(starts))
    assert len(catalogue.load("digits/3").test) == len(labels) - digits.TRAIN


def test_a_picture_is_the_source_enlarged():
    source = load_digits().images
    picture = digits.image(5)
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert (picture[..., 0] == picture[..., 2]).all()
    small = picture[..., 0].reshape(8, 8, 8, 8).mean((1, 3))
    assert np.corrcoef(small.ravel(), source[5].ravel())[0, 1] > 0.97
    sample = catalogue.load("digits/5").train[0]
    np.testing.assert_array_equal(sample.read(), digits.image(int(sample.key.split("/")[-1])))
