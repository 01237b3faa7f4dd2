"""A run of CP2K that was done elsewhere: its labelled frames, and the level of theory that it says it had."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase.geometry import cell_to_cellpar, cellpar_to_cell

from aiida_perovmlip.compute.frame import Array, Frame, FrameError, atomic_number
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.labellers.cp2k.effective import DISPERSION_WORDS, FUNCTIONALS, PRINTED_POSITION, PRINTED_SHIFT
from aiida_perovmlip.labellers.cp2k.input_file import Sections, every, lookup, read_input
from aiida_perovmlip.labellers.cp2k.inputs import FORCE_UNIT
from aiida_perovmlip.labellers.cp2k.output import Cp2kOutput, Header, Snapshot
from aiida_perovmlip.labellers.cp2k.trajectory import Step, matched, read_cells, read_steps

ENDINGS = ('.out', '.log', '.out.gz', '.log.gz')

SIGNATURE = 'CP2K| version string'
LONGEST_PREAMBLE = 500
"""How many lines of a text are looked at for the words by which CP2K begins."""

PRINTED_VECTOR = 6e-4
"""In Å: cell vectors are printed to three digits."""

DFT = 'FORCE_EVAL/DFT'


class RunError(FrameError):
    """A run that gives no labels, or a file that is none; the message says why."""


@dataclass
class Cp2kRun:
    """What was read of a run.

    :param frames: the labelled frames, read as they are asked for.
    :param skipped: a sentence for each snapshot without a label; complete once the frames have been taken.
    :param files: what was read.
    """

    frames: Iterator[Frame]
    level: Level
    skipped: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def read_run(path: Path) -> Cp2kRun:
    """Read an output of CP2K, also compressed with gzip, or a folder with one; raises `RunError`.

    The input beside it, trajectories, forces and cells are read, too, where they carry the names of the run. Only
    snapshots whose SCF cycle converged become frames.
    """
    file = _output_of(Path(path))
    header = _header_of(file)
    beside = _Beside.of(file, header)
    refusal = _refusal(header, beside.sections)
    if refusal:
        raise RunError(f'{file}: {refusal}')
    skipped: list[str] = []
    return Cp2kRun(_frames(file, header, beside, skipped), level_of_run(header, beside.sections), skipped, beside.files)


RUN_TYPES = ('ENERGY', 'ENERGY_FORCE', 'GEO_OPT', 'CELL_OPT', 'MD')
"""Kinds of runs whose snapshots are energies and forces of the structure that is printed."""


def run_type_of(header: Header, sections: Sections | None) -> str:
    """Return the kind of a run by the name that CP2K prints."""
    name = (header.run_type or str(lookup(sections, 'GLOBAL/RUN_TYPE') or '')).upper()
    return {'MOLECULAR_DYNAMICS': 'MD', 'GEOMETRY_OPTIMIZATION': 'GEO_OPT'}.get(name, name)


def _refusal(header: Header, sections: Sections | None) -> str:
    """Return why nothing of a run can be a label; empty where something can."""
    run_type = run_type_of(header, sections)
    if run_type not in RUN_TYPES:
        return f'its run type is {run_type or "not printed"}; imported are {", ".join(RUN_TYPES)}.'
    written = [kind for kind in every(lookup(sections, 'FORCE_EVAL/SUBSYS/KIND')) if isinstance(kind, dict)]
    asked = [kind.get('_', '') for kind in written if 'GHOST' in kind and str(kind['GHOST']).upper() not in OFF]
    ghosts = sorted({*header.ghosts, *asked})
    return f'it has ghost atoms ({", ".join(ghosts)}), which no structure has.' if ghosts else ''


OFF = ('F', '.FALSE.', 'FALSE', 'NO', 'OFF')


def _output_of(path: Path) -> Path:
    """Return the output to read: the file, or the only one in the folder."""
    if path.is_file():
        if not _is_output(path):
            raise RunError(f'{path}: it is no output of CP2K.')
        return path
    named = sorted(entry for entry in path.glob('*') if entry.name.endswith(ENDINGS) and entry.is_file())
    found = [entry for entry in named if _is_output(entry)]
    if len(found) != 1:
        names = ', '.join(entry.name for entry in found) or f'no file named *{", *".join(ENDINGS)}'
        raise RunError(f'{path}: there has to be one output of CP2K, but there is {names}. Name the file itself.')
    return found[0]


def _is_output(path: Path) -> bool:
    try:
        with _open(path) as handle:
            return any(SIGNATURE in line for line, _ in zip(handle, range(LONGEST_PREAMBLE), strict=False))
    except (OSError, EOFError):
        return False


def _lines(handle: TextIO, skipped: list[str]) -> Iterator[str]:
    """Yield the lines up to the end, or up to where a compressed file is damaged."""
    try:
        yield from handle
    except (EOFError, OSError, zlib.error) as error:
        skipped.append(f'the file is damaged; what is behind cannot be read: {error}.')


@contextmanager
def _open(path: Path) -> Iterator[TextIO]:
    opener: Any = gzip.open if path.name.endswith('.gz') else open
    with opener(path, 'rt', encoding='utf-8', errors='replace') as handle:
        yield handle


def _header_of(file: Path) -> Header:
    """Return what the output says before its first SCF cycle."""
    with _open(file) as handle:
        output = Cp2kOutput(_lines(handle, []))
        if next(output.snapshots(), None) is None:
            said = output.ending.abort or 'it ends before its first SCF cycle.'
            raise RunError(f'{file}: {said}')
    return output.header


# ---------------------------------------------------------------------- files beside the output


@dataclass
class _Beside:
    """The files of a run beside its output; None where there is none."""

    files: list[Path]
    sections: Sections | None = None
    coordinates: Path | None = None
    positions: Path | None = None
    forces: Path | None = None
    cells: Path | None = None

    @classmethod
    def of(cls, file: Path, header: Header) -> _Beside:
        """Find them by the names that the output tells."""
        folder, project = file.parent, header.project
        known = cls([file])
        stem = file.name.partition('.')[0]
        names = [header.input_name, f'{stem}.inp', f'{project}.inp']
        written = known._take(folder, *(name for name in names if name))
        if written is not None:
            with _open(written) as handle:
                known.sections = read_input(handle)
        known.coordinates = known._take(folder, Path(header.coordinate_name or '-').name)
        if header.run_type in ('MD', 'GEO_OPT', 'CELL_OPT') and project:
            known.positions = known._take(folder, f'{project}-pos-1.xyz')
            known.forces = known._take(folder, f'{project}-frc-1.xyz')
            known.cells = known._take(folder, f'{project}-1.cell')
        return known

    def _take(self, folder: Path, *names: str) -> Path | None:
        """Return the first of these files that is there, also compressed, and note that it is read."""
        for name in names:
            for path in (folder / name, folder / f'{name}.gz'):
                if path.is_file():
                    self.files.append(path)
                    return path
        return None


# ---------------------------------------------------------------------- frames


def _frames(file: Path, header: Header, beside: _Beside, skipped: list[str]) -> Iterator[Frame]:
    """Yield the frames that are labelled; say of each snapshot that is not what it lacks."""
    start = _start(header, beside)
    if isinstance(start, str):
        with _open(file) as handle:
            for index, snapshot in enumerate(Cp2kOutput(_lines(handle, skipped)).snapshots()):
                skipped.append(f'snapshot {index} ({_energy(snapshot)}): {start}')
        return
    with _open(file) as handle:
        output = Cp2kOutput(_lines(handle, skipped))
        placed = _placed(start, output.snapshots(), beside, _cell_moves(header, beside))
        for index, (frame, snapshot) in enumerate(placed):
            reason = _lacks(frame, snapshot)
            if reason or isinstance(frame, str):
                skipped.append(f'snapshot {index} ({_energy(snapshot)}): {reason}')
                continue
            forces = snapshot.forces if snapshot.forces is not None else frame.forces
            stress = snapshot.stress if frame.has_volume else None
            yield replace(frame, energy=snapshot.energy, forces=forces, stress=stress)


def _energy(snapshot: Snapshot) -> str:
    return 'no energy' if snapshot.energy is None else f'{snapshot.energy:.6f} eV'


def _lacks(frame: Frame | str, snapshot: Snapshot) -> str:
    """Return why there is no label; empty where there is one."""
    if snapshot.out_of_time:
        return 'the time ran out in the middle of its SCF cycle.'
    if not snapshot.converged:
        return f'its SCF cycle did not converge ({snapshot.cycles} steps).'
    if snapshot.energy is None:
        return 'the output ends before its energy.'
    if isinstance(frame, str):
        return frame
    forces = snapshot.forces if snapshot.forces is not None else frame.forces
    if forces is None:
        return 'its forces were not printed.'
    if len(forces) != len(frame) or (snapshot.elements and list(snapshot.elements) != frame.symbols):
        return 'its forces are of other atoms.'
    return '' if np.isfinite(forces).all() and np.isfinite(snapshot.energy) else 'it has numbers that are not finite.'


def _start(header: Header, beside: _Beside) -> Frame | str:
    """Return the structure at the beginning, or a sentence on what is not known of it."""
    atoms = _atoms_of(header, beside)
    if not atoms:
        wanted = header.coordinate_name or 'the input with &COORD'
        return f'the output does not print positions, and {wanted} is not beside it.'
    unsure = '' if header.atoms else _unsure(header, beside.sections)
    if unsure:
        return f'the output does not print positions, and the input is not enough: {unsure}'
    periodic = header.periodicity or str(lookup(beside.sections, 'FORCE_EVAL/SUBSYS/CELL/PERIODIC') or 'XYZ').upper()
    cell = _cell_of(header, beside.sections)
    if cell is None:
        return 'the output prints the cell to three digits only; put its input beside it.'
    charge, multiplicity = _state(header, beside.sections)
    return Frame(
        numbers=np.array([atomic_number(symbol) for symbol, _ in atoms], dtype=np.uint8),
        positions=np.array([row for _, row in atoms]),
        cell=cell,
        pbc=np.array([axis in periodic for axis in 'XYZ']),
        charge=charge,
        spin=multiplicity,
        trajectory=f'{header.project} of {beside.files[0].name}' if header.run_type != 'ENERGY_FORCE' else '',
    )


def _unsure(header: Header, sections: Sections | None) -> str:
    """Return why positions of the input may not be those that were computed; empty where they are."""
    if header.restarted or (sections and 'EXT_RESTART' in sections):
        return 'it was restarted from another file.'
    subsys = lookup(sections, 'FORCE_EVAL/SUBSYS')
    if sections and not isinstance(subsys, dict):
        return 'it has several force evaluations.'
    rows = [line.upper().split() for line in every(lookup(subsys, 'COORD/ATOM'))]
    if any(words[0] == 'SCALED' for words in rows):
        return 'its coordinates are SCALED.'
    if any(words[0] == 'UNIT' and words[1:] != ['ANGSTROM'] for words in rows):
        return 'its coordinates have a UNIT.'
    for path in ('TOPOLOGY/MULTIPLE_UNIT_CELL', 'CELL/MULTIPLE_UNIT_CELL', 'CELL/CELL_FILE_NAME', *TOPOLOGY):
        if lookup(subsys, path) is not None:
            return f'it has {path.rpartition("/")[2]}.'
    return ''


TOPOLOGY = ('TOPOLOGY/CENTER_COORDINATES', 'TOPOLOGY/GENERATE/REORDER')
"""What else moves atoms or their order between the input and the run."""


def _atoms_of(header: Header, beside: _Beside) -> list[tuple[str, Any]]:
    """Return element and position in Å of each atom: from the output, else from the file or section it names."""
    if header.atoms:
        return list(header.atoms)
    if beside.coordinates is not None:
        with _open(beside.coordinates) as handle:
            step = next(read_steps(handle), None)
        return [] if step is None else list(zip(step.symbols, step.rows.tolist(), strict=True))
    rows = [line.split() for line in every(lookup(beside.sections, 'FORCE_EVAL/SUBSYS/COORD/ATOM'))]
    return [(words[0], [_number(word) for word in words[1:4]]) for words in rows if len(words) >= 4]


def _state(header: Header, sections: Sections | None) -> tuple[int, int | None]:
    """Return charge and multiplicity; CP2K's own defaults where neither output nor input tells."""
    charge = header.charge if header.charge is not None else int(lookup(sections, f'{DFT}/CHARGE') or 0)
    written = lookup(sections, f'{DFT}/MULTIPLICITY')
    return charge, header.multiplicity or (int(written) if written else None)


