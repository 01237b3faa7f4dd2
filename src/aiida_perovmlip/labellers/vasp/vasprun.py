"""The output of VASP, `vasprun.xml`, read step by step however long it is."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET

import numpy as np

from aiida_perovmlip.compute.frame import Array, to_voigt

KILOBAR = 1.0 / 1602.1766208
"""In eV/Å³ (CODATA 2014, as VASP and aiida-vasp have it to the digits that are printed)."""

TRUNCATED = frozenset({3, 5, 6, 20})
"""Codes of expat for a file that ends too early: nothing found, unclosed tag, half a character, unclosed CDATA."""

_KEPT = frozenset(
    {'generator', 'incar', 'kpoints', 'parameters', 'atominfo', 'structure', 'scstep', 'varray', 'energy'}
)


@dataclass(frozen=True)
class Species:
    """One block of POTCAR.

    :param valence: electrons that it treats (ZVAL).
    :param title: such as `PAW_PBE Cs_sv 08Apr2002`.
    """

    element: str
    count: int
    valence: float
    title: str


@dataclass
class Header:
    """What stands in front of the first step.

    :param asked: tags that VASP found in INCAR, in lower case.
    :param used: tags that it ran with, in lower case.
    :param mesh: k-point mesh; None for a list of k-points.
    :param shift: shift of the mesh that was asked for, in units of its spacing.
    :param own_shift: that of the kind of mesh, away from Γ; half a spacing for even meshes of Monkhorst and Pack.
    :param points: the k-points and their weights as text.
    :param elements: chemical symbols of all atoms in order.
    """

    version: str = ''
    asked: dict[str, Any] = field(default_factory=dict)
    used: dict[str, Any] = field(default_factory=dict)
    mesh: tuple[int, ...] | None = None
    shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    own_shift: tuple[float, ...] = (0.0, 0.0, 0.0)
    points: str = ''
    centring: str = ''
    n_kpoints: int = 0
    elements: list[str] = field(default_factory=list)
    species: list[Species] = field(default_factory=list)

    def value(self, tag: str) -> Any:
        """Return what VASP ran with, else what it read; None where it says neither."""
        name = {'encut': 'enmax'}.get(tag, tag)
        return self.used.get(name, self.used.get(tag, self.asked.get(tag)))

    @property
    def charge(self) -> float:
        """Charge of the cell in e."""
        return sum(kind.count * kind.valence for kind in self.species) - float(self.value('nelect'))


@dataclass
class Step:
    """One ionic step, with the sign of ASE.

    :param energy: free energy in eV, of which the forces are the derivatives.
    :param forces: shape (atoms, 3) in eV/Å.
    :param stress: xx yy zz yz xz xy in eV/Å³; None where VASP did not compute it.
    :param cell: shape (3, 3) in Å, rows are the lattice vectors.
    :param fractions: shape (atoms, 3), positions in units of the lattice vectors.
    :param scf_energy: free energy in eV at the end of the SCF cycle.
    :param change: by how much, in eV, the last SCF step changed it.
    :param n_scf: SCF steps; 0 where nothing was computed from first principles.
    :param seconds: wall time of these.
    :param edges: valence band maximum and conduction band minimum in eV, where there are eigenvalues.
    :param problem: what cannot be read.
    """

    energy: float = math.nan
    forces: Array | None = None
    stress: Array | None = None
    cell: Array | None = None
    fractions: Array | None = None
    scf_energy: float = math.nan
    change: float = math.nan
    n_scf: int = 0
    seconds: float = 0.0
    edges: tuple[float, float] | None = None
    problem: str = ''

    @property
    def is_complete(self) -> bool:
        """Whether all is there that makes a label."""
        return math.isfinite(self.energy) and all(
            part is not None and bool(np.isfinite(part).all()) for part in (self.forces, self.cell, self.fractions)
        )


class Vasprun:
    """A `vasprun.xml`, also compressed with gzip; its header is known once the first step was asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.header = Header()
        self.is_finished = False
        """Whether VASP closed the file; known after the last step."""
        self.damage = ''
        """What is wrong with it, apart from an early end; known after the last step."""

    def steps(self) -> Iterator[Step]:
        """Yield all steps that are complete; what has been read is forgotten."""
        try:
            with self._open() as handle:
                yield from _Reader(self.header).read(handle)
            self.is_finished = True
        except ET.ParseError as error:
            if error.code not in TRUNCATED:
                self.damage = f'{self.path.name}, line {error.position[0]}: {error}'
        except (EOFError, gzip.BadGzipFile, zlib.error, ValueError, LookupError) as error:  # also unknown encodings
            self.damage = f'{self.path.name}: {error}'

    def _open(self) -> Any:
        with self.path.open('rb') as handle:
            zipped = handle.read(2) == b'\x1f\x8b'
        return gzip.open(self.path, 'rb') if zipped else self.path.open('rb')


