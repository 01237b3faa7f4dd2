"""A frame has a label where CP2K computed just this frame, at just these settings, and converged; else a reason."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.labellers.base import NOT_REACHED
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, n_electrons


def kinds(verdict):
    return [outcome.kind or ('label' if outcome.frames else 'left') for outcome in verdict.outcomes]


@pytest.mark.parametrize('name', ['ot', 'kpoints', 'anion', 'smearing', 'isolated'])
def test_a_converged_single_point_is_a_label_of_its_frame(recorded, name):
    record = recorded(name)
    verdict = record.judge()
    assert kinds(verdict) == ['label'], verdict.outcomes
    (frame,) = verdict.outcomes[0].frames
    (snapshot,), _ = record.read()
    assert frame.energy == snapshot.energy
    assert (frame.stress is None) == (name == 'isolated')
    assert frame.positions is record.frames[0].positions
    assert verdict.about['seconds_of_labels'] > 0


def test_frames_of_a_batch_keep_their_order(recorded):
    verdict = recorded('batch').judge()
    assert kinds(verdict) == ['label'] * 3
    energies = [outcome.frames[0].energy for outcome in verdict.outcomes]
    assert energies == [snapshot.energy for snapshot in recorded('batch').read()[0]]


def test_an_scf_cycle_that_did_not_converge_is_no_label(recorded):
    verdict = recorded('unconverged').judge()
    assert kinds(verdict) == ['not_converged']
    assert 'did not converge to 1e-05; 3 steps' in verdict.outcomes[0].reason


def test_only_the_frame_of_a_batch_that_did_not_converge_fails(recorded):
    text = recorded('batch').text
    second = [match.start() for match in re.finditer(r'  \*\*\* SCF run converged', text)][1]
    text = text[:second] + text[second:].replace(
        'SCF run converged in', 'WARNING in qs_scf.F:601 :: SCF run NOT converged', 1
    )
    assert kinds(recorded('batch').judge(text)) == ['label', 'not_converged', 'label']


def test_what_time_cut_off_was_not_reached(recorded):
    verdict = recorded('batch_out_of_time').judge()
    assert kinds(verdict) == ['label', 'left', 'left']
    assert verdict.ending.out_of_time


def test_what_was_killed_keeps_what_it_had_finished(recorded):
    text = recorded('batch').text
    third = [match.start() for match in re.finditer('SCF WAVEFUNCTION OPTIMIZATION', text)][2]
    verdict = recorded('batch').judge(text[: third + 500])
    assert kinds(verdict) == ['label', 'label', 'left']
    assert not verdict.ending.ended


@pytest.mark.parametrize(
    ('said', 'kind'),
    [
        ('Program received signal SIGSEGV: Segmentation fault - invalid memory reference.', 'crashed'),
        ('terminate called after throwing an instance of std::bad_alloc', 'memory'),
        ('slurmstepd: error: Detected 1 oom-kill event(s)', 'memory'),
    ],
)
def test_the_frame_that_took_cp2k_down_is_named(recorded, said, kind):
    text = recorded('batch').text
    second = [match.start() for match in re.finditer('SCF WAVEFUNCTION OPTIMIZATION', text)][1]
    verdict = recorded('batch').judge(f'{text[: second + 300]}\n{said}\n')
    assert kinds(verdict) == ['label', kind, 'left']


@pytest.mark.parametrize(('name', 'kind'), [('no_basis', 'environment'), ('bad_keyword', 'failed')])
def test_what_stops_cp2k_before_it_begins_is_told_of_each_frame(recorded, cspbi3, name, kind):
    verdict = recorded(name).judge(frames=[cspbi3(), cspbi3(variant=1)])
    assert kinds(verdict) == [kind, kind]
    assert 'CP2K stopped: ' in verdict.outcomes[0].reason


@pytest.mark.parametrize(
    ('changes', 'what'),
    [
        ({'cutoff': 200.0}, 'the cutoff in Ry was 150 instead of 200'),
        ({'rel_cutoff': 40.0}, 'the relative cutoff'),
        ({'n_grids': 5}, 'the number of grids was 4 instead of 5'),
        ({'eps_scf': 1e-6}, 'EPS_SCF was 1e-05 instead of 1e-06'),
        ({'kpoints': [2, 2, 2]}, 'the k-point mesh was Γ alone instead of'),
        ({'basis': 'DZVP'}, 'the basis set of Cs was SZV-MOLOPT-SR-GTH-q9 instead of DZVP'),
        ({'functional': 'PBEsol'}, 'the variant of PBE was PBE instead of PBEsol'),
        ({'functional': 'r2SCAN'}, 'the functional was'),
        ({'dispersion': 'D3BJ'}, 'the dispersion correction was none instead of D3BJ'),
        ({'electronic_temperature': 100.0}, 'the smearing was none instead of FERMI_DIRAC'),
        ({'pseudopotentials': {'Pb': 'GTH-PBE-q14'}}, 'the pseudopotential of Pb'),
        ({'sections': {'FORCE_EVAL': {'DFT': {'QS': {'METHOD': 'GAPW'}}}}}, 'the method was GPW instead of GAPW'),
    ],
)
def test_what_ran_at_other_settings_is_no_label(recorded, changes, what):
    verdict = recorded('ot').judge(settings=changes)
    assert kinds(verdict) == ['inconsistent']
    assert what in verdict.outcomes[0].reason


@pytest.mark.parametrize(
    ('change', 'what'),
    [
        ({'charge': -2}, 'the charge was 0 instead of -2'),
        ({'spin': 3}, 'the multiplicity was 1 instead of 3'),
        ({'positions': 1e-4}, 'the positions of the atoms were others'),
        ({'cell': 1e-4}, 'the cell was another'),
        ({'numbers': 35}, 'CP2K printed forces of other elements'),
        ({'pbc': False}, 'the periodicity was XYZ instead of NONE'),
    ],
)
def test_what_ran_for_another_structure_is_no_label(recorded, change, what):
    (frame,) = recorded('ot').frames
    if 'positions' in change:
        change = {'positions': frame.positions + np.eye(5, 3) * change['positions']}
    if 'cell' in change:
        change = {'cell': frame.cell + np.eye(3) * change['cell']}
    if 'numbers' in change:
        change = {'numbers': np.where(frame.numbers == 53, 35, frame.numbers)}
    if 'pbc' in change:
        change = {'pbc': np.zeros(3, bool)}
    verdict = recorded('ot').judge(frames=[replace(frame, **change)])
    assert kinds(verdict) == ['inconsistent']
    assert what in verdict.outcomes[0].reason


def test_a_batch_in_which_a_frame_was_exchanged_is_seen(recorded, cspbi3):
    frames = [cspbi3(6.0), cspbi3(6.6, 2), cspbi3(6.2, 2)]
    assert kinds(recorded('batch').judge(frames=frames)) == ['label', 'inconsistent', 'label']
    frames = [cspbi3(6.0), cspbi3(6.61, 1), cspbi3(6.2, 2)]
    assert kinds(recorded('batch').judge(frames=frames)) == ['label', 'inconsistent', 'label']


def test_a_batch_without_its_trajectory_has_no_labels(recorded):
    verdict = recorded('batch').judge(steps=[])
    assert kinds(verdict) == ['inconsistent'] * 3
    assert 'nobody knows what was computed' in verdict.outcomes[0].reason


def test_energies_of_text_and_trajectory_have_to_agree(recorded):
    steps = recorded('batch').steps()
    steps[1] = replace(steps[1], energy=steps[1].energy + 1e-6)
    assert kinds(recorded('batch').judge(steps=steps)) == ['label', 'inconsistent', 'label']


def test_more_results_than_frames_are_trusted_in_nothing(recorded):
    record = recorded('batch')
    verdict = record.judge(frames=record.frames[:2])
    assert kinds(verdict) == ['inconsistent'] * 2


def test_numbers_that_are_not_finite_are_no_label(recorded):
    text = recorded('ot').text.replace('-58.327398288701367', '                NaN')
    verdict = recorded('ot').judge(text)
    assert kinds(verdict) == ['failed']
    assert 'not finite' in verdict.outcomes[0].reason


def test_an_end_without_forces_contradicts_itself(recorded):
    text = recorded('ot').text.replace('ATOMIC FORCES in [a.u.]', '')
    verdict = recorded('ot').judge(text)
    assert kinds(verdict) == ['inconsistent']
    assert NOT_REACHED not in verdict.outcomes


def test_smearing_that_matters_is_no_label_and_says_how_much_it_matters(recorded):
    verdict = recorded('metal').judge()
    assert kinds(verdict) == ['not_converged']
    assert '5.07 meV of electronic entropy in the cell' in verdict.outcomes[0].reason


def test_smearing_that_was_asked_for_is_part_of_the_level(recorded):
    assert kinds(recorded('metal').judge(settings={'electronic_temperature': 150.0})) == ['label']


def test_each_step_of_a_simulation_is_a_labelled_frame_of_one_trajectory(recorded):
    record = recorded('dynamics')
    (outcome,) = record.judge().outcomes
    snapshots, _ = record.read()
    assert [frame.energy for frame in outcome.frames] == [snapshot.energy for snapshot in snapshots]
    assert {frame.trajectory for frame in outcome.frames} == {'digest0'}
    moved = [np.abs(frame.positions - record.frames[0].positions).max() for frame in outcome.frames]
    assert moved[0] < 1e-9
    assert moved == sorted(moved)
    assert outcome.facts == {'n_steps': 4, 'n_not_converged': 0, 'n_lost': 0, 'complete': True}


def test_a_step_that_did_not_converge_is_left_out_of_its_trajectory(recorded):
    text = recorded('dynamics').text
    second = [match.start() for match in re.finditer(r'  \*\*\* SCF run converged', text)][1]
    text = text[:second] + text[second:].replace('SCF run converged in', 'SCF run NOT converged', 1)
    (outcome,) = recorded('dynamics').judge(text).outcomes
    assert len(outcome.frames) == 3
    assert outcome.facts['n_not_converged'] == 1


def test_a_relaxation_says_whether_it_arrived(recorded):
    verdict = recorded('relaxation').judge()
    (outcome,) = verdict.outcomes
    assert len(outcome.frames) == 2  # the energy at the end is computed again, but without forces
    assert outcome.facts['relaxed'] is verdict.about['relaxed'] is True
    assert outcome.facts['largest_force'] < 0.05
    stopped = recorded('relaxation_stopped').judge()
    assert len(stopped.outcomes[0].frames) == 3
    assert stopped.outcomes[0].facts['relaxed'] is stopped.about['relaxed'] is False


def test_a_cell_that_moved_along_is_seen(recorded):
    record = recorded('dynamics')
    (frame,) = record.frames
    verdict = record.judge(frames=[replace(frame, cell=frame.cell * 1.001)])
    assert kinds(verdict) == ['inconsistent']


def test_band_edges_and_spin_are_kept_beside_the_label(recorded):
    facts = recorded('anion').judge().outcomes[0].facts
    assert [edges['spin'] for edges in facts['band_edges']] == [1, 2]
    assert facts['spin_square']['ideal'] == 0.75


def test_the_number_of_electrons_is_that_of_cp2k(recorded):
    for name in ('ot', 'anion', 'metal', 'isolated', 'batch'):
        record = recorded(name)
        expected = n_electrons(read_settings(Cp2kSettings, record.settings), record.frames[0])
        assert sum(record.read()[1].header.electrons) == expected


def entropy_of(text, hartree):
    """Return an output with another electronic entropy; none where it is None."""
    line = next(line for line in text.splitlines() if 'Electronic entropic energy' in line)
    new = '' if hartree is None else f'{line[:50]}{hartree:.14f}'
    return text.replace(line, new)


@pytest.mark.parametrize(
    ('electronvolt', 'kind'), [(-0.9e-3, 'label'), (-1.1e-3, 'not_converged'), (None, 'inconsistent')]
)
def test_the_entropy_of_a_repair_counts_for_the_whole_cell(recorded, electronvolt, kind):
    record = recorded('smearing')
    text = entropy_of(record.text, None if electronvolt is None else electronvolt / 27.211386)
    assert kinds(record.judge(text)) == [kind]


def test_smearing_without_its_entropy_is_no_label_at_any_temperature(recorded):
    record = recorded('metal')
    verdict = record.judge(entropy_of(record.text, None), settings={'electronic_temperature': 150.0})
    assert kinds(verdict) == ['inconsistent']


def test_another_electronic_temperature_is_seen(recorded):
    verdict = recorded('metal').judge(settings={'electronic_temperature': 300.0})
    assert 'the electronic temperature in K was 150 instead of 300' in verdict.outcomes[0].reason


@pytest.mark.parametrize(('found', 'kind'), [(0.92, 'label'), (0.93, 'not_converged'), (1.75, 'not_converged')])
def test_a_state_that_mixes_spins_is_no_label(recorded, found, kind):
    text = re.sub(r'(single determinant S..2 *: +0\.75\d* +)[\d.]+', rf'\g<1>{found}', recorded('anion').text)
    verdict = recorded('anion').judge(text)
    assert kinds(verdict) == [kind]
    assert kind == 'label' or f'⟨S²⟩ is {found:.3f} where 0.750' in verdict.outcomes[0].reason


@pytest.mark.parametrize(
    ('old', 'new', 'what'),
    [
        ('MacDonald', 'Monkhorst-Pack', 'the scheme of k-points was MONKHORST-PACK instead of MACDONALD'),
        ('0.2500    0.2500    0.2500', '0.2500    0.2500    0.0000', 'the shift of the k-points was'),
    ],
)
def test_other_k_points_are_seen(recorded, old, new, what):
    verdict = recorded('kpoints').judge(recorded('kpoints').text.replace(old, new))
    assert what in verdict.outcomes[0].reason


@pytest.mark.parametrize(
    'said',
    ['No space left on device', 'Disk quota exceeded', 'Input/output error', 'Stale file handle'],
)
def test_a_disk_in_trouble_is_no_fault_of_the_frame(recorded, said):
    text = recorded('batch').text
    second = [match.start() for match in re.finditer('SCF WAVEFUNCTION OPTIMIZATION', text)][1]
    verdict = recorded('batch').judge(f'{text[: second + 300]}\nFortran runtime error: {said}\n')
    assert kinds(verdict) == ['label', 'environment', 'left']


def test_a_step_that_is_missing_in_the_trajectory_or_too_many_costs_no_other_step(recorded):
    record = recorded('dynamics')
    steps = record.steps()
    foreign = replace(steps[0], energy=-1.0)
    (outcome,) = record.judge(steps=[foreign] * 50 + steps[:2] + [foreign] + steps[2:]).outcomes
    assert (outcome.facts['n_steps'], outcome.facts['n_lost']) == (4, 0)
    (outcome,) = record.judge(steps=steps[:2] + steps[3:]).outcomes
    assert (outcome.facts['n_steps'], outcome.facts['n_lost']) == (3, 1)


def test_a_relaxation_whose_last_positions_are_unknown_did_not_arrive(recorded):
    record = recorded('relaxation')
    assert record.judge().about['relaxed'] is True
    assert record.judge(steps=[]).about['relaxed'] is False


def test_the_frame_at_which_time_ran_out_is_not_blamed(recorded):
    record = recorded('batch_out_of_time')
    line = next(line for line in record.text.splitlines() if 'SCF run terminated - exceeded' in line)
    text = record.text.replace(line, ' *** WARNING in qs_scf.F:601 :: SCF run NOT converged')
    text += ' *** MD run terminated - exceeded requested execution time:       5.000 seconds.\n'
    assert kinds(record.judge(text)) == ['label', 'left', 'left']


def test_a_frame_whose_positions_were_not_written_any_more_is_not_blamed(recorded):
    record = recorded('batch')
    second = [match.end() for match in re.finditer(r'STRESS. +z .*\n', record.text)][2]  # two lines for each frame
    steps = record.steps()
    assert kinds(record.judge(record.text[: second + 1], steps=steps[:2])) == ['label', 'label', 'left']
    assert kinds(record.judge(record.text[: second + 1], steps=steps[:1])) == ['label', 'left', 'left']
