"""The file `nep.txt`: what a NEP potential is, read without any package."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.frame import Array

FILENAME = 'nep.txt'
KINDS = ('nep4', 'nep4_zbl')
"""Kinds of file that hold a potential of energies, forces and stresses without charges or dispersion."""

LINES = ('cutoff', 'n_max', 'basis_size', 'l_max', 'ANN')
"""The lines between the elements (and ZBL) and the parameters, in their order."""


@dataclass(frozen=True)
class Header:
    """What the first lines of `nep.txt` say.

    :param elements: chemical symbols in the order of the file, which is that of its parameters.
    :param cutoffs: radial and angular cutoff in Å, the largest where each element has its own.
    :param own_cutoffs: those of each element, in the order of `elements`; empty where all have the same.
    :param l_max: highest degree of the three-body terms, and a flag for each kind of terms of more bodies.
    :param zbl: inner and outer cutoff in Å of the repulsion at short distance; (0, 0) where a table defines it.
    """

    elements: tuple[str, ...]
    cutoffs: tuple[float, float]
    n_max: tuple[int, int]
    basis_size: tuple[int, int]
    l_max: tuple[int, ...]
    neurons: int
    zbl: tuple[float, float] | None = None
    own_cutoffs: tuple[tuple[float, float], ...] = ()

    def slimmed(self, kept: tuple[str, ...]) -> Header:
        """Return the header of a potential that has these elements alone, in the order of this one."""
        pairs = tuple(pair for symbol, pair in zip(self.elements, self.own_cutoffs, strict=False) if symbol in kept)
        cutoffs = _largest(pairs) if pairs else self.cutoffs
        elements = tuple(symbol for symbol in self.elements if symbol in kept)
        return replace(self, elements=elements, cutoffs=cutoffs, own_cutoffs=_different(pairs))

    @property
    def dimension(self) -> int:
        """Number of descriptor components of an atom."""
        kinds = self.l_max[0] + sum(1 for flag in self.l_max[1:] if flag)
        return self.n_max[0] + 1 + (self.n_max[1] + 1) * kinds

    @property
    def n_parameters(self) -> int:
        """Number of fitted parameters: weights, one bias, and coefficients of the radial functions."""
        weights = len(self.elements) * (self.dimension + 2) * self.neurons + 1
        pairs = zip(self.n_max, self.basis_size, strict=True)
        return weights + len(self.elements) ** 2 * sum((n + 1) * (size + 1) for n, size in pairs)

    @property
    def n_values(self) -> int:
        """Number of values after the header: the parameters, the scales of the descriptors, a table of repulsion."""
        table = 10 * len(self.elements) * (len(self.elements) + 1) // 2 if self.zbl == (0, 0) else 0
        return self.n_parameters + self.dimension + table

    def settings(self) -> dict[str, object]:
        """Return the settings that the file shows, by the names of `NepSettings`.

        Cutoffs are numbers by element where each has its own, which no setting asks for: only a parent has such.
        """
        flags = (*self.l_max[1:], 0, 0)
        radial, angular = (
            {symbol: pair[kind] for symbol, pair in zip(self.elements, self.own_cutoffs, strict=True)}
            if self.own_cutoffs
            else self.cutoffs[kind]
            for kind in (0, 1)
        )
        return {
            'radial_cutoff': radial,
            'angular_cutoff': angular,
            'n_max': list(self.n_max),
            'basis_size': list(self.basis_size),
            # the flag of the four-body terms is written as 1 or 2 by different versions
            'l_max': [self.l_max[0], 2 if flags[0] else 0, 1 if flags[1] else 0],
            'neurons': self.neurons,
            'zbl': self.zbl[1] if self.zbl else None,
        }


@dataclass(frozen=True)
class NepFile:
    """A whole `nep.txt`: its header and the values after it."""

    header: Header
    values: Array = field(repr=False)

    def energies_of_atoms(self) -> dict[str, float]:
        """Return the energy in eV that the network gives an atom without neighbours, by symbol."""
        head, found = self.header, {}
        size = (head.dimension + 2) * head.neurons
        bias = self.values[len(head.elements) * size]
        for index, symbol in enumerate(head.elements):
            block = self.values[index * size : (index + 1) * size][head.dimension * head.neurons :]
            thresholds, outer = block[: head.neurons], block[head.neurons :]
            found[symbol] = float(outer @ np.tanh(-thresholds) - bias)
        return found


def read_nep(path: Path) -> NepFile:
    """Read a `nep.txt`; one that is damaged or of another kind is refused by a sentence."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise _refusal(path, f'it cannot be read: {error}') from error
    header, length = _header(path, lines)
    rest = [line for line in lines[length:] if line]
    try:
        values = np.array([float(value) for (value,) in rest])
    except ValueError as error:
        raise _refusal(path, 'a line after its header is not one number') from error
    if len(values) != header.n_values:
        how = 'cut off' if len(values) < header.n_values else 'too long, or damaged'
        raise _refusal(path, f'it holds {len(values)} of {header.n_values} values, so it is {how}')
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise JobError(Status.DIVERGED, f'{bad} of {len(values)} values in {path.name} are not finite numbers.')
    return NepFile(header, values)


