"""Molecular dynamics of CsPbI3 with NEP89: killed on the way, and beside ASE alone."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest
from aiida.engine import run_get_node
from ase import Atoms

from aiida_perovmlip.calculations.md import MdCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.installation import environments
from aiida_perovmlip.workflows.md import MdWorkChain

pytestmark = pytest.mark.slow

PLACES = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]

BARE = """
import json
import numpy as np
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from calorine.calculators import CPUNEP

known = json.load(open('start.json'))
atoms = Atoms(known['numbers'], known['positions'], cell=known['cell'], pbc=True)
atoms.calc = CPUNEP('nep.txt')
dynamics = VelocityVerlet(atoms, known['timestep'] * units.fs)
times, energies = [], []
dynamics.attach(lambda: (times.append(dynamics.nsteps), energies.append(atoms.get_total_energy())), interval=10)
dynamics.run(known['steps'])
json.dump({'times': times, 'energies': energies, 'positions': atoms.positions.tolist()}, open('bare.json', 'w'))
"""


def crystal() -> Atoms:
    """Return a cubic crystal, shaken so that its octahedra can tilt."""
    atoms = Atoms('PbCsI3', scaled_positions=PLACES, cell=3 * [6.29], pbc=True).repeat(2)
    atoms.positions += np.random.default_rng(0).normal(0, 0.1, atoms.positions.shape)
    return atoms


def test_three_segments_one_of_which_is_killed_are_the_run_that_never_stopped(plugin_code, store_nep):
    code, potential, start = plugin_code('nep'), store_nep('nep89_CsPbI.txt'), DatasetData.from_ase([crystal()])
    settings = {'ensemble': 'npt', 'cell': 'orthogonal', 'temperature': [300, 400], 'timestep': 2.0, 'steps': 300}
    settings |= {'frames_every': 20, 'thermo_every': 5, 'save_every': 20, 'velocities': True}

    def simulate(**inputs: Any) -> Any:
        known = {'protocol': 'fast', 'settings': settings, **inputs}
        return run_get_node(MdWorkChain.get_builder_from_protocol(code, potential, start, **known))

    whole, node = simulate()
    assert node.is_finished_ok, node.exit_message
    kill = """
if grep -q '"step": 100}' state/about.json 2>/dev/null; then
    ( until [ -e checkpoint/000002 ]; do sleep 0.01; done; pkill -9 -P $$ -f compute.harness ) &
fi"""
    parts, node = simulate(segment_steps=100, options={'prepend_text': kill})
    assert node.is_finished_ok, node.exit_message
    legs = parts['results']['legs']
    assert [leg['exit_status'] for leg in legs] == [0, 310, 0, 0]
    assert legs[1]['step'] % 20 == 0
    assert 140 <= legs[1]['step'] < 200
    assert parts['trajectory'].trajectory.steps().tolist() == list(range(0, 301, 20))
    assert parts['trajectory'].content_hash == whole['trajectory'].content_hash
    for name in ('temperature', 'pressure', 'volume', 'potential_energy'):
        assert parts['results'][name] == whole['results'][name]
    assert parts['results']['temperature']['mean'] == pytest.approx(350, abs=60)


def test_the_drift_of_the_energy_is_that_of_ase_alone(plugin_code, store_nep, shared_data, tmp_path):
    code, potential, atoms = plugin_code('nep'), store_nep('nep89_CsPbI.txt'), crystal()
    builder = MdCalculation.get_builder()
    builder.code, builder.potential, builder.start = code, potential, DatasetData.from_ase([atoms])
    settings = {'ensemble': 'nve', 'initial_temperature': 0.0, 'timestep': 2.0, 'steps': 1000, 'thermo_every': 10}
    builder.settings = {**settings, 'frames_every': 1000}
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    known = {'numbers': atoms.numbers.tolist(), 'positions': atoms.positions.tolist(), 'cell': atoms.cell.tolist()}
    (tmp_path / 'start.json').write_text(json.dumps({**known, 'timestep': 2.0, 'steps': 1000}))
    (tmp_path / 'nep.txt').write_bytes((shared_data / 'nep89' / 'nep89_CsPbI.txt').read_bytes())
    subprocess.run([str(environments.python_of('nep')), '-c', BARE], cwd=tmp_path, check=True)
    bare = json.loads((tmp_path / 'bare.json').read_text())
    times = np.array(bare['times']) * 0.002
    drift = np.polyfit(times, 1000 * np.array(bare['energies']) / len(atoms), 1)[0]
    assert outputs['results']['drift']['slope'] == pytest.approx(drift, rel=1e-3)
    assert abs(outputs['results']['drift']['slope']) < 0.5
    assert np.allclose(outputs['trajectory'].frame(-1).positions, bare['positions'], atol=1e-4)