def _cell_of(header: Header, sections: Sections | None) -> Array | None:
    """Return the cell in Å: from the input, else from lengths and angles where the orientation is the usual one."""
    written = _written_cell(sections)
    printed = np.array([header.vectors[key] for key in 'abc']) if len(header.vectors) == 3 else None
    if written is not None and _is_printed(written, printed, header.cell):
        return written
    if header.cell is None or printed is None:
        return None
    usual = np.array(cellpar_to_cell(header.cell))
    usual[np.abs(usual) < 1e-9] = 0.0
    return usual if np.abs(usual - printed).max() < PRINTED_VECTOR else None


def _is_printed(cell: Array, vectors: Array | None, parameters: Array | None) -> bool:
    """Whether a cell is the one that the output prints, as far as it prints one."""
    if vectors is not None and np.abs(cell - vectors).max() > PRINTED_VECTOR:
        return False
    return parameters is None or bool(np.abs(cell_to_cellpar(cell) - parameters).max() < PRINTED_POSITION)


def _written_cell(sections: Sections | None) -> Array | None:
    """Return the cell of the input in Å; None where it is written in another way than the usual ones."""
    cell = lookup(sections, 'FORCE_EVAL/SUBSYS/CELL')
    if not isinstance(cell, dict):
        return None
    try:
        if all(letter in cell for letter in 'ABC'):
            return np.array([[float(word) for word in cell[letter].split()] for letter in 'ABC'])
        lengths = [float(word) for word in cell.get('ABC', '').split()]
        angles = [float(word) for word in cell.get('ALPHA_BETA_GAMMA', '90 90 90').split()]
        return np.array(cellpar_to_cell([*lengths, *angles])) if len(lengths) == 3 else None
    except ValueError:  # a unit in brackets
        return None


