"""A run of VASP that was done elsewhere: its labelled frames, and the level of theory that it says it had."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.frame import Frame, FrameError, atomic_number
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.labellers.vasp.reading import MOST_SENTENCES, Trajectory, digest_of, unlabelled_because
from aiida_perovmlip.labellers.vasp.settings import DEFAULTS, DISPERSIONS, departures
from aiida_perovmlip.labellers.vasp.vasprun import Header, Step, Vasprun

NAMES = ('vasprun.xml', 'vasprun.xml.gz')

GGAS = {'PE': 'PBE', 'PS': 'PBEsol', 'RE': 'revPBE', 'RP': 'RPBE', '91': 'PW91', 'CA': 'LDA', 'AM': 'AM05'}
METAGGAS = {'SCAN': 'SCAN', 'R2SCAN': 'r2SCAN', 'RSCAN': 'rSCAN', 'MBJ': 'MBJ', 'TPSS': 'TPSS', 'M06L': 'M06L'}
EXPRESSED = frozenset(
    {'encut', 'ediff', 'prec', 'ismear', 'sigma', 'lasph', 'lreal', 'gga', 'metagga', 'lhfcalc', 'hfscreen', 'aexx'}
    | {'luse_vdw', 'ivdw', 'bparam', 'cparam', 'ispin', 'nupdown', 'nelect', 'kspacing', 'kgamma'}
)
"""Tags that a level of theory, or a frame, expresses by other words."""

WITHOUT_EFFECT = frozenset(
    {'istart', 'icharg', 'iniwav', 'isym', 'symprec', 'pomass', 'rwigs', 'apaco', 'npaco'}
    | {'loptics', 'lepsilon', 'lrpa', 'kpoint_bse'}
)
"""Tags that decide where the SCF cycle starts, what of it is done twice, how atoms move, and what comes behind it."""

IVDW = {1: 'D2', 10: 'D2', 11: 'D3', 12: 'D3BJ', 2: 'TS', 20: 'TS', 202: 'MBD', 4: 'dDsC'}


class RunError(FrameError):
    """A run that gives no labels, or a file that is none; the message says why."""


@dataclass
class VaspRun:
    """What was read of a run.

    :param frames: the labelled frames, read as they are asked for.
    :param skipped: a sentence for steps without a label; complete once the frames have been read.
    :param files: the files that it was read from.
    """

    frames: Iterator[Frame]
    level: Level
    skipped: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


def read_run(path: Path) -> VaspRun:
    """Read a `vasprun.xml`, also compressed with gzip, or a folder with one; raises `RunError`."""
    file = _file_of(path)
    vasprun = Vasprun(file)
    steps = vasprun.steps()
    first = next(steps, None)
    if first is None:
        raise RunError(f'{file}: {vasprun.damage or "it ends before its first step was complete."}')
    header = vasprun.header
    with _readable(file):
        problem = _problem(header)
        if problem:
            raise RunError(f'{file}: {problem}')
        level = level_of_run(header)
    skipped: list[str] = []
    return VaspRun(_frames(vasprun, chain([first], steps), skipped), level, skipped, [file])


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Tell of parameters that are none, such as words in place of numbers."""
    try:
        yield
    except FrameError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        raise RunError(f'{file}: its parameters cannot be read, so the file is damaged: {error}.') from error


def _file_of(path: Path) -> Path:
    """Return the file to read."""
    if path.is_file():
        return path
    found = [path / name for name in NAMES if (path / name).is_file()]
    if not found:
        raise RunError(f'{path}: there is no {" or ".join(NAMES)}.')
    return found[0]


def _problem(header: Header) -> str | None:
    """Return why a run gives no labels at all."""
    if not header.elements or not header.species:
        return 'it does not say which atoms it has.'
    if header.value('nelect') is None or not isinstance(header.value('nelect'), (int, float)):
        return 'it does not say how many electrons it has (NELECT).'
    if int(header.value('icharg') or 0) >= 10:
        return 'its charge density was held fixed (ICHARG), so its energies and forces are no labels.'
    if abs(header.charge - round(header.charge)) > 1e-3:
        return f'its charge is {header.charge:g}, which is not whole.'
    return None


