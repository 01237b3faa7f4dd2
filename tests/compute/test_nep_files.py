"""The files of NEP, read without its packages: those that GPUMD wrote for others, and ours."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from aiida_perovmlip.compute.architecture import Plan, problem_of_shape
from aiida_perovmlip.compute.architectures.nep import Nep
from aiida_perovmlip.compute.architectures.nep.inputs import (
    fitted_energies,
    nep_in,
    offset_of,
    read_energies,
    write_energies,
    write_frames,
)
from aiida_perovmlip.compute.architectures.nep.loss_file import read_loss
from aiida_perovmlip.compute.architectures.nep.potential_file import Header, read_nep
from aiida_perovmlip.compute.architectures.nep.settings import NepSettings, resolve
from aiida_perovmlip.compute.contract import JobError, Status
from aiida_perovmlip.compute.extxyz import read_extxyz
from aiida_perovmlip.compute.frame import Frame, from_voigt
from aiida_perovmlip.compute.settings import read_settings

SMALL = Header(('I', 'Cs'), (5.0, 4.0), (1, 1), (2, 2), (2, 0, 0), 2)


def write_small(path, change=None):
    """Write a small potential, with its list of lines changed."""
    lines = ['nep4 2 I Cs', 'cutoff 5 4 50 30', 'n_max 1 1', 'basis_size 2 2', 'l_max 2 0 0', 'ANN 2 0']
    lines += [f'{value:.7e}' for value in np.random.default_rng(0).normal(size=SMALL.n_values)]
    path.write_text('\n'.join(change(lines) if change else lines) + '\n')
    return path


def test_real_potentials_of_gpumd_have_as_many_parameters_as_their_restart_files(shared_data):
    for folder, name, elements in (
        ('gpumd_fixtures', 'PbTe_nep', ('Te', 'Pb')),
        ('bazrs3_nep', 'nep', ('Ba', 'Zr', 'S')),
    ):
        found = read_nep(shared_data / folder / f'{name}.txt').header
        lines = (shared_data / folder / f'{name}.restart').read_text().splitlines()
        assert found.elements == elements
        assert found.cutoffs == (8.0, 4.0)
        assert found.n_parameters == len(lines)


def test_elements_keep_the_order_of_the_file_and_zbl_is_seen(shared_data):
    found = read_nep(shared_data / 'nep89' / 'nep89_CsPbI.txt').header
    assert found.elements == ('I', 'Cs', 'Pb')
    assert found.settings() == {
        'radial_cutoff': 6.0,
        'angular_cutoff': 5.0,
        'n_max': [4, 4],
        'basis_size': [8, 8],
        'l_max': [4, 2, 1],
        'neurons': 80,
        'zbl': 2.0,
    }


def own_cutoffs(lines):
    """Give each of the elements cutoffs of its own: I 5 and 4.5, Cs 6 and 4."""
    return [lines[0], 'cutoff 5 4.5 6 4 50 30', *lines[2:]]


def test_each_element_keeps_its_own_cutoffs_where_others_are_dropped(tmp_path):
    header = read_nep(write_small(tmp_path / 'nep.txt', own_cutoffs)).header
    assert (header.cutoffs, header.own_cutoffs) == ((6.0, 4.5), ((5.0, 4.5), (6.0, 4.0)))
    slim = header.slimmed(('Cs',))
    assert (slim.elements, slim.cutoffs, slim.own_cutoffs) == (('Cs',), (6.0, 4.0), ())
    assert header.slimmed(('Cs', 'I')) == header
    assert SMALL.slimmed(('I',)) == replace(SMALL, elements=('I',))
    three = replace(header, elements=('I', 'Pb', 'Cs'), own_cutoffs=((5.0, 4.5), (7.0, 3.0), (6.0, 4.0)))
    slim = three.slimmed(('Cs', 'Pb'))
    assert (slim.elements, slim.cutoffs, slim.own_cutoffs) == (('Pb', 'Cs'), (7.0, 4.0), ((7.0, 3.0), (6.0, 4.0)))


def test_cutoffs_of_the_elements_are_written_in_the_order_of_the_elements(tmp_path):
    header = read_nep(write_small(tmp_path / 'nep.txt', own_cutoffs)).header
    for kept, expected in ((('I', 'Cs'), ['5', '4.5', '6', '4']), (('Cs',), ['6', '4'])):
        slim = header.slimmed(kept)
        wanted = resolve(NepSettings(), slim, 2, has_stress=True)
        assert keywords(nep_in(wanted, slim.elements, {}))['cutoff'] == expected


def test_a_cutoff_that_is_asked_for_all_elements_is_not_that_of_a_parent_with_several(tmp_path):
    write_small(tmp_path / 'nep.txt', own_cutoffs)
    shown = Nep().shape_of(tmp_path, NepSettings())
    plan = Plan(settings=NepSettings(radial_cutoff=6.0), training=None, said=frozenset({'radial_cutoff'}))
    problem = problem_of_shape(plan, shown)
    assert "`radial_cutoff`: asked 6.0, the parent has {'I': 5.0, 'Cs': 6.0}" in problem


def test_the_protocol_of_the_paper_has_5_radial_and_25_angular_descriptors():
    wanted = resolve(read_settings(NepSettings, Nep.protocols['paper'][1]), None, 986, has_stress=True)
    header = Header(('C', 'H'), (8.0, 4.0), (4, 4), (8, 8), tuple(wanted['l_max']), wanted['neurons'])
    assert wanted['n_max'][0] + 1 == 5
    assert header.dimension == 5 + 25
    assert (wanted['radial_cutoff'], wanted['angular_cutoff'], wanted['neurons']) == (8.0, 4.0, 30)
    assert (wanted['trainer'], wanted['generations'], wanted['frames_per_generation']) == ('gpumd', 1_000_000, 986)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda lines: lines[:-3], 'so it is cut off'),
        (lambda lines: [*lines, '1.0'], 'too long, or damaged'),
        (lambda lines: ['hello'], 'does not begin with `nep`'),
        (lambda lines: ['nep4_charge1 2 I Cs', *lines[1:]], 'of kind `nep4_charge1`'),
        (lambda lines: ['nep4 3 I Cs', *lines[1:]], 'announces 3 elements and names 2'),
        (lambda lines: [lines[0], *lines[2:]], 'its header'),
        (lambda lines: [*lines[:9], '1.0 2.0', *lines[10:]], 'not one number'),
        (lambda lines: lines[:2], 'its header'),
        (lambda lines: [*lines[:2], 'n_max one 1', *lines[3:]], 'its header is damaged'),
    ],
)
def test_a_damaged_potential_is_refused_by_a_sentence(tmp_path, change, message):
    with pytest.raises(JobError, match=message) as caught:
        read_nep(write_small(tmp_path / 'nep.txt', change))
    assert caught.value.status is Status.BAD_INPUT


def test_a_potential_with_nan_has_diverged(tmp_path):
    write_small(tmp_path / 'nep.txt', lambda lines: [*lines[:20], 'nan', *lines[21:]])
    with pytest.raises(JobError, match=r'1 of .* values in nep\.txt are not finite') as caught:
        Nep().facts(tmp_path)
    assert caught.value.status is Status.DIVERGED


def test_facts_hold_the_larger_cutoff_and_the_energies_that_lie_beside_the_file(tmp_path):
    write_small(tmp_path / 'nep.txt')
    alone = Nep().facts(tmp_path)
    write_energies(tmp_path, {'I': -10.0, 'Cs': 3.0})
    facts = Nep().facts(tmp_path)
    assert (facts.elements, facts.cutoff) == (('Cs', 'I'), 5.0)
    assert facts.n_parameters == SMALL.n_parameters
    before, after = alone.energies_of_atoms['default'], facts.energies_of_atoms['default']
    assert {symbol: after[symbol] - before[symbol] for symbol in after} == pytest.approx({'I': -10.0, 'Cs': 3.0})
    assert read_energies(tmp_path) == {'I': -10.0, 'Cs': 3.0}


def test_the_loss_file_that_gpumd_wrote_is_read_column_by_column(shared_data):
    path = shared_data / 'gpumd_fixtures' / 'PbTe_loss.out'
    first = read_loss(path, has_validation=False)[0]
    assert first == {
        'step': 100,
        'loss': 0.15328,
        'training_energy_per_atom_rmse': 0.00189,
        'training_forces_rmse': 0.10600,
        'training_virial_per_atom_rmse': 0.0,
    }
    steps = read_loss(shared_data / 'bazrs3_nep' / 'loss_every100.out', done=500)
    assert (steps[0]['step'], steps[1]['step']) == (600, 10600)
    assert steps[0]['validation_energy_per_atom_rmse'] == 0.00305
    assert steps[0]['validation_forces_rmse'] == 0.20737


def test_a_loss_file_with_a_header_is_read_by_its_names(tmp_path):
    path = tmp_path / 'loss.out'
    path.write_text(
        '# format_version 1\n# output_interval 100\n# columns generation total rmse_force_train rmse_energy_train\n'
        '100 1.5 0.3 0.02\n200 1.2 0.2'
    )
    assert read_loss(path) == [
        {'step': 100, 'loss': 1.5, 'training_energy_per_atom_rmse': 0.02, 'training_forces_rmse': 0.3}
    ]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('# epoch loss rmse_e\n1 2 3\n', 'counts epochs'),
        ('100 1 2\n', 'line 1 has 3 columns instead of 10'),
        ('100 a 1 1 1 1 1 1 1 1\n', 'something else than numbers'),
    ],
)
def test_a_loss_file_of_another_program_is_refused(tmp_path, text, message):
    """Ten columns of another trainer would be read without an error, each under a wrong name."""
    (tmp_path / 'loss.out').write_text(text)
    with pytest.raises(JobError, match=message):
        read_loss(tmp_path / 'loss.out')


def keywords(text):
    return {words[0]: words[1:] for words in map(str.split, text.splitlines())}


def test_the_same_keyword_means_for_each_trainer_what_its_settings_say():
    neppo = resolve(NepSettings(steps=700, batch_size=3), None, 50, has_stress=True)
    gpumd = resolve(NepSettings(trainer='gpumd', generations=70_000), None, 50, has_stress=True)
    text = nep_in(neppo, ['Cs', 'I'], {'seed': 5})
    assert text.index('type') < text.index('cutoff')  # GPUMD refuses the other order
    assert keywords(text)['generation'] == ['700']
    assert keywords(text)['batch'] == ['3']
    assert keywords(text)['type'] == ['2', 'Cs', 'I']
    assert keywords(text)['seed'] == ['5']
    theirs = keywords(nep_in(gpumd, ['Cs', 'I'], {}))
    assert theirs['generation'] == ['70000']
    assert theirs['batch'] == ['50']
    assert 'learning_rate' not in theirs
    assert 'population' not in keywords(text)


def test_frames_are_written_as_both_trainers_read_them(make_frames, tmp_path):
    frame = make_frames(1)[0]
    energies = {'Cs': -100.0, 'Pb': -90.0, 'I': 1.0}
    write_frames([frame], tmp_path / 'train.xyz', energies)
    text = (tmp_path / 'train.xyz').read_text()
    assert 'Lattice=' in text  # ASE, and so neppo, does not know `lattice=`
    with (tmp_path / 'train.xyz').open() as handle:
        (read,) = read_extxyz(handle)
    assert read.energy == pytest.approx(frame.energy - (-800.0 - 720.0 + 24.0))
    assert np.array_equal(read.forces, frame.forces)
    virial = np.array(text.split('virial="')[1].split('"')[0].split(), dtype=float).reshape(3, 3)
    assert np.allclose(virial, -np.linalg.det(frame.cell) * from_voigt(frame.stress))


def test_energies_of_elements_are_found_where_the_frames_tell_them(make_frames):
    frames, energies = make_frames(5), {'Cs': -3.0, 'Pb': -7.0, 'I': -2.0}
    fitted = fitted_energies(frames, [offset_of(frame, energies) for frame in frames], ('Cs', 'I', 'Pb'))
    assert offset_of(frames[0], fitted) == pytest.approx(offset_of(frames[0], energies))
    first = frames[0]
    changed = [Frame(first.numbers[:count], first.positions[:count]) for count in (1, 2, 3, 9)]
    found = fitted_energies(changed, [offset_of(frame, energies) for frame in changed], ('Cs', 'I', 'Pb'))
    assert found == pytest.approx(energies)