def _placed(
    start: Frame, snapshots: Iterator[Snapshot], beside: _Beside, cell_moves: bool
) -> Iterator[tuple[Frame | str, Snapshot]]:
    """Yield each snapshot with its structure, which the trajectory tells, or with a sentence on what is unknown.

    :param cell_moves: whether a step counts only with a cell of its own.
    """
    with _steps(beside.positions) as positions, _steps(beside.forces) as forces, _cells(beside.cells) as cells:
        force, cell = next(forces, None), next(cells, None)
        for index, (step, snapshot) in enumerate(matched(positions, snapshots)):
            if step is None:
                yield start if index == 0 else 'its positions are in no file.', snapshot
                continue
            while cell is not None and cell[0] < step.index:
                cell = next(cells, None)
            while force is not None and force.index < step.index:
                force = next(forces, None)
            own = cell[1] if cell is not None and cell[0] == step.index else None
            own = start.cell if own is None and index == 0 else own  # the output begins with it
            rows = force.rows * FORCE_UNIT if force is not None and force.index == step.index else None
            if list(step.symbols) != start.symbols:
                yield 'the trajectory beside it is of other atoms.', snapshot
            elif own is None and cell_moves:
                yield 'its cell is in no file, and this run may change the cell.', snapshot
            else:
                known = start.cell if own is None else own
                yield replace(start, positions=step.rows, cell=known, forces=rows), snapshot