def _frames(vasprun: Vasprun, steps: Iterator[Step], skipped: list[str]) -> Iterator[Frame]:
    """Yield the frame of each step that has a label."""
    header, trajectory, n_skipped = vasprun.header, None, 0
    pending: Frame | None = None  # only a second frame makes a trajectory of the first
    for index, step in enumerate(steps, 1):
        with _readable(vasprun.path):
            reason = unlabelled_because(header, step) or _cut_short(header, step)
        if reason is not None:
            n_skipped += 1
            if n_skipped <= MOST_SENTENCES:
                skipped.append(f'{vasprun.path.name}, step {index}: {reason}.')
            continue
        if trajectory is None:
            with _readable(vasprun.path):
                start = _start(header, step)
            trajectory = Trajectory(start, np.arange(len(start)))
            pending = trajectory.frame(step)
            continue
        if pending is not None:
            trajectory.name = digest_of(pending)
            yield replace(pending, trajectory=trajectory.name)
            pending = None
        yield trajectory.frame(step)
    if pending is not None:
        yield pending
    if n_skipped > MOST_SENTENCES:
        skipped.append(f'{vasprun.path.name}: {n_skipped} steps in all have no label.')
    if not vasprun.is_finished:
        skipped.append(f'{vasprun.damage or vasprun.path.name + ": it ends early"}; steps behind that are lost.')


def _cut_short(header: Header, step: Step) -> str | None:
    """Return why a step is none that converged, although it took fewer SCF steps than it might have."""
    if header.value('lepsilon'):  # the response to a field is listed behind the SCF cycle
        return None
    tolerance = float(header.value('ediff') or 0.0)  # of which there are eight decimals
    if step.change <= max(10 * tolerance, 1e-7):
        return None
    return f'the SCF cycle was stopped while the energy still changed by {step.change:.2g} eV (EDIFF {tolerance:g})'


def _start(header: Header, step: Step) -> Frame:
    """Return the structure of a step without labels."""
    assert step.cell is not None
    assert step.fractions is not None
    spin = header.value('nupdown')
    known = int(header.value('ispin') or 1) == 2 and isinstance(spin, (int, float)) and spin >= 0
    return Frame(
        np.array([atomic_number(element) for element in header.elements], dtype=np.uint8),
        step.fractions @ step.cell,
        step.cell,
        np.ones(3, dtype=bool),
        charge=round(header.charge),
        spin=round(spin) + 1 if known else None,
    )


# ---------------------------------------------------------------------- the level of theory


def level_of_run(header: Header) -> Level:
    """Return the level of theory that VASP says it had."""
    functional = _functional(header)
    return Level(
        labeller='vasp',
        functional=functional,
        cutoff=f'{float(header.value("encut")):g} eV',
        basis='PAW: ' + ', '.join(kind.title for kind in sorted(header.species, key=lambda kind: kind.element)),
        dispersion=_dispersion(header),
        kpoints=_kpoints(header),
        charge='total charge of the cell',
        spin=_spin(header),
        details=_details(header),
    )


def _spin(header: Header) -> str:
    """Return how spin is treated."""
    if header.value('lsorbit'):
        return 'noncollinear with spin-orbit coupling'
    if header.value('lnoncollinear'):
        return 'noncollinear'
    return 'polarised' if int(header.value('ispin') or 1) == 2 else 'restricted'


def _text(header: Header, tag: str) -> str:
    return str(header.value(tag) or '').strip().upper()


