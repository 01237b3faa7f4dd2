"""Fixtures of all tests: an isolated profile, the computer, the codes, small data, and the shared data folder."""

from __future__ import annotations

import os
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest_plugins = ['aiida.tools.pytest_fixtures']

ROOT = Path(__file__).resolve().parents[1]


def install_external_package() -> None:
    """Make the package in `tests/external` importable with its entry points, as an installation would."""
    source = ROOT / 'tests' / 'external'
    project = tomllib.loads((source / 'pyproject.toml').read_text())['project']
    site = Path(tempfile.mkdtemp(prefix='perovmlip-external-'))
    info = site / f'{project["name"].replace("-", "_")}-{project["version"]}.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {project["name"]}\nVersion: {project["version"]}\n')
    groups = [
        f'[{group}]\n' + ''.join(f'{name} = {value}\n' for name, value in points.items())
        for group, points in project['entry-points'].items()
    ]
    (info / 'entry_points.txt').write_text('\n'.join(groups))
    sys.path[:0] = [str(source), str(site)]


os.environ['AIIDA_PATH'] = tempfile.mkdtemp(prefix='perovmlip-tests-')  # never the user's own profiles
install_external_package()  # before collection: the contract tests ask which plug-ins there are


@pytest.fixture(scope='session', autouse=True)
def aiida_profile(aiida_config: Any, aiida_profile_factory: Any) -> Iterator[Any]:
    """Load an empty profile in a temporary folder: SQLite and the built-in broker, as `setup` makes them."""
    with aiida_profile_factory(
        aiida_config, broker_backend='core.zeromq', broker_config={'supervised_by_daemon': False}
    ) as profile:
        yield profile


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Return the folder of real structures and DFT sets, which is not part of the repository."""
    folder = Path(os.environ.get('PEROVMLIP_SHARED_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'there is no folder of shared data at {folder}; name it by PEROVMLIP_SHARED_DATA.')
    return folder


@pytest.fixture
def localhost(aiida_localhost: Any) -> Any:
    """Return this machine as a computer that answers at once."""
    aiida_localhost.set_minimum_job_poll_interval(0.1)
    aiida_localhost.configure(safe_interval=0, use_login_shell=False)
    return aiida_localhost


@pytest.fixture
def make_code(localhost: Any) -> Callable[[str, str | Path], Any]:
    """Return a function that registers a Python as a code."""
    from aiida import orm

    def make(label: str, python: str | Path) -> Any:
        try:
            return orm.load_code(f'{label}@{localhost.label}')
        except Exception:
            code = orm.InstalledCode(label=label, computer=localhost, filepath_executable=str(python))
            return code.store()

    return make


@pytest.fixture
def python_code(make_code: Any) -> Any:
    """Return the Python that runs the tests: enough for plug-ins that need only numpy and ase."""
    return make_code('python', sys.executable)


@pytest.fixture
def plugin_code(make_code: Any) -> Callable[[str], Any]:
    """Return a function that gives the code of a plug-in whose environment was built, or skips the test."""
    from aiida_perovmlip.installation import environments

    def find(name: str) -> Any:
        python = environments.python_of(name)
        if python is None:
            pytest.skip(f'no environment of {name}; build it: aiida-perovmlip setup --environments-only --with {name}')
        return make_code(name, python)

    return find


def pair_energy(positions: Any, numbers: Any, cell: Any) -> tuple[float, Any, Any]:
    """Return energy, forces and Voigt stress of a made-up pair potential in a cubic cell (minimum image).

    A pair interacts by ε (1 - (r/R)²)³, which is smooth and zero at R.
    """
    reach, length = 5.0, cell[0, 0]
    vectors = positions[None] - positions[:, None]
    vectors -= length * np.round(vectors / length)
    square = (vectors**2).sum(-1)
    scale = 0.5 * (numbers[:, None] + numbers[None]) / 50
    inside = (square < reach**2) & (square > 0)
    core = np.where(inside, 1 - square / reach**2, 0.0)
    energy = 0.5 * (scale * core**3 * inside).sum()
    slope = -6 * scale * core**2 / reach**2 * inside  # dE/dr / r
    forces = (slope[..., None] * vectors).sum(1)
    tensor = 0.5 * np.einsum('ij,ija,ijb->ab', slope, vectors, vectors) / length**3
    return float(energy), forces, tensor[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]


@pytest.fixture(scope='session')
def make_frames() -> Callable[..., list[Any]]:
    """Return a function that makes labelled CsPbI3-like frames, different for each seed."""
    from aiida_perovmlip.compute.frame import Frame

    def make(count: int, seed: int = 0, labels: bool = True, **fields: Any) -> list[Frame]:
        rng = np.random.default_rng(seed)
        numbers = np.array([55, 82, 53, 53, 53] * 8, dtype=np.uint8)
        sites = np.array([(0, 0, 0), (0.5, 0.5, 0.5), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.5, 0.5, 0)])
        corners = np.array([(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        frames = []
        for _ in range(count):
            length = 12.5 * rng.uniform(0.97, 1.03)
            positions = (corners[:, None] + sites[None]).reshape(-1, 3) * length / 2
            positions = positions + rng.normal(0, 0.15, positions.shape)
            cell, pbc = length * np.eye(3), np.ones(3, dtype=bool)
            known: dict[str, Any] = {}
            if labels:
                energy, forces, stress = pair_energy(positions, numbers, cell)
                known = {'energy': energy - 100.0 * len(numbers), 'forces': forces, 'stress': stress}
            frames.append(Frame(numbers, positions, cell, pbc, **known, **fields))
        return frames

    return make


LEVEL = {'labeller': 'test', 'functional': 'pairs'}


@pytest.fixture(scope='session')
def processes_in() -> Callable[[Path], list[int]]:
    """Return a function that gives the ids of all processes that work in a folder, as Linux tells in /proc."""

    def find(folder: Path) -> list[int]:
        found = []
        for process in Path('/proc').glob('[0-9]*'):
            try:
                if (process / 'cwd').readlink() == folder and (process / 'stat').read_text().split()[2] != 'Z':
                    found.append(int(process.name))
            except OSError:
                continue
        return found

    return find


@pytest.fixture(scope='session')
def level() -> dict[str, str]:
    """Return the level of theory of the made-up labels."""
    return LEVEL


@pytest.fixture
def make_dataset(make_frames: Any) -> Callable[..., Any]:
    """Return a function that makes an unstored dataset of made-up frames."""
    from aiida_perovmlip.data.dataset import DatasetData

    def make(count: int, seed: int = 0, **fields: Any) -> Any:
        return DatasetData.from_frames(make_frames(count, seed, **fields), LEVEL)

    return make
