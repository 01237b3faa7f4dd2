"""Fixtures of the labellers: CP2K where it is installed, a stand-in for VASP, and POTCARs that are no POTCARs."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ('cp2k.psmp', 'cp2k.popt', 'cp2k.ssmp', 'cp2k.sopt')


@pytest.fixture
def cp2k_code(localhost: Any) -> Any:
    """Return CP2K of this machine, with one thread; skip where there is none."""
    from aiida import orm

    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f'there is none of {", ".join(PROGRAMS)} on this machine; on Debian: apt-get install cp2k')
    try:
        return orm.load_code(f'cp2k@{localhost.label}')
    except Exception:
        code = orm.InstalledCode(
            label='cp2k',
            computer=localhost,
            filepath_executable=program,
            prepend_text='export OMP_NUM_THREADS=1\nexport OPENBLAS_NUM_THREADS=1',
        )
        return code.store()


STAND_IN = Path(__file__).resolve().parents[1] / 'stand_ins' / 'vasp_stand_in.py'
FAMILY = 'no-real-potcars'
VALENCES = {'H': 1, 'C': 4, 'N': 5, 'I': 7, 'Pb': 4, 'Cs': 9, 'Si': 4}
NAMES = {'Cs': 'Cs_sv'}
TITLES = {'Si': 'PAW_PBE Si 05Jan2001', 'H': 'PAW_PBE H 15Jun2001', 'N': 'PAW_PBE N 08Apr2002'}


def potcar_text(element: str, valence: float, title: str) -> str:
    """Return what aiida-vasp and the stand-in look at in a POTCAR; there is no potential in it."""
    return (
        f'  {title}\n {valence:.8f}\n parameters from PSCTR are:\n   VRHFIN ={element}: made up\n   LEXCH  = PE\n'
        f'   TITEL  = {title}\n   POMASS =    1.000; ZVAL   =    {valence:.3f}    mass and valenz\n'
        f'   ENMAX  =  200.000; ENMIN  =  150.000 eV\n END of PSCTR-controll parameters\n End of Dataset\n'
    )


@pytest.fixture(scope='session')
def family(aiida_profile: Any) -> str:
    """Return the name of a family of POTCARs that are written here and hold no potential."""
    from aiida_vasp.data.potcar import PotcarData

    folder = Path(tempfile.mkdtemp(prefix='no-potcars-')) / FAMILY
    for element, valence in VALENCES.items():
        name = NAMES.get(element, element)
        place = folder / name
        place.mkdir(parents=True)
        (place / 'POTCAR').write_text(potcar_text(element, valence, TITLES.get(element, f'PAW_PBE {name} 00Xxx0000')))
    PotcarData.upload_potcar_family(folder, FAMILY, 'Made up for tests', stop_if_existing=False)
    return FAMILY


@pytest.fixture(scope='session')
def python_of_stand_in() -> str:
    """Return the Python of the environment of tblite, else the one that runs the tests."""
    from aiida_perovmlip.installation import environments

    found = environments.python_of('tblite')
    return str(found) if found is not None else sys.executable


def make_executable(path: Path, *lines: str) -> Path:
    """Write a shell script that can be run."""
    path.write_text('\n'.join(['#!/bin/sh', *lines, '']))
    path.chmod(0o755)
    return path


@pytest.fixture(scope='session')
def stand_in(python_of_stand_in: str) -> Path:
    """Return an executable that stands in for VASP."""
    folder = Path(tempfile.mkdtemp(prefix='vasp-stand-in-'))
    return make_executable(
        folder / 'vasp_stand_in',
        'export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1',
        f'exec {python_of_stand_in} {STAND_IN}',
    )


@pytest.fixture
def vasp_code(make_code: Any, stand_in: Path) -> Any:
    """Return the code of the stand-in."""
    return make_code('vasp-stand-in', stand_in)
