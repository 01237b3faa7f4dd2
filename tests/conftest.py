"""Fixtures of all tests: an isolated profile, the computer, the codes, small data, and the shared data folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from external_package import install_external_package
from services import Postgres
from sqlalchemy import event
from sqlalchemy.engine import Engine

pytest_plugins = ['aiida.tools.pytest_fixtures']

ROOT = Path(__file__).resolve().parents[1]


os.environ['AIIDA_PATH'] = tempfile.mkdtemp(prefix='perovmlip-tests-')  # never the user's own profiles
install_external_package(
    Path(tempfile.mkdtemp(prefix='perovmlip-external-'))
)  # before collection: the contract tests ask which plug-ins there are


@event.listens_for(Engine, 'connect')
def _leave_it_to_the_system(connection: Any, _: Any) -> None:
    """Do not wait for the disk at each of the many commits of a job: no test survives a loss of power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute('PRAGMA synchronous=OFF')


class Failures:
    """Prints each failure at once: a run that is cut off tells what it saw."""

    def __init__(self, printer: Any) -> None:
        self.printer = printer

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print a failure."""
        if report.failed:
            said = report.longreprtext[-3000:]
            self.printer.write_line(f'\nFAILED {report.nodeid} ({report.when}, {report.duration:.1f} s)\n{said}')
            self.printer.flush()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Print failures where this is the process that prints."""
    if (printer := config.pluginmanager.get_plugin('terminalreporter')) is not None:
        config.pluginmanager.register(Failures(printer))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests, so that no worker is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker('slow')}
    items.sort(key=lambda item: item.path not in slow)


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


IN_ARCHIVE = """
import json, sys
from aiida import load_profile
from aiida.storage.sqlite_zip.backend import SqliteZipBackend

load_profile(SqliteZipBackend.create_profile(sys.argv[1]))
exec(sys.argv[2])
print('ANSWER', json.dumps(answer))
"""


@pytest.fixture(scope='session')
def in_archive() -> Callable[[Path, str], Any]:
    """Return a function that runs code with an archive as the profile and returns what it called `answer`.

    Another process does it: a profile that is switched closes the storage of all nodes that tests keep.
    """

    def run(archive: Path, code: str) -> Any:
        command = [sys.executable, '-W', 'ignore', '-c', IN_ARCHIVE, str(archive), code]
        environment = {**os.environ, 'AIIDA_PATH': str(archive.parent)}
        there = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert there.returncode == 0, there.stderr
        line = next(line for line in there.stdout.splitlines() if line.startswith('ANSWER'))
        return json.loads(line.removeprefix('ANSWER '))

    return run


BROWSER = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
    *('--enable-logging=stderr', '--v=0', '--virtual-time-budget=5000', '--window-size=1280,900'),
)

LISTEN = """<script>
window.failures = [];
window.addEventListener('error', (event) => window.failures.push(event.message));
document.addEventListener('securitypolicyviolation', (event) => window.failures.push(event.violatedDirective));
</script>"""

LOOK = """<script>
window.addEventListener('load', () => {
  const boxes = {};
  for (const figure of document.querySelectorAll('figure')) {
    const box = figure.querySelector('svg, canvas').getBoundingClientRect();
    boxes[figure.id] = [box.width, box.height];
  }
  const saved = [];
  HTMLAnchorElement.prototype.click = function save() { saved.push(this.download); };  // nothing is left on the disk
  for (const button of document.querySelectorAll('thead button, .tools button, .turn button')) button.click();
  for (const dialog of document.querySelectorAll('dialog')) dialog.close();
  const painted = Array.from(document.querySelectorAll('canvas'), (canvas) =>
    canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some((part) => part !== 0));
  const page = [document.documentElement.scrollWidth, innerWidth];
  setTimeout(() => {
    document.body.dataset.seen = JSON.stringify({ boxes, painted, page, saved, failures: window.failures });
  }, 300);
});
</script>"""