FIXED_CELL = ('NVE', 'NVT', 'LANGEVIN', 'ISOKIN')
"""Ensembles in which the cell stays as it is."""


def _cell_moves(header: Header, beside: _Beside) -> bool:
    """Whether the run may have changed the cell."""
    run_type = run_type_of(header, beside.sections)
    ensemble = header.ensemble or str(lookup(beside.sections, 'MOTION/MD/ENSEMBLE') or '')
    moves = run_type == 'CELL_OPT' or (run_type == 'MD' and ensemble.upper() not in FIXED_CELL)
    return moves or beside.cells is not None


@contextmanager
def _steps(path: Path | None) -> Iterator[Iterator[Step]]:
    if path is None:
        yield iter(())
        return
    with _open(path) as handle:
        yield read_steps(handle)


@contextmanager
def _cells(path: Path | None) -> Iterator[Iterator[tuple[int, Array]]]:
    if path is None:
        yield iter(())
        return
    with _open(path) as handle:
        yield read_cells(handle)


# ---------------------------------------------------------------------- level of theory


def level_of_run(header: Header, sections: Sections | None) -> Level:
    """Return the level of theory that the output tells, and the input beside it where the output is silent.

    What neither has a word of its own for, such as exact exchange or an electric field, is in the details as CP2K
    printed it, and as a digest of the input.
    """
    basis = sorted(set(header.basis.values()) or set(_kinds(sections, 'BASIS_SET')))
    potentials = sorted(set(header.potentials.values()) or set(_kinds(sections, 'POTENTIAL')))
    cutoff = header.cutoff or _number(lookup(sections, f'{DFT}/MGRID/CUTOFF'))
    rel_cutoff = header.rel_cutoff or _number(lookup(sections, f'{DFT}/MGRID/REL_CUTOFF'))
    details = {
        'rel_cutoff_Ry': rel_cutoff,
        'n_grids': header.n_grids,
        'eps_default': _number(lookup(sections, f'{DFT}/QS/EPS_DEFAULT')) or header.eps_density,
        'eps_scf': header.eps_scf,
        'method': header.method or None,
        'electronic_temperature_K': header.electronic_temperature if header.smearing else None,
        'smearing': header.smearing or None,
        'orbitals': _orbitals(header) if header.smearing else None,
        'scaling': _scaling(header) or None,
        'printed': sorted(set(header.peculiar)) or None,
        'kpoint_list': [list(point) for point in header.points] if header.scheme.upper() == 'GENERAL' else None,
        'input': physics_digest(sections) if sections else None,
    }
    return Level(
        labeller='cp2k',
        functional=_functional(header, sections),
        cutoff=f'{cutoff:g} Ry' if cutoff else '',
        basis=', '.join([*basis, *potentials]),
        dispersion=_dispersion(header, sections),
        kpoints=_kpoints(header, sections),
        charge='total charge of the cell',
        spin='unrestricted' if header.unrestricted or len(header.electrons) == 2 else 'restricted',
        details={name: value for name, value in details.items() if value is not None},
    )


