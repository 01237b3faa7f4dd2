"""Fixtures of the VASP tests: a stand-in for the licensed program, and POTCARs that are no POTCARs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

STAND_IN = Path(__file__).resolve().parents[2] / 'stand_ins' / 'vasp_stand_in.py'


def settings_of(**more: Any) -> dict[str, Any]:
    """Return settings with the family of these tests and a cell that may be small."""
    return {'potential_family': 'no-real-potcars', **more}


@pytest.fixture
def label(vasp_code: Any, family: str) -> Callable[..., tuple[dict[str, Any], Any]]:
    """Return a function that labels a frame by the calculation and returns outputs and node."""
    from aiida import orm
    from aiida.engine import run_get_node

    from aiida_perovmlip.data.dataset import DatasetData
    from aiida_perovmlip.labellers.vasp import Vasp

    def run(frame: Any, repair: str = '', code: Any = None, words: str = '', **more: Any) -> tuple[dict[str, Any], Any]:
        labeller, nodes = Vasp(), more.pop('nodes', {})
        builder = labeller.process.get_builder()
        builder.code = code or vasp_code
        builder.frames = DatasetData.from_frames([replace(frame, energy=None, forces=None, stress=None)])
        for name, value in {**labeller.inputs(orm.Dict(settings_of(**more)), repair), **nodes}.items():
            builder[name] = value
        builder.metadata.options.environment_variables = {'STAND_IN_WORDS': words}
        return run_get_node(builder)

    return run


@pytest.fixture
def shuffled() -> Any:
    """Return a frame of CsPbI3 whose species are mixed up and whose atoms lie off their sites."""
    from aiida_perovmlip.compute.frame import Frame

    sites = np.array([(0, 0.5, 0.5), (0, 0, 0), (0.5, 0, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0)])
    cell = np.array([[6.3, 0.0, 0.0], [0.2, 6.4, 0.0], [0.0, -0.1, 6.2]])
    positions = sites @ cell + np.random.default_rng(3).normal(0, 0.1, (5, 3)) - 0.05
    numbers = np.array([53, 55, 53, 82, 53], np.uint8)
    return Frame(numbers, positions, cell, np.ones(3, bool), group='cubic')


@pytest.fixture(scope='session')
def evaluate(python_of_stand_in: str) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that gives energy, forces and stress of frames by the calculator of the stand-in."""
    return partial(_evaluate, python_of_stand_in)


def _evaluate(python: str, frames: list[Any], charge: int = 0) -> list[dict[str, Any]]:
    """Compute in the Python of the stand-in."""
    import json

    script = (
        'import json, sys\nfrom pathlib import Path\nimport numpy as np\nfrom ase import Atoms\n'
        f'sys.path.insert(0, {str(STAND_IN.parent)!r})\nimport vasp_stand_in as stand_in\n'
        'try:\n    from tblite.ase import TBLite\n'
        '    make = lambda charge: TBLite(method="GFN2-xTB", charge=charge, verbosity=0)\n'
        'except ImportError:\n    make = lambda charge: stand_in.Pairs(charge=charge)\n'
        'out = []\n'
        'for one in json.load(sys.stdin):\n'
        '    charge = one.pop("charge")\n'
        '    atoms = Atoms(**one, pbc=True, calculator=make(charge))\n'
        '    out.append({"energy": atoms.get_potential_energy(), "forces": atoms.get_forces().tolist(),'
        ' "stress": atoms.get_stress().tolist()})\n'
        'json.dump(out, sys.stdout)\n'
    )
    given = [
        {
            'numbers': frame.numbers.tolist(),
            'positions': frame.positions.tolist(),
            'cell': frame.cell.tolist(),
            'charge': charge,
        }
        for frame in frames
    ]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'}
    done = subprocess.run(
        [python, '-c', script],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    return list(json.loads(done.stdout))


@pytest.fixture(scope='session')
def records() -> Iterator[Path]:
    """Return the runs of VASP that aiida-vasp keeps for its own tests; its source distribution holds them."""
    cache = Path.home() / '.cache' / 'aiida-perovmlip' / 'aiida-vasp-records'
    archive = cache / 'aiida_vasp-5.1.0.tar.gz'
    if not archive.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--no-binary', ':all:', '-q', '-d', str(cache)]
        done = subprocess.run([*command, 'aiida-vasp==5.1.0'], capture_output=True, text=True, check=False)
        if done.returncode or not archive.is_file():
            pytest.skip(f'the records of aiida-vasp cannot be downloaded: {done.stderr.strip()[-200:]}')
    folder = Path(tempfile.mkdtemp(prefix='vasp-records-'))
    with tarfile.open(archive) as handle:
        handle.extractall(folder, filter='data')
    yield folder / 'aiida_vasp-5.1.0' / 'tests' / 'test_data'
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope='session')
def learned_text() -> str:
    """Return a small file ML_AB in the layout of VASP, with two configurations and numbers that are made up."""
    return LEARNED.read_text(encoding='utf-8')


LEARNED = Path(__file__).with_name('made_up.ML_AB')
