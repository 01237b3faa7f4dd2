"""What CP2K printed: the settings that it really used, and energy, forces, stress and verdict of each SCF cycle.

The text is read once, line by line, and may be as long as it likes. Units are read from the headers and converted
here: eV, eV/Å, eV/Å³ with the sign of ASE, which is the opposite of what CP2K prints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import units

from aiida_perovmlip.compute.frame import Array

ENERGY_UNITS = {'a.u.': units.Hartree, 'hartree': units.Hartree, 'ev': 1.0}
FORCE_UNITS = {'a.u.': units.Hartree / units.Bohr, 'hartree/bohr': units.Hartree / units.Bohr, 'ev/angstrom': 1.0}
STRESS_UNITS = {'gpa': units.GPa, 'bar': units.GPa * 1e-4, 'kbar': units.GPa * 0.1, 'pa': units.Pascal}
LENGTH_UNITS = {'angstrom': 1.0, 'bohr': units.Bohr}


@dataclass(frozen=True)
class Channel:
    """Eigenvalues of one spin, in eV.

    :param occupied: shape (n,); all that are more than half filled.
    :param unoccupied: shape (m,).
    :param fermi: Fermi level; None where it was not printed.
    :param converged: whether the unoccupied ones were found.
    """

    spin: int
    occupied: tuple[float, ...]
    unoccupied: tuple[float, ...]
    fermi: float | None = None
    converged: bool = True

    def edges(self) -> dict[str, Any]:
        """Return the edges of the bands; None where there is no such state or where it was not found."""
        vbm = max(self.occupied, default=None)
        cbm = min(self.unoccupied, default=None) if self.converged else None
        gap = None if vbm is None or cbm is None else cbm - vbm
        return {'spin': self.spin, 'vbm': vbm, 'cbm': cbm, 'gap': gap, 'fermi': self.fermi}


@dataclass
class Snapshot:
    """One SCF cycle with what followed of it.

    :param energy: in eV.
    :param forces: in eV/Å, shape (atoms, 3).
    :param elements: chemical symbol of each force, where these are printed.
    :param stress: in eV/Å³ with ASE's sign, xx yy zz yz xz xy.
    :param converged: whether the SCF cycle says that it converged; None where it says nothing.
    :param out_of_time: whether it was cut off by the time limit.
    :param entropy: electronic entropy times temperature as it enters the energy, in eV.
    :param spin_square: ideal and found ⟨S²⟩.
    """

    energy: float | None = None
    forces: Array | None = None
    elements: tuple[str, ...] = ()
    stress: Array | None = None
    converged: bool | None = None
    out_of_time: bool = False
    cycles: int = 0
    entropy: float | None = None
    spin_square: tuple[float, float] | None = None
    channels: list[Channel] = field(default_factory=list)


@dataclass
class Header:
    """What CP2K says that it was asked for; what it does not say is absent.

    :param functional: names, as `references` are what is cited for these.
    :param cutoff: in Ry, as `rel_cutoff`.
    :param electrons: of each spin, or of both together.
    :param orbitals: number of each spin, occupied or not, out of `n_functions` that there are.
    :param scheme: how the k-points were chosen; empty where the Brillouin zone was not sampled.
    :param shift: of the mesh, in units of the reciprocal vectors.
    :param points: weight and coordinates of each k-point, as printed.
    :param eps_density: precision of the density on the grid, which is EPS_DEFAULT unless it was asked for by itself.
    :param peculiar: lines on what few runs have, such as exact exchange, DFT+U or an electric field.
    :param ghosts: kinds of atoms that have basis functions alone.
    :param restarted: whether positions, cells or others may come from a restart file.
    :param atoms: element and position in Å of each atom before the first step.
    :param cell: lengths in Å and angles in degrees, shape (6,); the vectors are printed to three digits only.
    :param vectors: cell vectors in Å to three digits, shape (3, 3).
    :param basis: of each kind of atom, as `potentials`.
    """

    version: str = ''
    run_type: str = ''
    ensemble: str = ''
    restarted: bool = False
    input_name: str = ''
    coordinate_name: str = ''
    project: str = ''
    functional: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    dispersion: list[str] = field(default_factory=list)
    charge: int | None = None
    multiplicity: int | None = None
    unrestricted: bool | None = None
    method: str = ''
    cutoff: float | None = None
    rel_cutoff: float | None = None
    n_grids: int | None = None
    eps_scf: float | None = None
    electrons: list[int] = field(default_factory=list)
    orbitals: list[int] = field(default_factory=list)
    n_functions: int | None = None
    mesh: tuple[int, int, int] | None = None
    scheme: str = ''
    shift: tuple[float, float, float] | None = None
    n_kpoints: int | None = None
    points: list[tuple[float, ...]] = field(default_factory=list)
    eps_density: float | None = None
    peculiar: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    periodicity: str = ''
    smearing: str = ''
    electronic_temperature: float | None = None
    kinds: list[str] = field(default_factory=list)
    basis: dict[str, str] = field(default_factory=dict)
    potentials: dict[str, str] = field(default_factory=dict)
    atoms: list[tuple[str, tuple[float, float, float]]] = field(default_factory=list)
    lengths: dict[str, float] = field(default_factory=dict)
    angles: dict[str, float] = field(default_factory=dict)
    vectors: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    processes: int = 1
    threads: int = 1

    @property
    def cell(self) -> Array | None:
        """Lengths in Å and angles in degrees, shape (6,), or None."""
        if len(self.lengths) < 3 or len(self.angles) < 3:
            return None
        return np.array([*(self.lengths[key] for key in 'abc'), *(self.angles[key] for key in _ANGLES)])


_ANGLES = ('alpha', 'beta', 'gamma')


@dataclass
class Ending:
    """How the run ended.

    :param seconds: wall time in s by CP2K's own clock.
    :param abort: what CP2K said when it gave up.
    :param trouble: lines that the operating system or a library left.
    """

    ended: bool = False
    out_of_time: bool = False
    relaxed: bool = False
    steps_exhausted: bool = False
    seconds: float | None = None
    abort: str = ''
    trouble: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    last_line: str = ''


class Cp2kOutput:
    """A text read while its snapshots are taken: `header` is complete with the first, `ending` with the last."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.header = Header()
        self.ending = Ending()
        self._lines = iter(lines)
        self._pushed: list[str] = []
        self._now: Snapshot | None = None
        self._reaction: list[tuple[str, Callable[[str], None]]] = self._reactions()

    def snapshots(self) -> Iterator[Snapshot]:
        """Yield each SCF cycle when the next one begins, and the last one, which may be incomplete."""
        for line in self._each():
            if 'SCF WAVEFUNCTION OPTIMIZATION' in line:
                if self._now is not None:
                    yield self._now
                self._now = Snapshot()
                continue
            for token, react in self._reaction:
                if token in line:
                    react(line)
                    break
        if self._now is not None:
            yield self._now

    # ------------------------------------------------------------------ lines

    def _each(self) -> Iterator[str]:
        while (line := self._next()) is not None:
            if line.strip():
                self.ending.last_line = line.strip()
            yield line

    def _next(self) -> str | None:
        if self._pushed:
            return self._pushed.pop()
        line = next(self._lines, None)
        if line is not None and not line.endswith('\n'):  # cut off, maybe in the middle of a number
            self.ending.last_line = line.strip() or self.ending.last_line
            return None
        return line

    def _rows(self, pattern: re.Pattern[str], skip: int = 3) -> Iterator[re.Match[str]]:
        """Yield lines that match, after at most so many that do not; put the first one behind back."""
        started = False
        while (line := self._next()) is not None:
            match = pattern.match(line)
            if match:
                started = True
                yield match
            elif started or skip == 0:
                self._pushed.append(line)
                return
            else:
                skip -= 1

    # ------------------------------------------------------------------ which line means what

    def _reactions(self) -> list[tuple[str, Callable[[str], None]]]:
        return [*((token, self._before_cycles(react)) for token, react in self._of_header()), *self._of_run()]

    def _of_header(self) -> list[tuple[str, Callable[[str], None]]]:
        return [
            ('RESTART INFORMATION', self._restarted),
            ('CP2K| version string', self._version),
            ('CP2K| Input file name', self._keep('input_name')),
            ('GLOBAL| Coordinate file name', self._keep('coordinate_name')),
            ('GLOBAL| Project name', self._keep('project')),
            ('GLOBAL| Run type', self._keep('run_type')),
            ('MD_PAR| Ensemble type', self._keep('ensemble')),
            ('MD| Ensemble Type', self._keep('ensemble')),
            ('GLOBAL| Total number of message passing', self._keep('processes', int)),
            ('GLOBAL| Number of threads for this', self._keep('threads', int)),
            (' CELL| ', self._cell),
            ('BRILLOUIN| K-Point grid', self._mesh),
            ('BRILLOUIN| K-point scheme', self._keep('scheme')),
            ('BRILLOUIN| K-Point shift', self._shift),
            ('BRILLOUIN| List of Kpoints', self._points),
            ('DFT| Self-interaction correction (SIC)', self._interaction),
            ('DFT| Spin ', self._spin),
            ('DFT| Multiplicity', self._keep('multiplicity', int)),
            ('DFT| Charge', self._keep('charge', int)),
            ('FUNCTIONAL| ', self._functional),
            ('vdW POTENTIAL| ', self._dispersion),
            ('eps_rho_gspace:', self._keep('eps_density', float)),
            ('QS| Method', self._keep('method')),
            ('QS| Number of grid levels', self._keep('n_grids', int)),
            ('QS| Density cutoff', self._keep('cutoff', _rydberg)),
            ('QS| Relative density cutoff', self._keep('rel_cutoff', _rydberg)),
            ('Atomic kind: ', self._kind),
            ('Orbital Basis Set  ', self._basis),
            ('Potential information for', self._potential),
            ('are GHOST atoms', self._ghost),
            *((token, self._peculiar) for token in _PECULIAR),
            ('ATOMIC COORDINATES IN', self._coordinates),
            ('eps_scf: ', self._keep('eps_scf', float)),
            ('Smear method:', self._keep('smearing')),
            ('Electronic temperature [K]', self._keep('electronic_temperature', float)),
            ('Number of electrons:', self._add_to('electrons')),
            ('Number of molecular orbitals:', self._add_to('orbitals')),
            ('Number of orbital functions:', self._keep('n_functions', int)),
        ]

    def _of_run(self) -> list[tuple[str, Callable[[str], None]]]:
        return [
            ('SCF run converged in', self._converged),
            ('SCF run NOT converged', self._unconverged),
            ('outer SCF loop FAILED to converge', self._cycles),
            ('Leaving inner SCF loop after', self._cycles),
            ('SCF run terminated - exceeded', self._scf_out_of_time),
            ('exceeded requested execution time', self._out_of_time),
            ('Electronic entropic energy', self._entropy),
            ('Ideal and single determinant S**2', self._spin_square),
            ('Eigenvalues of the occupied subspace', self._occupied),
            ('Fermi Energy [eV]', self._fermi),
            ('Lowest Eigenvalues of the unoccupied', self._unoccupied),
            ('EIGENVALUES AND OCCUPATION NUMBERS', self._orbitals),
            ('ENERGY| Total FORCE_EVAL', self._energy),
            ('ATOMIC FORCES in [', self._forces),
            ('FORCES| Atomic forces [', self._new_forces),
            ('STRESS| Analytical stress tensor [', self._stress),
            ('STRESS| Numerical stress tensor [', self._stress),
            ('GEOMETRY OPTIMIZATION COMPLETED', self._relaxed),
            ('MAXIMUM NUMBER OF OPTIMIZATION STEPS', self._exhausted),
            ('PROGRAM ENDED AT', self._ended),
            ('[ABORT]', self._abort),
            (' CP2K        ', self._seconds),
            ('*** WARNING in', self._warning),
            *((word, self._trouble) for word in _TROUBLE),
        ]

    def _before_cycles(self, react: Callable[[str], None]) -> Callable[[str], None]:
        """Return a reaction that rests once an SCF cycle has begun: later steps print cells and kinds of their own."""

        def guarded(line: str) -> None:
            if self._now is None:
                react(line)

        return guarded

    def _keep(self, name: str, kind: Callable[[str], Any] = str) -> Callable[[str], None]:
        """Return a reaction that keeps the last word of the line."""

        def keep(line: str) -> None:
            setattr(self.header, name, kind(line.rsplit(maxsplit=1)[-1]))

        return keep

    def _add_to(self, name: str) -> Callable[[str], None]:
        """Return a reaction that adds the number at the end of the line: one for each spin."""

        def add(line: str) -> None:
            getattr(self.header, name).append(int(line.rsplit(maxsplit=1)[-1]))

        return add

    # ------------------------------------------------------------------ the header

    def _version(self, line: str) -> None:
        self.header.version = line.rsplit('CP2K version', maxsplit=1)[-1].strip()

    def _cell(self, line: str) -> None:
        words = line.split()
        if 'Vector' in line:
            key = words[words.index('Vector') + 1]
            scale = LENGTH_UNITS[_unit(line).lower()]
            self.header.lengths[key] = float(words[-1]) * scale
            first, second, third = (float(word) * scale for word in words[-6:-3])
            self.header.vectors[key] = (first, second, third)
        elif 'Angle' in line:
            name = next(name for name in _ANGLES if name in line)
            self.header.angles[name] = float(words[-1])
        elif 'Periodicity' in line:
            self.header.periodicity = words[-1]

    def _mesh(self, line: str) -> None:
        first, second, third = (int(word) for word in line.split()[-3:])
        self.header.mesh = (first, second, third)

    def _restarted(self, line: str) -> None:
        self.header.restarted = True

    def _shift(self, line: str) -> None:
        first, second, third = (float(word) for word in line.split()[-3:])
        self.header.shift = (first, second, third)

    def _points(self, line: str) -> None:
        self.header.n_kpoints = int(line.rsplit(maxsplit=1)[-1])
        rows = self._rows(_POINT, skip=1)
        self.header.points = [tuple(float(word) for word in match['numbers'].split()) for match in rows]

    def _interaction(self, line: str) -> None:
        if line.rsplit(maxsplit=1)[-1] != 'NO':
            self._peculiar(line)

    def _ghost(self, line: str) -> None:
        self.header.ghosts += self.header.kinds[-1:]

    def _peculiar(self, line: str) -> None:
        of_kind = self.header.kinds[-1:] if 'U(eff)' in line or 'Angular quantum' in line else []
        self.header.peculiar.append(' '.join([*of_kind, *line.split()]))

    def _spin(self, line: str) -> None:
        word = line.rsplit(maxsplit=1)[-1]
        if word in ('RKS', 'UKS', 'ROKS'):
            self.header.unrestricted = word != 'RKS'

    def _functional(self, line: str) -> None:
        text = line.partition('FUNCTIONAL|')[2].strip()
        match = re.fullmatch(r'(\w+):', text)
        if match:
            self.header.functional.append(match[1])
        elif text:
            self.header.references.append(text)

    def _dispersion(self, line: str) -> None:
        text = line.partition('|')[2].strip()
        if text:
            self.header.dispersion.append(' '.join(text.split()))

    def _kind(self, line: str) -> None:
        self.header.kinds.append(line.partition('Atomic kind: ')[2].split()[0])

    def _basis(self, line: str) -> None:
        if self.header.kinds:
            self.header.basis[self.header.kinds[-1]] = line.rsplit(maxsplit=1)[-1]

    def _potential(self, line: str) -> None:
        if self.header.kinds:
            self.header.potentials[self.header.kinds[-1]] = line.rsplit(maxsplit=1)[-1]

    def _coordinates(self, line: str) -> None:
        scale = LENGTH_UNITS[line.rsplit(maxsplit=1)[-1].lower()]
        self.header.atoms = []
        for match in self._rows(_ATOM):
            x, y, z = (float(match[name]) * scale for name in ('x', 'y', 'z'))
            self.header.atoms.append((match['element'], (x, y, z)))

    # ------------------------------------------------------------------ a snapshot

    def _converged(self, line: str) -> None:
        if self._now is not None:
            self._now.converged = True
            self._now.cycles = int(line.split()[-3])

    def _unconverged(self, line: str) -> None:
        if self._now is not None:
            self._now.converged = False

    def _cycles(self, line: str) -> None:
        if self._now is not None:
            self._now.cycles = max(self._now.cycles, int(line.split()[-2]))

    def _scf_out_of_time(self, line: str) -> None:
        if self._now is not None:
            self._now.out_of_time = True
        self._out_of_time(line)

    def _entropy(self, line: str) -> None:
        if self._now is not None:
            self._now.entropy = _float(line.rsplit(maxsplit=1)[-1]) * units.Hartree

    def _spin_square(self, line: str) -> None:
        if self._now is not None:
            ideal, found = (_float(word) for word in line.split()[-2:])
            self._now.spin_square = (ideal, found)

    def _energy(self, line: str) -> None:
        if self._now is not None:
            self._now.energy = _float(line.rsplit(maxsplit=1)[-1]) * ENERGY_UNITS[_unit(line).lower()]

    def _forces(self, line: str) -> None:
        """Read a table that ends on the sum; one without is cut off."""
        rows = [(match['element'], _vector(match)) for match in self._rows(_FORCE)]
        if self._now is not None and self._ends_with('SUM OF ATOMIC FORCES'):
            self._now.elements = tuple(element for element, _ in rows)
            self._now.forces = np.array([row for _, row in rows]) * FORCE_UNITS[_unit(line).lower()]

    def _new_forces(self, line: str) -> None:
        rows = [_vector(match) for match in self._rows(_NEW_FORCE)]
        if self._now is not None and self._ends_with('FORCES| Sum'):
            self._now.forces = np.array(rows) * FORCE_UNITS[_unit(line).lower()]

    def _ends_with(self, text: str) -> bool:
        line = self._next()
        return line is not None and text in line

    def _stress(self, line: str) -> None:
        rows = {match['axis']: _vector(match) for match in self._rows(_STRESS)}
        if self._now is not None and len(rows) == 3:
            printed = np.array([rows[axis] for axis in 'xyz']) * STRESS_UNITS[_unit(line).lower()]
            mean = -0.5 * (printed + printed.T)  # CP2K prints the opposite of ASE's stress
            self._now.stress = mean[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]

    # ------------------------------------------------------------------ eigenvalues

    def _occupied(self, line: str) -> None:
        values = self._eigenvalues()
        if self._now is not None:
            self._now.channels.append(Channel(int(line.rsplit(maxsplit=1)[-1]), values, (), converged=False))

    def _fermi(self, line: str) -> None:
        if self._now is not None and self._now.channels:
            last = self._now.channels[-1]
            level = float(line.rsplit(maxsplit=1)[-1])
            self._now.channels[-1] = Channel(last.spin, last.occupied, last.unoccupied, level, last.converged)

    def _unoccupied(self, line: str) -> None:
        """Read the states above the gap; they count where the eigensolver says that it found them."""
        spin, found = int(line.rsplit(maxsplit=1)[-1]), False
        while (text := self._next()) is not None and (not text.strip() or 'OT|' in text or set(text.strip()) == {'-'}):
            found |= 'reached convergence' in text and 'not' not in text
        if text is not None:
            self._pushed.append(text)
        values = self._eigenvalues()
        if self._now is None:
            return
        for position, channel in enumerate(self._now.channels):
            if channel.spin == spin:
                self._now.channels[position] = Channel(spin, channel.occupied, values, channel.fermi, found)

    def _eigenvalues(self) -> tuple[float, ...]:
        """Read lines of nothing but numbers, in hartree."""
        values: list[float] = []
        for match in self._rows(_NUMBERS):
            values += [float(word) * units.Hartree for word in match[0].split()]
        return tuple(values)

    def _orbitals(self, line: str) -> None:
        """Read a table of diagonalised orbitals; those of all k-points of a spin belong together."""
        spin = 2 if 'BETA' in line else 1
        rows = [(float(match['ev']), float(match['occupation'])) for match in self._rows(_ORBITAL)]
        if self._now is None or not rows:
            return
        full = 1.0 if 'ALPHA' in line or 'BETA' in line else 2.0
        occupied = tuple(value for value, occupation in rows if occupation > full / 2)
        unoccupied = tuple(value for value, occupation in rows if occupation <= full / 2)
        fermi = self._fermi_of_orbitals()
        for position, channel in enumerate(self._now.channels):
            if channel.spin == spin:
                occupied, unoccupied = channel.occupied + occupied, channel.unoccupied + unoccupied
                self._now.channels[position] = Channel(spin, occupied, unoccupied, fermi)
                return
        self._now.channels.append(Channel(spin, occupied, unoccupied, fermi))

    def _fermi_of_orbitals(self) -> float | None:
        """Read the Fermi level behind a table of orbitals, in eV."""
        for match in self._rows(_ORBITAL_END, skip=0):
            if match['fermi']:
                return float(match['fermi'])
        return None

    # ------------------------------------------------------------------ the ending

    def _out_of_time(self, line: str) -> None:
        self.ending.out_of_time = True

    def _relaxed(self, line: str) -> None:
        self.ending.relaxed = True

    def _exhausted(self, line: str) -> None:
        self.ending.steps_exhausted = True

    def _ended(self, line: str) -> None:
        self.ending.ended = True

    def _seconds(self, line: str) -> None:
        words = line.split()
        if len(words) == 7:
            self.ending.seconds = float(words[-1])

    def _warning(self, line: str) -> None:
        self.ending.warnings.append(' '.join(line.strip().strip('*').split()))

    def _abort(self, line: str) -> None:
        """Read the words beside the drawing of the box in which CP2K gives up."""
        words = []
        while (text := self._next()) is not None and text.lstrip().startswith('*') and set(text.strip()) != {'*'}:
            words.append(re.sub(r'^[ \\/_|O]+', '', text.strip().strip('*')).strip())
        said = ' '.join(' '.join(words).split())
        self.ending.abort = said
        if 'SCF run NOT converged' in said:  # newer versions give up instead of going on
            self._unconverged(line)

    def _trouble(self, line: str) -> None:
        self.ending.trouble.append(line.strip())


