"""Exact formulas for sizes: find how a number depends on batch and lengths, from a few runs.

Letters: b micro-batch size, s (source) length, t target length. A formula is a sum of a few
terms, each an integer times b^i times a power or a rounding of s and of t. Formulas are found by
trying the fewest terms first and are kept only if they give every observed number exactly; more
runs are observed than any formula has terms, so a wrong formula does not survive.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

Point = tuple[int, int, int]
Integers = NDArray[np.int64]

ROUNDINGS = (8, 16, 32, 64, 128)
_POWERS = ((0, 0), (1, 0), (2, 0))
_ROUNDED = tuple((1, k) for k in ROUNDINGS)
_MASKS = ((2, 8), (2, 16))


@dataclass(frozen=True, slots=True, order=True)
class Term:
    """One monomial: b^batch · f(s) · f(t); a pair (power, rounding) is read as follows.

    (p, 0) is x^p; (1, k) is x rounded up to a multiple of k; (2, k) is x times that.
    """

    batch: int
    source: tuple[int, int]
    target: tuple[int, int]

    def values(self, points: NDArray[np.int64]) -> Integers:
        """The monomial at each row (b, s, t) of ``points``."""
        b, s, t = points[:, 0], points[:, 1], points[:, 2]
        return np.asarray(b**self.batch * _factor(self.source, s) * _factor(self.target, t))


def _factor(shape: tuple[int, int], x: Integers) -> Integers:
    power, rounding = shape
    if not rounding:
        return np.asarray(x**power)
    rounded = -(-x // rounding) * rounding
    return np.asarray(rounded if power == 1 else x * rounded)


def _candidate_terms(uses_target: bool) -> tuple[Term, ...]:
    one = (0, 0)
    lengths = [(f, one) for f in (*_POWERS, *_ROUNDED, *_MASKS)]
    if uses_target:
        lengths += [(one, f) for f in (*_POWERS[1:], *_ROUNDED, *_MASKS)]
        lengths += [((1, 0), (1, 0)), *(((1, k), (1, 0)) for k in (8, 16))]
        lengths += [((1, 0), (1, k)) for k in (8, 16)]
    return tuple(Term(i, s, t) for i, (s, t) in product((0, 1), lengths))


def _term_sets(terms: Sequence[Term], limit: int) -> Iterator[tuple[Term, ...]]:
    """Sets of terms to try, the simplest first; never more than ``limit`` terms."""
    constant = Term(0, (0, 0), (0, 0))
    yield (constant,)
    yield from ((term,) for term in terms if term != constant)
    if limit >= 2:
        for term in terms:
            if term != constant:
                yield (constant, term)
        yield from (pair for pair in combinations(terms, 2) if constant not in pair)
    plain = [t for t in terms if not t.source[1] and not t.target[1]]
    for size in (3, 4):
        if limit >= size:
            yield from combinations(plain, size)


def fit(
    values: Integers, points: Sequence[Point], uses_target: bool
) -> list[tuple[tuple[Term, int], ...] | None]:
    """Exact formulas for every row of ``values`` (quantity × point), or None where there is none.

    A formula has at most as many terms as leave one point over to check it.
    """
    grid = np.asarray(points, dtype=np.int64)
    observed = values.astype(np.float64)
    found: list[tuple[tuple[Term, int], ...] | None] = [None] * len(values)
    open_rows = np.arange(len(values))
    terms = _candidate_terms(uses_target)
    columns = {term: term.values(grid).astype(np.float64) for term in terms}
    for chosen in _term_sets(terms, limit=max(1, min(4, len(points) - 1))):
        if not len(open_rows):
            break
        matrix = np.stack([columns[t] for t in chosen], axis=1)
        scale = np.abs(matrix).max(axis=0)
        pseudo = np.linalg.pinv(matrix / scale)
        if np.linalg.matrix_rank(matrix / scale) < len(chosen):
            continue
        rough = (observed[open_rows] @ pseudo.T) / scale
        coefficients = np.rint(rough)
        exact = np.all(coefficients @ matrix.T == observed[open_rows], axis=1)
        exact &= np.all(coefficients != 0, axis=1) | (len(chosen) == 1)
        for row, integers in zip(open_rows[exact], coefficients[exact], strict=True):
            found[row] = tuple(
                (term, int(c)) for term, c in zip(chosen, integers, strict=True) if c
            )
        open_rows = open_rows[~exact]
    return found
