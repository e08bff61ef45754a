"""The latents of one position against N(0, 1)."""

import numpy as np
import pytest

from labkit.figures.style import ANOMALOUS, NORMAL
from labkit_apps.web.views.place import position_latents


def test_one_panel_per_flow_on_shared_axes_coloured_by_its_energy():
    rng = np.random.default_rng(0)
    figure = position_latents({"near": rng.normal(size=200), "far": 3 * rng.normal(size=200)})
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["near", "far"]
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim()
    edges = [ax.patches[0].get_edgecolor()[:3] for ax in figure.axes]
    expected = [tuple(int(c[k : k + 2], 16) / 255 for k in (1, 3, 5)) for c in (NORMAL, ANOMALOUS)]
    np.testing.assert_allclose(edges, expected)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="no latent"):
        position_latents({})
    with pytest.raises(ValueError, match="not finite"):
        position_latents({"z": np.array([np.nan, 1.0])})