def _orbitals(header: Header) -> str:
    """Return how many orbitals smearing could use: with fewer than all, energies depend on the number."""
    if header.n_functions is not None and set(header.orbitals) == {header.n_functions}:
        return 'all'
    return ' and '.join(map(str, header.orbitals)) or 'not printed'


def _scaling(header: Header) -> str:
    """Return by what exchange and correlation were scaled; empty where they were not."""
    factors = re.findall(r's([xc])=\s*([\d.]+)', ''.join(header.references))
    return ' '.join(f'{name}={float(factor):g}' for name, factor in factors)


def _kpoints(header: Header, sections: Sections | None) -> str:
    """Return how the Brillouin zone was sampled, in the words that jobs of ours have."""
    scheme = header.scheme.upper()
    if header.mesh is None and scheme == 'GENERAL':
        return f'list of {header.n_kpoints}'
    if header.mesh is None:
        known = header.method or header.scheme or sections is not None  # else the output says little
        written = str(lookup(sections, f'{DFT}/KPOINTS/SCHEME') or '') if not header.method else ''
        return written.upper() or ('Gamma' if known else 'not printed')
    text = 'x'.join(map(str, header.mesh))
    if scheme != 'MACDONALD':
        return text
    shift = header.shift or (0.0, 0.0, 0.0)
    centred = [0.0 if number % 2 else 0.5 / number for number in header.mesh]
    if np.allclose(shift, centred, rtol=0, atol=PRINTED_SHIFT):
        return text if all(number % 2 for number in header.mesh) else f'{text}, Gamma-centred'
    return text if not any(shift) else f'{text}, shift {" ".join(f"{value:g}" for value in shift)}'


