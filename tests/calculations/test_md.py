"""Molecular dynamics as a job: what it leaves, and what it refuses before there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.build import bulk

from aiida_perovmlip.calculations.md import MdCalculation
from aiida_perovmlip.compute.architectures.reference import Reference
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.remote_chunks import MissingChunkError

SHORT = {'steps': 20, 'timestep': 2.0, 'frames_every': 5, 'thermo_every': 2}
ATOMS = bulk('Cu', cubic=True) * (2, 1, 1)


@pytest.fixture
def potential(copper_potential: Any) -> Any:
    return copper_potential()


@pytest.fixture
def start() -> DatasetData:
    """Return a charged crystal as the dataset of one frame."""
    return DatasetData.from_frames([Frame.from_atoms(ATOMS, charge=1, group='fcc')])


@pytest.fixture
def simulate(run_job: Any, potential: Any, start: DatasetData) -> Any:
    """Return a function that runs a job and returns its outputs and its node."""

    def run(settings=None, options=None, **inputs: Any) -> tuple[Any, Any]:
        known = {'potential': potential, 'start': start, 'settings': {**SHORT, **(settings or {})}}
        return run_job(MdCalculation, options, **{**known, **inputs})

    return run


def test_a_job_leaves_trajectory_state_and_what_they_tell(simulate, potential):
    outputs, node = simulate({'velocities': True, 'masses': {'Cu': 100.0}, 'ensemble': 'nve'})
    assert node.is_finished_ok, node.exit_message
    trajectory = outputs['trajectory']
    known = trajectory.base.attributes
    assert (known.get('first_step'), known.get('last_step'), known.get('every')) == (0, 20, 5)
    assert (known.get('engine'), known.get('ensemble'), known.get('charge')) == ('ase', 'nve', 1)
    assert trajectory.trajectory.atoms.masses.tolist() == [100.0] * 8
    assert known.get('has_velocities')
    level = trajectory.run.level
    assert (level.labeller, level.details['content_hash']) == ('potential', potential.content_hash)
    assert outputs['state'].base.attributes.get('step') == 20
    results = outputs['results']
    assert (results['step'], results['n_steps'], results['begun_at_step'], results['n_frames']) == (20, 20, 0, 5)
    assert results['effective']['integrator'] == {'class': 'VelocityVerlet'}
    assert results['atom_steps_per_second'] > 0
    times, energies = trajectory.trajectory.thermo('conserved')
    assert results['drift']['slope'] == pytest.approx(np.polyfit(times, 1000 * energies / 8, 1)[0])
    assert results['temperature']['mean'] == pytest.approx(trajectory.trajectory.thermo('temperature')[1].mean())
    assert results['temperature']['n'] == 11
    assert results['pressure']['error'] > 0
    assert node.process_label == 'Md<ase, reference>'


def test_a_job_without_time_leaves_a_state_from_which_the_next_goes_on(simulate):
    settings = {'steps': 10**6, 'frames_every': 100}
    outputs, node = simulate(settings, {'max_wallclock_seconds': 2})
    assert node.exit_status == MdCalculation.exit_codes.ERROR_OUT_OF_WALLTIME.status
    assert 'of 1000000 steps were left. Go on from the output `state`' in node.exit_message
    step = outputs['state'].base.attributes.get('step')
    assert outputs['results']['step'] == step > 0
    outputs, node = simulate(settings, state=outputs['state'], segment_steps=7)
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['begun_at_step'] == step
    assert outputs['state'].base.attributes.get('step') == step + 7
    assert outputs['trajectory'].trajectory.thermo('temperature')[0][0] > step * 0.002


def test_a_run_that_explodes_has_an_exit_code_of_its_own_and_leaves_candidates(simulate):
    outputs, node = simulate({'max_force': 0.5, 'steps': 1000, 'n_candidates': 3, 'temperature': 600.0})
    assert node.exit_status == MdCalculation.exit_codes.ERROR_EXPLODED.status
    assert 'The run exploded at step' in node.exit_message
    candidates = outputs['candidates']
    assert 0 < len(candidates) <= 3
    assert candidates.labels == []
    assert (candidates[0].charge, candidates[0].group) == (1, 'fcc')
    assert {frame.trajectory for frame in candidates} == {candidates[0].trajectory} != {''}
    assert 'state' not in outputs
    assert outputs['trajectory'].base.attributes.get('last_step') <= outputs['results']['exploded_at_step']
    assert len(outputs['results']['candidates']) == len(candidates)


def test_frames_can_stay_where_they_were_made(simulate):
    here, _ = simulate()
    there, node = simulate(options={'keep_remote': True})
    assert node.is_finished_ok, node.exit_message
    assert there['trajectory'].is_remote
    assert there['trajectory'].content_hash == here['trajectory'].content_hash
    assert np.array_equal(there['trajectory'].frame(-1).positions, here['trajectory'].frame(-1).positions)
    assert there['results']['temperature'] == here['results']['temperature']
    node.outputs.remote_folder._clean()
    with pytest.raises(MissingChunkError):
        there['trajectory'].trajectory.cells()
    rows = [outputs['trajectory'].trajectory.thermo('stress')[1] for outputs in (here, there)]
    assert np.array_equal(*rows)  # they have come home


def test_frames_that_stay_are_read_where_they_were_stashed(simulate, tmp_path):
    stash = {'source_list': ['trajectory'], 'target_base': str(tmp_path / 'stash'), 'stash_mode': 'copy'}
    outputs, node = simulate(options={'keep_remote': True, 'stash': stash})
    assert node.is_finished_ok, node.exit_message
    node.outputs.remote_folder._clean()
    assert len(outputs['trajectory'].frame(-1)) == 8


def test_the_forces_of_a_committee_are_watched(simulate, copper_potential):
    outputs, node = simulate({'steps': 10}, committee={'other': copper_potential(1)})
    assert node.is_finished_ok, node.exit_message
    assert outputs['results']['spread']['mean'] > 0
    _, node = simulate({'max_spread': 1e-9}, committee={'other': copper_potential(1)})
    assert node.exit_status == MdCalculation.exit_codes.ERROR_EXPLODED.status


@pytest.mark.parametrize(
    ('settings', 'inputs', 'words'),
    [
        ({'ensemble': 'nvw'}, {}, "'nve', 'nvt', 'npt'"),
        ({'temperature': 0.0}, {}, 'a temperature is 0 K, but `nvt` needs one above that'),
        ({'masses': {'Ag': 4.0}}, {}, 'names Ag, which the frame does not hold'),
        ({'barostat': 'scr', 'ensemble': 'npt'}, {}, r'ase has no barostat `scr`; it has `baoab`, `mtk`\.'),
        ({'max_spread': 0.1}, {}, 'there is no `committee`'),
        ({'bulk_modulus': 20.0, 'ensemble': 'npt'}, {}, '`bulk_modulus` has no effect on the barostat `baoab`'),
        ({}, {'engine': 'abacus'}, 'there is no engine `abacus`; installed are .*ase'),
        ({}, {'head': 'other'}, '`other`'),
        ({}, {'segment_steps': 0}, '`segment_steps` is 0'),
    ],
)
def test_what_no_job_could_do_is_refused_before_there_is_one(simulate, settings, inputs, words):
    with pytest.raises(ValueError, match=words):
        simulate(settings, **inputs)


def test_a_folder_that_is_no_state_is_refused(simulate):
    with pytest.raises(ValueError, match='`state` is not the output `state` of a job'):
        simulate(state=orm.FolderData())


def test_structures_that_no_job_could_move_are_refused(simulate):
    silver = ATOMS.copy()
    silver.numbers[0] = 47
    frames = [Frame.from_atoms(atoms) for atoms in (ATOMS, silver)]
    with pytest.raises(ValueError, match='but `start` has 2: take one'):
        simulate(start=DatasetData.from_frames(frames))
    with pytest.raises(ValueError, match='the start holds Ag, but the potential knows only Cu'):
        simulate(start=DatasetData.from_frames(frames[1:]))


def test_a_committee_of_which_an_engine_takes_no_notice_is_refused(simulate, copper_potential, monkeypatch):
    monkeypatch.setattr(Reference, 'lammps_styles', {'lj/cut': 'any LAMMPS has it'})
    with pytest.raises(ValueError, match='lammps computes no forces of a `committee`: leave it out'):
        simulate(engine='lammps', committee={'other': copper_potential(1)})


def test_a_committee_of_another_kind_is_refused(simulate, make_dataset, python_code):
    from aiida_perovmlip.calculations.train import TrainCalculation

    def trained(architecture: str, dataset: Any) -> Any:
        builder = TrainCalculation.get_builder()
        builder.code, builder.architecture, builder.training = python_code, architecture, dataset
        return run_get_node(builder)[0]['potential']

    frames = DatasetData.from_frames([*make_dataset(2)], {'labeller': 'test', 'functional': 'pairs'})
    with pytest.raises(ValueError, match='`other` of the committee is of springs'):
        simulate(committee={'other': trained('springs', frames)})
    with pytest.raises(ValueError, match='`other` of the committee does not know Cu'):
        simulate(committee={'other': trained('reference', frames)})


def test_a_state_goes_on_with_its_own_run_alone(simulate, copper_potential):
    outputs, _ = simulate(segment_steps=10)
    state = outputs['state']
    for settings in ({'timestep': 1.0}, {'temperature': 310.0}, {'ensemble': 'nve'}):
        with pytest.raises(ValueError, match='the state is of another run'):
            simulate(settings, state=state)
    with pytest.raises(ValueError, match='the state is of another run'):
        simulate(state=state, potential=copper_potential(1))
    with pytest.raises(ValueError, match='there is nothing left to do'):
        simulate({'steps': 10}, state=state)
    longer, node = simulate({'steps': 24, 'frames_every': 4}, state=state)
    assert node.is_finished_ok, node.exit_message
    assert longer['trajectory'].trajectory.steps().tolist() == [12, 16, 20, 24]