def _header(path: Path, lines: list[list[str]]) -> tuple[Header, int]:
    """Return the header and the number of its lines."""
    kind = lines[0][0] if lines and lines[0] else ''
    if not kind.startswith('nep'):
        raise _refusal(path, 'its first line does not begin with `nep`')
    if kind not in KINDS:
        raise _refusal(path, f'it is of kind `{kind}`, but only {" and ".join(KINDS)} are supported')
    try:
        has_zbl = kind == 'nep4_zbl'
        named = {line[0]: [float(value) for value in line[1:]] for line in lines[1 : 6 + has_zbl]}
        wanted = (*(['zbl'] if has_zbl else []), *LINES)
        if tuple(named) != wanted:
            raise _refusal(path, f'its header has the lines {", ".join(named)} instead of {", ".join(wanted)}')
        elements = tuple(lines[0][2:])
        if len(elements) != int(lines[0][1]) or not elements:
            raise _refusal(path, f'it announces {lines[0][1]} elements and names {len(elements)}')
        return _assembled(path, elements, named), len(wanted) + 1
    except (ValueError, IndexError, OverflowError) as error:
        raise _refusal(path, f'its header is damaged ({error})') from error


def _assembled(path: Path, elements: tuple[str, ...], named: dict[str, list[float]]) -> Header:
    """Return the header of its lines."""
    cutoffs = named['cutoff'][:-2]  # the last two are numbers of neighbours
    if len(cutoffs) not in (2, 2 * len(elements)) or (len(named['ANN']) > 1 and named['ANN'][1]):
        raise _refusal(path, 'its cutoffs or its network (two hidden layers) are not supported')
    if not all(0 < cutoff < math.inf for cutoff in cutoffs):
        raise _refusal(path, f'its cutoffs are {", ".join(map(str, cutoffs))} Å')
    n_max, basis_size, l_max, network = (_whole(named[name]) for name in ('n_max', 'basis_size', 'l_max', 'ANN'))
    pairs = tuple(zip(cutoffs[0::2], cutoffs[1::2], strict=True))
    return Header(
        elements=elements,
        cutoffs=_largest(pairs),
        n_max=(n_max[0], n_max[1]),
        basis_size=(basis_size[0], basis_size[1]),
        l_max=l_max,
        neurons=network[0],
        zbl=(named['zbl'][0], named['zbl'][1]) if 'zbl' in named else None,
        own_cutoffs=_different(pairs),
    )


def _whole(values: list[float]) -> tuple[int, ...]:
    """Return sizes, which are whole and not negative; raise a ValueError where they are not."""
    if not all(value >= 0 and value.is_integer() for value in values):
        raise ValueError(f'{" ".join(map(str, values))} are no sizes')
    return tuple(int(value) for value in values)


def _largest(pairs: tuple[tuple[float, float], ...]) -> tuple[float, float]:
    """Return the largest radial and the largest angular cutoff."""
    return max(radial for radial, _ in pairs), max(angular for _, angular in pairs)


def _different(pairs: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Return the cutoffs of each element; none where they are all the same."""
    return pairs if len(set(pairs)) > 1 else ()


def _refusal(path: Path, why: str) -> JobError:
    return JobError(
        Status.BAD_INPUT, f'{path.name} is no NEP potential that can be used: {why}. Take a whole file of a NEP4.'
    )