ELSEWHERE = (
    'SCF', 'PRINT', 'CHARGE', 'MULTIPLICITY', 'UKS', 'LSD', 'WFN_RESTART_FILE_NAME', 'RESTART_FILE_NAME',
    'EXTRAPOLATION', 'EXTRAPOLATION_ORDER', 'SUBSYS', 'STRESS_TENSOR',
)  # fmt: skip
"""What is no part of the digest: how the cycle is converged, what is printed, and what belongs to the frame."""


def physics_digest(sections: Sections) -> str:
    """Return a digest of all in an input that may change energies, in whatever order and case it is written."""
    calculations = every(lookup(sections, 'FORCE_EVAL'))
    parts = [[_plain(each), _plain(lookup(each, 'DFT/SCF/SMEAR')), _kind_extras(each)] for each in calculations]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _kind_extras(sections: Sections) -> list[Any]:
    """Return what kinds of atoms have beside basis set and pseudopotential, such as DFT+U."""
    usual = ('ELEMENT', 'BASIS_SET', 'POTENTIAL', 'MASS', '_')
    kinds = [kind for kind in every(lookup(sections, 'SUBSYS/KIND')) if isinstance(kind, dict)]
    extras = [(kind.get('_', ''), {key: kind[key] for key in kind if key not in usual}) for kind in kinds]
    return sorted([name, _plain(extra)] for name, extra in extras if extra)


def _plain(value: Any, key: str = '') -> Any:
    """Return sections in one way of writing: words in upper case, numbers as numbers, files without folder."""
    if isinstance(value, dict):
        return {name: _plain(entry, name) for name, entry in value.items() if name not in ELSEWHERE}
    if isinstance(value, list):
        return [_plain(entry, key) for entry in value]
    if not isinstance(value, str):
        return value
    if key.endswith('FILE_NAME'):
        return value.rpartition('/')[2]
    return ' '.join(_word(word) for word in value.upper().split())


def _word(word: str) -> str:
    number = _number(word.replace('D', 'E') if word[:1] in '+-.0123456789' else word)
    return word if number is None else f'{number:.12g}'


def _kinds(sections: Sections | None, keyword: str) -> list[str]:
    kinds = every(lookup(sections, 'FORCE_EVAL/SUBSYS/KIND'))
    return [kind[keyword] for kind in kinds if isinstance(kind, dict) and isinstance(kind.get(keyword), str)]


def _functional(header: Header, sections: Sections | None) -> str:
    """Return the name that we have for it, or those that CP2K has for its parts."""
    cited = ' '.join(header.references)
    for name in ('PBEsol', 'revPBE', 'PBE', 'SCAN', 'r2SCAN'):
        parts, word = FUNCTIONALS[name]
        if header.functional == parts and word in cited:
            return name
    if header.functional:
        return '+'.join(header.functional)
    written = lookup(sections, f'{DFT}/XC/XC_FUNCTIONAL') or {}
    return str(written.get('_') or '+'.join(sorted(key for key in written if key != '_')))


def _dispersion(header: Header, sections: Sections | None) -> str:
    text = ' '.join(header.dispersion)
    found = next((name for name, word in DISPERSION_WORDS.items() if word in text), '')
    written = lookup(sections, f'{DFT}/XC/VDW_POTENTIAL/PAIR_POTENTIAL/TYPE')
    return found or text[:60] or {'DFTD3': 'D3', 'DFTD3(BJ)': 'D3BJ', 'DFTD2': 'D2'}.get(str(written), '')


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