_TROUBLE = (
    'SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'egmentation fault', 'bad_alloc', 'Cannot allocate', 'ut of memory',
    'command not found', 'No such file', 'error while loading', 'ermission denied', 'xec format error', 'oom-kill',
    'No space left', 'isk quota', 'nput/output error', 'tale file handle',
)  # fmt: skip

_PECULIAR = (
    'HFX_INFO| FRACTION', 'HFX_INFO| Interaction Potential', 'HFX_INFO| Omega', 'HFX_INFO| Cutoff', 'DFT+U| Method',
    'Angular quantum momentum number L', 'U(eff) =', 'EFIELD|', 'SCCS|', 'CDFT|', 'QMMM|', 'RELATIVISTIC|',
)  # fmt: skip
"""Beginnings of lines on physics that a functional, a basis set and a cutoff do not tell."""

_FLOAT = r'[-+]?\d*\.?\d+(?:[eEdD][-+]?\d+)?|[-+]?(?:nan|inf)\w*|\*+'
_XYZ = rf'\s+(?P<x>{_FLOAT})\s+(?P<y>{_FLOAT})\s+(?P<z>{_FLOAT})'
_ATOM = re.compile(rf'\s*\d+\s+\d+\s+(?P<element>[A-Z][a-z]?)\s+\d+{_XYZ}', re.IGNORECASE)
_FORCE = re.compile(rf'\s*\d+\s+\d+\s+(?P<element>[A-Z][a-z]?)\w*{_XYZ}\s*$', re.IGNORECASE)
_NEW_FORCE = re.compile(rf'\s*FORCES\|\s+\d+{_XYZ}', re.IGNORECASE)
_POINT = re.compile(r'\s*BRILLOUIN\|\s+\d+\s+(?P<numbers>[-+.\d\s]+)$')
_STRESS = re.compile(rf'\s*STRESS\|\s+(?P<axis>[xyz]){_XYZ}\s*$', re.IGNORECASE)
_NUMBERS = re.compile(r'\s*(?:[-+]?\d+\.\d+\s*)+$')
_ORBITAL = re.compile(r'\s*MO\|\s+\d+\s+\S+\s+(?P<ev>[-+.\d]+)\s+(?P<occupation>[-+.\d]+)\s*$')
_ORBITAL_END = re.compile(r'\s*MO\|(?: Sum:.*| E\(Fermi\):.*\s(?P<fermi>[-+.\d]+) eV)?\s*$')


def _vector(match: re.Match[str]) -> list[float]:
    return [_float(match[name]) for name in ('x', 'y', 'z')]


def _float(word: str) -> float:
    """Return a number as Fortran writes it; stars stand for one that does not fit and are no number."""
    return float('nan') if set(word) == {'*'} else float(word.replace('D', 'E').replace('d', 'e'))


def _unit(line: str) -> str:
    """Return what stands in square brackets."""
    match = re.search(r'\[([^\]]+)\]', line)
    return match[1].strip() if match else ''


def _rydberg(word: str) -> float:
    """Return a cutoff, which CP2K prints in hartree, in Ry."""
    return 2 * float(word)
