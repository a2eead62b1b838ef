"""The heat equation: the bits of a serial program, and the decay that the theory gives."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import convolve2d

from feliss_nb.algorithms import heat
from feliss_nb.errors import UsageError


def serial(u, times, down, along):
    """The same steps in time, on the whole plate."""
    u = u.copy()
    for _ in range(times):
        middle = u[1:-1, 1:-1]
        twice = 2.0 * middle
        change = (u[:-2, 1:-1] + u[2:, 1:-1] - twice) * down
        change += (u[1:-1, :-2] + u[1:-1, 2:] - twice) * along
        u[1:-1, 1:-1] = middle + change
    return u


def shares(u, size):
    return [(rows,) for rows in np.array_split(u, size)]


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        (1, None),
        (2, None),
        (2, (2, 1)),
        (3, None),
        (4, None),
        (6, (2, 3)),
        (6, (3, 2)),
        (5, (5, 1)),
    ],
)
@pytest.mark.parametrize("shape", [(7, 7), (8, 12), (23, 9)])
def test_the_bits_of_a_serial_program(ranks, size, grid, shape):
    u = np.random.default_rng(0).standard_normal(shape)
    options = {"times": 13, "dt": 0.1, "diffusivity": 1.5, "spacing": (1.0, 0.8), "every": 4}
    parts = ranks(heat.diffuse, shares(u, size), grid=grid, **options)
    k = 1.5 * 0.1
    expected = serial(u, 13, k / 1.0**2, k / 0.8**2)
    assert np.concatenate(parts).tobytes() == expected.tobytes()
    assert [len(part) for part in parts] == [len(rows) for (rows,) in shares(u, size)]


def test_scipys_convolution_agrees(ranks):
    u = np.random.default_rng(1).standard_normal((12, 14))
    k = 0.2
    stencil = np.array([[0, k, 0], [k, 1 - 4 * k, k], [0, k, 0]])
    expected = u.copy()
    for _ in range(6):
        expected[1:-1, 1:-1] = convolve2d(expected, stencil, mode="valid")
    found = np.concatenate(ranks(heat.diffuse, shares(u, 4), times=6, dt=0.2))
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_a_sine_decays_as_the_equation_says(ranks):
    """``exp(-2 pi**2 t)`` for the lowest mode of a unit square, to the order of the method."""
    n = 33
    line = np.sin(np.pi * np.linspace(0, 1, n))
    u = np.outer(line, line)
    step = 1 / (n - 1)
    dt = step**2 / 8
    times = 200
    options = {"times": times, "dt": dt, "spacing": (step, step)}
    found = np.concatenate(ranks(heat.diffuse, shares(u, 2), **options))
    assert found[16, 16] == pytest.approx(np.exp(-2 * np.pi**2 * times * dt), rel=2e-3)


def test_the_edge_stays_and_no_time_changes_nothing(ranks):
    u = np.random.default_rng(2).standard_normal((9, 9))
    found = np.concatenate(ranks(heat.diffuse, shares(u, 4), times=5, dt=0.1))
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        assert (found[edge] == u[edge]).all()
    assert (np.concatenate(ranks(heat.diffuse, shares(u, 4), times=0, dt=0.1)) == u).all()


@pytest.mark.parametrize(
    ("u", "options", "text"),
    [
        (np.ones((2, 5)), {}, "at least 3 by 3"),
        (np.ones(5), {}, "at least 3 by 3"),
        (np.ones((4, 4)), {"grid": (4, 1)}, "fewer inner rows or columns than the grid"),
        (np.ones((9, 9)), {"grid": (3, 1)}, "does not have 4 ranks"),
        (np.ones((9, 9)), {"dt": 0.3}, r"unstable: .* is 0\.6, above 1/2; take dt <= 0\.25"),
        (np.ones((9, 9)), {"times": -1}, "times="),
        (np.ones((9, 9)), {"diffusivity": -1}, "diffusivity="),
        (np.ones((9, 9)), {"spacing": (1.0, 0.0)}, "spacing="),
        (np.ones((9, 9)), {"spacing": 1.0}, "spacing= takes two numbers"),
        (np.ones((9, 9)), {"grid": 4}, "grid= takes two whole numbers"),
        (np.full((9, 9), np.inf), {}, "not finite"),
    ],
)
def test_bad_input(ranks, u, options, text):
    with pytest.raises(UsageError, match=text):
        ranks(heat.diffuse, shares(u, 4), **{"times": 1, "dt": 0.1, **options})
