"""Counter-based random numbers: each draw depends on a key and a counter, never on what was drawn before.

So the same cell gets the same noise whatever is edited elsewhere, on any number of threads or processes. The mixing function is
the finaliser of SplitMix64 (Steele, Lea & Flood, 2014).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_U30, _U27, _U31, _U11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 1.0 / 9007199254740992.0


@njit(cache=True, inline="always")
def mix(key: np.uint64, counter: int | np.int64) -> np.uint64:
    """A new 64-bit key from a key and a counter."""
    z = np.uint64(key) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> _U30)) * _M1
    z = (z ^ (z >> _U27)) * _M2
    return z ^ (z >> _U31)


@njit(cache=True, inline="always")
def uniform(key: np.uint64, counter: int | np.int64) -> float:
    """A number of [0, 1)."""
    return float(mix(key, counter) >> _U11) * _UNIT


@njit(cache=True)
def normal(key: np.uint64, counter: int) -> float:
    """A standard normal number (Box-Muller)."""
    u = uniform(key, 2 * counter)
    v = uniform(key, 2 * counter + 1)
    return math.sqrt(-2.0 * math.log(1.0 - u)) * math.cos(6.283185307179586 * v)


@njit(cache=True)
def lattice(key: np.uint64, x: float, y: float) -> float:
    """Smooth noise of [0, 1] at a point of the plane; features are one unit long."""
    i, j = math.floor(x), math.floor(y)
    fx, fy = x - i, y - j
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    a = np.int64(i) + np.int64(1048576)
    b = (np.int64(j) + np.int64(1048576)) * np.int64(4194304)
    n00, n10 = uniform(key, a + b), uniform(key, a + 1 + b)
    b += np.int64(4194304)
    n01, n11 = uniform(key, a + b), uniform(key, a + 1 + b)
    return (n00 * (1.0 - fx) + n10 * fx) * (1.0 - fy) + (n01 * (1.0 - fx) + n11 * fx) * fy


@njit(cache=True)
def gamma_poisson(mean: float, dispersion: float, key: np.uint64, counter: int) -> int:
    """A negative binomial count that grows with ``mean`` while its randomness stays the same.

    The gamma factor comes from the Wilson-Hilferty cube of a normal, the Poisson count by inversion (a normal above 400).
    """
    rate = mean
    if dispersion > 0.0:
        k = 1.0 / dispersion
        base = 1.0 - 1.0 / (9.0 * k) + normal(key, 2 * counter) / (3.0 * math.sqrt(k))
        rate = mean * base * base * base if base > 0.0 else 0.0
    if rate <= 0.0:
        return 0
    if rate > 400.0:
        return max(int(rate + math.sqrt(rate) * normal(key, 2 * counter + 1) + 0.5), 0)
    u = uniform(key, 4 * counter + 3)
    p = math.exp(-rate)
    total = p
    count = 0
    while u > total and count < 2000:
        count += 1
        p *= rate / count
        total += p
    return count


def key_of(*parts: int) -> np.uint64:
    """A 64-bit key from whole numbers, in plain Python."""
    state = np.random.SeedSequence([int(p) for p in parts]).generate_state(1, np.uint64)
    return np.uint64(state[0])
