"""Labelling: every frame by itself."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from test_harness import answer, ask, start

from aiida_perovmlip.calculations.sources import job_sources
from aiida_perovmlip.compute import harness, registry
from aiida_perovmlip.compute.contract import Status
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.frames import write_folder
from aiida_perovmlip.compute.labellers.tblite import Tblite, TbliteSettings
from aiida_perovmlip.compute.shard import build_shards
from aiida_perovmlip.compute.tasks.label import JOURNAL


def label(folder, frames, labeller='unruly', **fields):
    write_folder(build_shards(frames), folder / 'frames')
    ask(folder, 'label', {'labeller': labeller}, inputs={'frames': 'frames'}, **fields)
    harness.main(folder)
    lines = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    return answer(folder), {line['frame']: line for line in lines}


def test_a_bad_frame_is_listed_and_stops_no_other(tmp_path, make_frames):
    frames = make_frames(6, labels=False)
    for index, group in ((1, 'raise'), (3, 'nan'), (4, 'refuse')):
        frames[index] = replace(frames[index], group=group)
    response, journal = label(tmp_path, frames)
    assert response.status is Status.OK
    assert response.results['n_labelled'] == 3
    reasons = {entry['frame']: entry['reason'] for entry in response.results['failed']}
    assert set(reasons) == {1, 3, 4}
    assert 'SCF not converged' in reasons[1]
    assert 'not finite' in reasons[3]
    assert 'marked so' in reasons[4]
    assert 'energy' in journal[0]
    assert 'energy' not in journal[1]


@pytest.mark.parametrize('cores', [1, 2])
def test_a_calculator_that_crashes_costs_its_own_frame_alone(tmp_path, make_frames, cores):
    frames = make_frames(7, labels=False)
    frames[2] = replace(frames[2], group='crash')
    frames[3] = replace(frames[3], group='crash')
    response, journal = label(tmp_path, frames, cores=cores)
    assert response.results['n_labelled'] == 5
    assert [entry['frame'] for entry in response.results['failed']] == [2, 3]
    assert all('crashed' in entry['reason'] for entry in response.results['failed'])
    assert set(journal) == set(range(7))


def marked(make_frames, *groups):
    frames = make_frames(len(groups), labels=False)
    return [replace(frame, group=group) for frame, group in zip(frames, groups, strict=True)]


def test_a_storm_of_crashes_costs_no_other_frame(tmp_path, make_frames):
    groups = ['good', 'crash'] * 12 + ['good'] * 30
    response, journal = label(tmp_path, marked(make_frames, *groups), cores=2)
    assert response.status is Status.OK
    assert response.results['n_labelled'] == 42
    assert {entry['frame'] for entry in response.results['failed']} == set(range(1, 24, 2))
    assert set(journal) == set(range(54))


def test_a_frame_above_its_time_limit_fails_alone(tmp_path, make_frames):
    frames = marked(make_frames, 'good', 'hang', 'good')
    response, _ = label(tmp_path, frames, settings={'seconds_per_frame': 2.0})
    assert response.status is Status.OK
    assert response.results['n_labelled'] == 2
    assert [(entry['frame'], entry['kind']) for entry in response.results['failed']] == [(1, 'timeout')]


def test_a_calculator_that_hangs_does_not_outlast_the_wall_time(tmp_path, make_frames):
    started = time.monotonic()
    response, _ = label(tmp_path, marked(make_frames, 'good', 'hang', 'good'), walltime=5.0)
    assert time.monotonic() - started < 10
    assert response.status is Status.OUT_OF_WALLTIME
    assert response.results['remaining'] == [1, 2]
    assert response.results['failed'] == []


@pytest.mark.parametrize('cores', [1, 2])
def test_a_signal_to_the_whole_group_leaves_the_interrupted_frames_remaining(tmp_path, make_frames, cores):
    write_folder(build_shards(marked(make_frames, 'good', 'good', *['hang'] * cores)), tmp_path / 'frames')
    ask(tmp_path, 'label', {'labeller': 'unruly'}, inputs={'frames': 'frames'}, cores=cores)
    sources = job_sources(registry.reference('tasks', 'label'), [registry.reference('labellers', 'unruly')])
    job = start(tmp_path, sources, start_new_session=True)
    journal = tmp_path / JOURNAL
    while not journal.exists() or journal.read_text().count('\n') < 2:
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(job.pid, signal.SIGTERM)
    assert job.wait(timeout=20) == 1
    response = answer(tmp_path)
    assert response.status is Status.OUT_OF_WALLTIME
    assert response.results['remaining'] == list(range(2, 2 + cores))
    assert response.results['failed'] == []


@pytest.mark.parametrize('group', ['exit', 'interrupt'])
def test_a_calculator_that_wants_to_exit_fails_like_any_other(tmp_path, make_frames, group):
    response, _ = label(tmp_path, marked(make_frames, 'good', group, 'good'))
    assert response.status is Status.OK
    assert [(entry['frame'], entry['kind']) for entry in response.results['failed']] == [(1, 'failed')]


@pytest.mark.parametrize(
    ('groups', 'status'),
    [
        (('import', 'import'), Status.MISSING_PACKAGE),
        (('crash', 'crash'), Status.FAILED),
        (('raise', 'refuse'), Status.NOT_CONVERGED),
        (('raise', 'crash'), Status.NOT_CONVERGED),
    ],
)
def test_what_the_machine_did_is_told_from_what_the_frames_did(tmp_path, make_frames, groups, status):
    response, _ = label(tmp_path, marked(make_frames, *groups))
    assert response.status is status


def test_no_label_at_all_is_a_failure(tmp_path, make_frames):
    frames = [replace(frame, group='raise') for frame in make_frames(2, labels=False)]
    response, _ = label(tmp_path, frames)
    assert response.status is Status.NOT_CONVERGED
    assert 'None of 2 frames' in response.error['message']


def test_labels_made_before_the_wall_time_are_kept(tmp_path, make_frames):
    frames = [replace(frame, group='slow') for frame in make_frames(40, labels=False)]
    response, journal = label(tmp_path, frames, walltime=5.0)
    assert response.status is Status.OUT_OF_WALLTIME
    assert 0 < len(journal) < 40
    assert response.results['n_remaining'] == 40 - len(journal)


def test_labels_are_those_of_the_calculator(tmp_path):
    from ase.build import bulk
    from ase.calculators.emt import EMT

    atoms = bulk('Cu', cubic=True)
    atoms.rattle(0.1, seed=1)
    _, journal = label(tmp_path, [Frame.from_atoms(atoms)], 'emt')
    atoms.calc = EMT()
    assert journal[0]['energy'] == pytest.approx(atoms.get_potential_energy(), abs=1e-12)
    assert np.allclose(journal[0]['forces'], atoms.get_forces(), atol=1e-12)
    assert np.allclose(journal[0]['stress'], atoms.get_stress(), atol=1e-12)


def halide(symbols, size):
    rng = np.random.default_rng(0)
    numbers = Frame.from_atoms(__import__('ase').Atoms(symbols)).numbers
    return Frame(numbers, size * rng.random((len(numbers), 3)), size * np.eye(3), np.ones(3, bool))


def test_gfn1_is_refused_where_its_halogen_bond_explodes():
    gfn1 = TbliteSettings(method='GFN1-xTB')
    assert 'halogen bond' in Tblite().refusal(gfn1, halide('PbI3CNH6', 12.6))
    assert Tblite().refusal(gfn1, halide('CsPbI3', 12.6)) is None
    assert Tblite().refusal(TbliteSettings(), halide('PbI3CNH6', 12.6)) is None
    molecule = replace(halide('PbI3CNH6', 12.6), pbc=np.zeros(3, bool))
    assert Tblite().refusal(gfn1, molecule) is None


def test_small_cells_are_refused_at_the_gamma_point():
    small = halide('CsPbI3', 6.3)
    assert '6.30 Å high' in Tblite().refusal(TbliteSettings(), small)
    assert Tblite().refusal(TbliteSettings(smallest_cell=0.0), small) is None