@pytest.fixture(scope='session')
def visit() -> Callable[..., tuple[Any, list[str]]]:
    """Return a function that shows a page in a browser and returns what a script saw, and all that it complained of."""
    chromium = shutil.which('chromium')
    if chromium is None:
        pytest.skip('there is no `chromium` on the PATH; `apt-get install chromium` brings it.')

    def show(page: str, folder: Path, script: str = LOOK) -> tuple[Any, list[str]]:
        page = page.replace('<head>', f'<head>{LISTEN}', 1).replace('</body>', f'{script}</body>', 1)
        (folder / 'shown.html').write_text(page, encoding='utf-8')
        place = (f'--user-data-dir={folder / "browser"}', '--dump-dom', (folder / 'shown.html').as_uri())
        done = subprocess.run([chromium, *BROWSER, *place], capture_output=True, text=True, check=False, timeout=300)
        match = re.search(r'data-seen="([^"]*)"', done.stdout)
        assert match, f'the page was not shown (exit status {done.returncode}): {done.stderr[-2000:]}'
        return json.loads(unescape(match.group(1))), [line for line in done.stderr.splitlines() if 'CONSOLE' in line]

    return show


@pytest.fixture
def check_page(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Return a function that writes the page of nodes with all its figures, looks at both, and returns the page.

    With PEROVMLIP_PAGES, a folder, the pages stay there to be looked at by a person.
    """

    def check(nodes: Any, *figures: str) -> str:
        from aiida_perovmlip.report.writing import page_of, render, write_report

        path = write_report(nodes, tmp_path / 'page.html', tmp_path / 'figures')
        page = path.read_text(encoding='utf-8')
        names = re.findall(r' id="([^"]+)"', page)
        assert len(names) == len(set(names))
        assert set(re.findall(r'href="#([^"]+)"', page)) <= set(names)
        assert path.with_suffix('.bib').read_text(encoding='utf-8').count('@article{') >= 2
        assert not re.search(r'>\s*(nan|None|inf|\{\})\s*<', page)
        made = page_of(nodes, '2025-01-01T00:00:00+00:00')
        assert render(made) == render(page_of(nodes, '2025-01-01T00:00:00+00:00'))
        written = {drawing.name for drawing in made.drawings}
        assert set(figures) <= written, written
        for drawing in made.drawings:
            kinds = ('svg',) if drawing.figure is None else ('pdf', 'svg', 'png', 'csv')
            sizes = {kind: (tmp_path / 'figures' / f'{drawing.name}.{kind}').stat().st_size for kind in kinds}
            assert all(size > (30 if kind == 'csv' else 500) for kind, size in sizes.items()), (drawing.name, sizes)
        seen, console = request.getfixturevalue('visit')(page, tmp_path)
        assert (seen['failures'], console) == ([], [])
        assert all(width > 100 and height > 50 for width, height in seen['boxes'].values()), seen['boxes']
        assert all(seen['painted'])
        plots = [drawing for drawing in made.drawings if drawing.figure is not None]
        assert {f'{drawing.name}.svg' for drawing in made.drawings} <= set(seen['saved'])
        assert {f'{plot.name}.csv' for plot in plots if plot.readout} <= set(seen['saved'])
        assert seen['page'][0] <= seen['page'][1]
        if 'PEROVMLIP_PAGES' in os.environ:
            shutil.copy(path, Path(os.environ['PEROVMLIP_PAGES']) / f'{request.node.name}.html')
        return page

    return check


@pytest.fixture(scope='session')
def postgres() -> Iterator[Callable[[], dict[str, Any]]]:
    """Start a PostgreSQL of our own; return a function that makes a database in it and tells how AiiDA reaches it."""
    if lack := Postgres.lack():
        pytest.skip(lack)
    folder = Path(tempfile.mkdtemp(prefix='perovmlip-postgres-'))
    service = Postgres(folder)
    service.start()
    try:
        yield service.database
    finally:
        service.stop()
        shutil.rmtree(folder)


@pytest.fixture
def localhost(aiida_localhost: Any) -> Any:
    """Return this machine as a computer that answers at once."""
    aiida_localhost.set_minimum_job_poll_interval(0.3)
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
def without_codes() -> Iterator[None]:
    """Hide the codes that other tests have made, for as long as a test runs."""
    from aiida_perovmlip.installation.profile import find_codes

    hidden = find_codes()
    for code in hidden:
        code.is_hidden = True
    yield
    for code in hidden:
        code.is_hidden = False


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
def kill_with_its_program(processes_in: Any) -> Callable[[Any, Path, str], None]:
    """Return a function that kills a run once its second state is saved, and sees that its program dies with it."""

    def kill(process: Any, folder: Path, program: str) -> None:
        try:
            while process.poll() is None and not (folder / 'checkpoint' / '000002').is_dir():
                time.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        for _ in range(100):
            if not processes_in(folder / program):
                break
            time.sleep(0.1)
        assert processes_in(folder / program) == []

    return kill


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


@pytest.fixture(scope='session')
def write_trajectory(add_step: Any) -> Callable[..., Any]:
    """Return a function that leaves frames and rows of a made-up run in a folder; a step always looks the same."""
    from aiida_perovmlip.compute.trajectory import ChunkWriter, MovingAtoms, Trajectory

    def write(folder: Path, steps: Any, most_bytes: int = 800, velocities: bool = False, **fields: Any) -> Trajectory:
        atoms = MovingAtoms(
            np.array([55, 82, 53, 53]), fields.get('masses', np.array([132.9, 207.2, 126.9, 126.9])), np.ones(3, bool)
        )
        writer = ChunkWriter(folder, atoms, most_bytes)
        for step in steps:
            add_step(writer, step, velocities, fields.get('thermo', True))
        writer.close()
        return Trajectory.open_folder(folder, fields.get('timestep', 2.0))

    return write


@pytest.fixture(scope='session')
def add_step() -> Callable[..., None]:
    """Return a function that adds frame and row of a step of a made-up run, whose last of four atoms walks along x."""

    def add(writer: Any, step: int, velocities: bool = False, thermo: bool = True) -> None:
        rng = np.random.default_rng(step)
        positions = 3.0 * np.arange(4)[:, None] + rng.normal(0, 0.1, (4, 3))
        positions[3, 0] += step
        if thermo:
            writer.thermo(step, temperature=300 + step % 7, stress=np.arange(6.0) * step)
        speeds = rng.normal(0, 3, (4, 3)) if velocities else None
        writer.frame(step, positions, (12 + 1e-4 * step) * np.eye(3), speeds)

    return add


@pytest.fixture(scope='session')
def copper() -> Any:
    """Return eight cubic cells of copper, the host of vacancies."""
    from ase.build import bulk

    return bulk('Cu', cubic=True) * (2, 2, 2)


@pytest.fixture
def copper_hop(copper: Any) -> list[Any]:
    """Return the straight path of seven images on which an atom of copper hops into a vacancy."""
    from aiida_perovmlip.structures.hops import vacancy_hops
    from aiida_perovmlip.structures.paths import linear

    (hop, *_) = vacancy_hops(copper, 'Cu', 3.0)
    return linear(*hop.ends(copper, charge=1), 5)


@pytest.fixture
def copper_potential(python_code: Any, copper: Any, copper_hop: list[Any]) -> Callable[..., Any]:
    """Return a function that gives a pair potential trained on EMT, which is another one for each seed."""
    from aiida.engine import run_get_node
    from ase import Atoms
    from ase.calculators.emt import EMT

    from aiida_perovmlip.calculations.train import TrainCalculation
    from aiida_perovmlip.compute.frame import Frame
    from aiida_perovmlip.data.dataset import DatasetData

    def rattled(atoms: Any, seed: int) -> Frame:
        atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
        atoms.positions += np.random.default_rng(seed).normal(0, 0.1, atoms.positions.shape)
        atoms.calc = EMT()
        atoms.get_forces()
        return Frame.from_atoms(atoms)

    def make(seed: int = 0) -> Any:
        if seed not in COPPER:
            frames = [rattled(atoms, 1000 * seed + number) for number, atoms in enumerate([copper, *copper_hop] * 4)]
            builder = TrainCalculation.get_builder()
            builder.code, builder.architecture = python_code, 'reference'
            builder.training = DatasetData.from_frames(frames, {'labeller': 'emt', 'functional': 'EMT'}).store()
            builder.settings = {'cutoff': 4.0, 'basis_size': 8}
            outputs, node = run_get_node(builder)
            assert node.is_finished_ok, node.exit_message
            COPPER[seed] = outputs['potential']
        return COPPER[seed]

    return make


COPPER: dict[int, Any] = {}
"""Potentials of copper by seed; each is trained once."""