def _functional(header: Header) -> str:
    """Return the functional by name, or by its tags where it has none."""
    metagga = _text(header, 'metagga') or str(header.asked.get('metagga', '')).strip().upper()
    gga = _text(header, 'gga')
    if metagga and metagga not in ('--', 'NONE', 'F'):
        base = METAGGAS.get(metagga, f'METAGGA={metagga}')
    elif gga and gga != '--':
        base = GGAS.get(gga, f'GGA={gga}')
    else:  # what the POTCARs were made for
        base = 'PBE' if all('PBE' in kind.title for kind in header.species) else 'of the POTCARs'
    if not header.value('lhfcalc'):
        return base
    screening, share = float(header.value('hfscreen') or 0.0), float(header.value('aexx') or 0.25)
    if base == 'PBE' and share == 0.25 and screening in (0.0, 0.2):
        return 'HSE06' if screening else 'PBE0'
    return f'{base} with {share:g} of exact exchange, screened by {screening:g} 1/Å'


def _dispersion(header: Header) -> str:
    """Return the dispersion correction by name, or by its tags where it has none."""
    number = int(header.value('ivdw') or 0)
    if number:
        return IVDW.get(number, f'IVDW={number}')
    if not header.value('luse_vdw'):
        return ''
    asked = {tag: header.value(tag) for tag in ('bparam', 'cparam')}
    for tags in DISPERSIONS['rVV10'].values():
        if all(asked[tag] is not None and abs(asked[tag] - tags[tag]) < 1e-6 for tag in asked):
            return 'rVV10'
    given = ', '.join(f'{tag.upper()}={value}' for tag, value in asked.items() if value is not None)
    return f'vdW-DF {given}'.strip()


def _kpoints(header: Header) -> str:
    """Return how the Brillouin zone is sampled, in the words of our own settings."""
    if header.mesh is None:
        digest = hashlib.sha256(header.points.encode()).hexdigest()[:8]
        return f'{header.n_kpoints} points of a list ({digest})'
    shift = np.mod(np.round(np.add(header.shift, header.own_shift), 6), 1.0)
    even = np.mod(header.mesh, 2) == 0
    mesh = 'Gamma' if header.mesh == (1, 1, 1) else 'x'.join(map(str, header.mesh))
    if not shift.any():
        return f'{mesh}, Gamma-centred' if even.any() else mesh
    if np.array_equal(shift, 0.5 * even):  # as Monkhorst and Pack have it
        return mesh
    return f'{mesh}, shifted by ' + ' '.join(f'{part:g}' for part in shift)


def _details(header: Header) -> dict[str, Any]:
    """Return whatever else changes the numbers, under the names that our own settings give it."""
    details: dict[str, Any] = {'energy': 'free energy'}
    known = {'ediff': 'ediff_eV', 'ismear': 'ismear', 'sigma': 'sigma_eV', 'prec': 'prec', 'lasph': 'lasph'}
    for tag, name in known.items():
        value = header.value(tag)
        if value is not None:
            details[name] = value.strip().lower() if isinstance(value, str) else value
    details['prec'] = {'accura': 'accurate'}.get(details.get('prec', ''), details.get('prec', ''))
    details['lreal'] = str(header.asked.get('lreal', header.value('lreal')) or 'F').strip('. ').upper()[:1]
    others = _others(header)
    return details | ({'incar': others} if others else {})


def _others(header: Header) -> dict[str, Any]:
    """Return all further tags that may change a label: those of INCAR, and those that VASP says to be unusual."""
    asked = {tag: value for tag, value in header.asked.items() if not tag.startswith('ml_')}
    used = {tag: header.value(tag) for tag in {*asked, *DEFAULTS} if header.value(tag) is not None}
    if header.value('ldau'):
        used |= {tag: header.value(tag) for tag in ('ldautype', 'ldaul', 'ldauu', 'ldauj')}
    return {
        tag: value
        for tag, value in departures(used, DEFAULTS).items()
        if tag not in EXPRESSED | WITHOUT_EFFECT and value is not None
    }
