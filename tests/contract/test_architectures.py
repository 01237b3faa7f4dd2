"""What every architecture has to fulfil; one that is registered is tested."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import Architecture, PotentialFacts, Training
from aiida_perovmlip.compute.checkpoint import Checkpoint
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.plugin import versions_of
from aiida_perovmlip.compute.settings import SettingsError, describe_settings, read_settings
from aiida_perovmlip.compute.shard import build_shards

NAMES = [name for name in registry.names('architectures') if name != 'unruly']
HERE = [
    name for name in NAMES if 'missing' not in versions_of(registry.load('architectures', name).packages()).values()
]
"""Those whose package is installed beside the tests; the others run their own physics in `integration`."""


@pytest.fixture(params=NAMES)
def architecture(request) -> Architecture:
    return registry.load('architectures', request.param)()


@pytest.fixture(scope='module', params=HERE)
def trained(request, tmp_path_factory, make_frames):
    """Return an architecture, its potential, and frames that it has not seen."""
    architecture = registry.load('architectures', request.param)()
    folder = tmp_path_factory.mktemp(request.param)
    (folder / 'potential').mkdir()
    reports: list[dict] = []
    training = Training(
        folder=folder,
        training=write_folder(build_shards(make_frames(12)), folder / 'training'),
        validation=write_folder(build_shards(make_frames(3, seed=1)), folder / 'validation'),
        settings=architecture.Settings(),
        seed=0,
        device='cpu',
        cores=1,
        checkpoint=Checkpoint(folder / 'checkpoint', request.param),
        report=reports.append,
    )
    result = architecture.train(training)
    assert reports
    assert result.curve
    return architecture, folder / 'potential', make_frames(2, seed=2)


def test_it_says_who_it_is(architecture):
    assert registry.load('architectures', architecture.name) is type(architecture)
    assert type(architecture).__doc__
    assert dataclasses.is_dataclass(architecture.Settings)
    assert all(row['help'] for row in describe_settings(architecture.Settings))


def test_it_refuses_rubbish(architecture):
    with pytest.raises(SettingsError, match='unknown setting'):
        read_settings(architecture.Settings, {'no_such_setting': 1})


def test_its_protocols_are_valid(architecture):
    for sentence, settings in architecture.protocols.values():
        assert sentence.endswith('.')
        read_settings(architecture.Settings, settings)


def test_what_a_parent_decides_are_settings_and_facts_of_a_potential(architecture):
    settings = {field.name for field in dataclasses.fields(architecture.Settings)}
    facts = {field.name for field in dataclasses.fields(PotentialFacts)}
    assert set(architecture.shape) <= settings
    assert set(architecture.known_shape) <= set(architecture.shape)
    assert set(architecture.known_shape.values()) <= facts
    assert 'cutoff' in architecture.known_shape.values() or not architecture.shape


def test_its_module_is_light(architecture):
    """Importing it loads neither AiiDA nor the package of the architecture."""
    module = type(architecture).__module__
    heavy = ('aiida', 'torch', 'mace', 'nequip', 'calorine')
    code = f'import sys, {module}; print([m for m in {heavy} if m in sys.modules])'
    path = str(Path(sys.modules[module].__file__).parent)
    found = subprocess.run(
        [sys.executable, '-c', code], check=True, capture_output=True, text=True, env={'PYTHONPATH': path}
    )
    assert found.stdout.strip() == '[]'


def test_its_potential_says_what_is_in_it(trained):
    architecture, potential, _ = trained
    facts = architecture.facts(potential)
    assert facts.elements == ('Cs', 'I', 'Pb')
    assert facts.cutoff > 0
    assert facts.n_parameters > 0


def test_its_potential_shows_the_settings_of_its_shape(trained):
    architecture, potential, _ = trained
    settings = architecture.Settings()
    assert architecture.shape_of(potential, settings) == {name: getattr(settings, name) for name in architecture.shape}


def test_forces_are_the_slope_of_the_energy(trained):
    architecture, potential, frames = trained
    calculator = architecture.calculator(potential)
    atoms = frames[0].to_atoms(labels=False)
    atoms.calc = calculator
    forces, step = atoms.get_forces(), 1e-4
    for atom, axis in ((0, 0), (17, 1), (39, 2)):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = calculator
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-5)


def test_stress_is_the_slope_under_strain(trained):
    architecture, potential, frames = trained
    calculator = architecture.calculator(potential)
    atoms = frames[0].to_atoms(labels=False)
    atoms.calc = calculator
    stress, volume, step = atoms.get_stress(), atoms.get_volume(), 1e-5
    for index, (a, b) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] = strain[b, a] = sign * step * (1 if a == b else 0.5)
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
            strained.calc = calculator
            energies.append(strained.get_potential_energy())
        assert stress[index] == pytest.approx((energies[0] - energies[1]) / (2 * step * volume), abs=1e-6)


def test_it_knows_no_direction_no_origin_and_no_order(trained):
    architecture, potential, frames = trained
    calculator = architecture.calculator(potential)
    atoms = frames[1].to_atoms(labels=False)
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    order = np.random.default_rng(0).permutation(len(atoms))
    turned = atoms[order]
    turned.rotate(37, (1, 2, 3), rotate_cell=True)
    turned.translate((0.3, -2.0, 11.0))
    turned.wrap()
    turned.calc = calculator
    assert turned.get_potential_energy() == pytest.approx(energy, abs=1e-6)
    assert np.allclose(np.linalg.norm(turned.get_forces(), axis=1), np.linalg.norm(forces[order], axis=1), atol=1e-6)


def test_predictions_are_those_of_the_calculator(trained):
    architecture, potential, frames = trained
    calculator = architecture.calculator(potential)
    for frame, prediction in zip(frames, architecture.predict(potential, frames), strict=True):
        atoms = frame.to_atoms(labels=False)
        atoms.calc = calculator
        assert prediction.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert np.allclose(prediction.forces, atoms.get_forces(), atol=1e-8)
        assert np.allclose(prediction.stress, atoms.get_stress(), atol=1e-8)