class _Reader:
    """Walks through the elements and keeps no more than the one that it is in."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.step = Step()
        self.path: list[ET.Element] = []
        self.kept = 0
        """How deep the outermost element lies that is kept until it is complete; 0 where none is."""

    def read(self, handle: IO[bytes]) -> Iterator[Step]:
        """Yield the steps of an open file."""
        for event, element in ET.iterparse(handle, events=('start', 'end')):
            if event == 'start':
                self._enter(element)
            elif step := self._leave(element):
                yield step

    def _enter(self, element: ET.Element) -> None:
        self.path.append(element)
        if element.tag == 'calculation':
            self.step = Step()
        elif not self.kept and (element.tag in _KEPT or self._is_eigenvalues(element)):
            self.kept = len(self.path)

    def _leave(self, element: ET.Element) -> Step | None:
        """Use an element that is complete and drop it; return the step that it completes."""
        done = None
        if self.kept == len(self.path):
            self._use(element, self.path[-2].tag if len(self.path) > 1 else '')
            self.kept = 0
        elif element.tag == 'calculation':
            done = self.step
        self.path.pop()
        if not self.kept and self.path:
            self.path[-1].remove(element)
        return done

    def _is_eigenvalues(self, element: ET.Element) -> bool:
        return element.tag == 'eigenvalues' and len(self.path) > 1 and self.path[-2].tag == 'calculation'

    def _use(self, element: ET.Element, parent: str) -> None:
        """Take what is wanted of an element."""
        try:
            if parent == 'calculation':
                _STEP_PARTS.get(element.tag, _nothing)(self.step, element)
            elif parent == 'modeling':
                _HEADER_PARTS.get(element.tag, _nothing)(self.header, element)
        except (ValueError, IndexError) as error:  # stars where a number did not fit, cells that are not there
            self.step.problem = self.step.problem or f'`{element.tag}` cannot be read: {error}'


def _nothing(_: Any, __: ET.Element) -> None:
    return None


# ---------------------------------------------------------------------- the header


def _generator(header: Header, element: ET.Element) -> None:
    header.version = (element.findtext("i[@name='version']") or '').strip()


def _asked(header: Header, element: ET.Element) -> None:
    header.asked = _tags(element)


def _used(header: Header, element: ET.Element) -> None:
    header.used = _tags(element)


def _tags(element: ET.Element) -> dict[str, Any]:
    """Return all tags below an element; the first of equal names counts, as others belong to special methods."""
    tags: dict[str, Any] = {}
    for entry in element.iter():
        if entry.tag in ('i', 'v'):
            tags.setdefault(entry.get('name', '').strip().lower(), _value(entry))
    return tags


def _value(entry: ET.Element) -> Any:
    """Return the value of a tag; as text where it is not what it should be."""
    text, kind = (entry.text or '').strip(), entry.get('type', 'float')
    convert = _KINDS.get(kind, str)
    try:
        return [convert(part) for part in text.split()] if entry.tag == 'v' else convert(text)
    except ValueError:
        return text


def _integer(text: str) -> int:
    # NUPDOWN is called an integer and written as -1.00000000
    return int(float(text))


def _logical(text: str) -> bool:
    return text.strip('.').upper().startswith('T')


_KINDS: dict[str, Callable[[str], Any]] = {'int': _integer, 'logical': _logical, 'float': float}


def _kpoints(header: Header, element: ET.Element) -> None:
    generation = element.find('generation')
    header.n_kpoints = len(element.findall("varray[@name='kpointlist']/v"))
    header.points = ' '.join(' '.join((row.text or '').split()) for row in element.findall('varray/v'))
    divisions = generation.findtext("v[@name='divisions']") if generation is not None else None
    if generation is None or divisions is None:
        return
    header.mesh = tuple(int(number) for number in divisions.split())
    header.centring = generation.get('param', '').strip()
    header.shift = _three(generation, 'usershift')
    header.own_shift = _three(generation, 'shift')
    if generation.find("v[@name='shift']") is None and header.centring.lower().startswith('m'):
        header.own_shift = tuple(0.0 if n % 2 else 0.5 for n in header.mesh)


def _three(element: ET.Element, name: str) -> tuple[float, ...]:
    return tuple(float(part) for part in (element.findtext(f"v[@name='{name}']") or '0 0 0').split())


def _atominfo(header: Header, element: ET.Element) -> None:
    rows = element.findall("array[@name='atoms']/set/rc")
    header.elements = [_cells(row)[0] for row in rows]
    header.species = [
        Species(cells[1], int(cells[0]), float(cells[3]), ' '.join(cells[4].split()))
        for cells in map(_cells, element.findall("array[@name='atomtypes']/set/rc"))
    ]


def _cells(row: ET.Element) -> list[str]:
    return [(cell.text or '').strip() for cell in row.findall('c')]


_HEADER_PARTS = {
    'generator': _generator,
    'incar': _asked,
    'parameters': _used,
    'kpoints': _kpoints,
    'atominfo': _atominfo,
}


# ---------------------------------------------------------------------- a step


def _scf_step(step: Step, element: ET.Element) -> None:
    step.n_scf += 1
    times = (element.findtext("time[@name='total']") or '').split()
    step.seconds += float(times[-1]) if times and '*' not in times[-1] else 0.0
    _energy(step, element.find('energy'))
    step.change, step.scf_energy = abs(step.energy - step.scf_energy), step.energy


def _energy(step: Step, element: ET.Element | None) -> None:
    """Read the free energy; the one at the end of a step has all corrections and overrides those of the SCF cycle."""
    text = element.findtext("i[@name='e_fr_energy']") if element is not None else None
    if text is not None:
        step.energy = float(text)


def _structure(step: Step, element: ET.Element) -> None:
    step.cell = _rows(element.find("crystal/varray[@name='basis']"))
    step.fractions = _rows(element.find("varray[@name='positions']"))


def _array(step: Step, element: ET.Element) -> None:
    if element.get('name') == 'forces':
        step.forces = _rows(element)
    elif element.get('name') == 'stress':
        # VASP prints the pressure-like tensor in kB
        step.stress = to_voigt(-KILOBAR * _rows(element))


def _rows(element: ET.Element | None) -> Array:
    if element is None:
        raise ValueError('it has no numbers.')
    return np.array([[float(part) for part in (row.text or '').split()] for row in element.findall('v')])


def _eigenvalues(step: Step, element: ET.Element) -> None:
    """Find the band edges: the highest state that is more than half filled, and the lowest that is not."""
    states = np.array([[float(part) for part in (row.text or '').split()[:2]] for row in element.iter('r')])
    if not len(states):
        return
    filled = states[:, 1] > 0.5
    if not filled.any() or filled.all():
        return
    top, bottom = float(states[filled, 0].max()), float(states[~filled, 0].min())
    if top < bottom:  # a metal has no edges
        step.edges = (top, bottom)


_STEP_PARTS = {
    'scstep': _scf_step,
    'energy': _energy,
    'structure': _structure,
    'varray': _array,
    'eigenvalues': _eigenvalues,
}
