"""The job runs CP2K itself and turns what it left into labels, or into an exit code that says what to do."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node

from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.compute.shard import digests
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.cp2k import Cp2k
from aiida_perovmlip.labellers.cp2k.calculation import Cp2kLabelCalculation, walltime
from aiida_perovmlip.labellers.cp2k.parser import Cp2kLabelParser
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, level


@pytest.fixture
def run_cp2k(cp2k_code):
    def run(frames, settings, repair=None, **options):
        inputs = {
            'code': cp2k_code,
            'frames': DatasetData.from_frames(frames),
            'settings': settings,
            'metadata': {'options': options},
            **({'repair': repair} if repair else {}),
        }
        return run_get_node(Cp2kLabelCalculation, **inputs)

    return run


@pytest.fixture
def parse_recorded(cp2k_code, recorded, tmp_path):
    """Return a function that parses a recorded output as if a job had left it."""

    def parse(name, text=None, repair=None, exit_status=None, **changes):
        record = recorded(name)
        settings = {**record.settings, **changes}
        node = orm.CalcJobNode(computer=cp2k_code.computer, process_type='aiida.calculations:perovmlip.cp2k.label')
        for key, value in {'parser_name': 'perovmlip.cp2k.label', 'resources': {'num_machines': 1}}.items():
            node.set_option(key, value)
        frames = DatasetData.from_frames(record.frames).store()
        links = {'frames': frames, 'settings': orm.Dict(settings).store(), 'code': cp2k_code}
        if repair or record.repair:
            links['repair'] = orm.Str(repair or record.repair).store()
        for label, value in links.items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC, label)
        node.store()
        retrieved = orm.FolderData()
        if text != '':
            retrieved.base.repository.put_object_from_bytes((text or record.text).encode(), 'aiida.out')
        retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
        retrieved.store()
        for ending in ('-pos-1.xyz', '-1.cell'):
            source = record.path(ending)
            if source.is_file():
                shutil.copy(source, tmp_path / f'aiida{ending}')
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message('the scheduler said so')
        parser = Cp2kLabelParser(node)
        code = parser.parse(retrieved_temporary_folder=str(tmp_path))
        return node, parser.outputs, code

    return parse


# ---------------------------------------------------------------------- with CP2K


def test_a_frame_is_labelled_and_the_job_keeps_what_it_did(run_cp2k, mesh, cspbi3):
    results, node = run_cp2k([cspbi3(group='cubic')], {**mesh, 'band_edges': True})
    assert node.is_finished_ok, node.exit_message
    (frame,) = results['dataset']
    assert frame.energy == pytest.approx(-1584.58, abs=0.01)
    assert (frame.group, frame.source) == ('cubic', node.uuid)
    assert np.abs(frame.forces.sum(axis=0)).max() < 0.05
    facts = results['results'].get_dict()
    assert (facts['n_labelled'], facts['n_remaining'], facts['failed']) == (1, 0, [])
    assert facts['level'] == level(read_settings(Cp2kSettings, mesh)).to_dict()
    assert facts['facts']['0']['band_edges'][0]['gap'] > 1.0
    assert facts['seconds_of_labels'] > 0.5
    assert node.base.caching.is_valid_cache
    kept = set(results['retrieved'].base.repository.list_object_names())
    assert kept == {'aiida.out', '_scheduler-stdout.txt', '_scheduler-stderr.txt'}


def test_a_batch_of_cells_that_differ_by_a_tenth_has_the_labels_of_single_points(run_cp2k, mesh, cspbi3):
    frames = [cspbi3(6.0), cspbi3(6.6, 1)]
    results, node = run_cp2k(frames, mesh)
    assert node.is_finished_ok, node.exit_message
    single, _ = run_cp2k(frames[1:], mesh)
    (_, batched), (alone,) = results['dataset'], single['dataset']
    assert batched.energy == pytest.approx(alone.energy, abs=1e-6)
    assert batched.forces == pytest.approx(alone.forces, abs=1e-5)
    assert batched.stress == pytest.approx(alone.stress, abs=1e-7)


@pytest.mark.slow
def test_a_frame_that_did_not_converge_leaves_the_next_one_as_it_would_be_alone(run_cp2k, fast, cspbi3):
    settings = {**fast, 'max_scf': 25, 'outer_scf': 0}  # enough for the second frame, which needs 22 steps, not 29
    frames = [cspbi3(variant=1, size=0.02), cspbi3()]
    results, node = run_cp2k(frames, settings)
    assert [entry['frame'] for entry in results['results']['failed']] == [0], results['results'].get_dict()
    assert node.is_finished_ok
    single, _ = run_cp2k(frames[1:], settings)
    (after,), (alone,) = results['dataset'], single['dataset']
    assert after.energy == pytest.approx(alone.energy, abs=1e-5)


def test_no_convergence_is_an_exit_code_and_no_label(run_cp2k, mesh, cspbi3):
    results, node = run_cp2k([cspbi3()], {**mesh, 'max_scf': 3, 'outer_scf': 0})
    assert node.exit_status == 500
    assert 'dataset' not in results
    assert results['results']['failed'][0]['kind'] == 'not_converged'
    assert node.base.caching.is_valid_cache  # it would end the same way again


@pytest.mark.slow
@pytest.mark.parametrize('repair', [repair.name for repair in Cp2k.repairs])
@pytest.mark.parametrize('kpoints', [[1, 1, 1], [2, 2, 2]], ids=['gamma', 'mesh'])
def test_each_repair_heals_a_cycle_that_was_too_short_and_finds_the_same_label(run_cp2k, fast, cspbi3, repair, kpoints):
    settings = {**fast, 'kpoints': kpoints}
    healed, node = run_cp2k([cspbi3()], {**settings, 'max_scf': 3, 'outer_scf': 0}, repair)
    assert node.is_finished_ok, node.exit_message
    plain, _ = run_cp2k([cspbi3()], settings)
    (mended,), (expected,) = healed['dataset'], plain['dataset']
    assert mended.energy == pytest.approx(expected.energy, abs=1e-5)
    assert mended.forces == pytest.approx(expected.forces, abs=2e-3)
    assert healed['dataset'].level == plain['dataset'].level
    assert healed['results']['repair'] == repair


@pytest.mark.slow
def test_a_cation_that_the_usual_preconditioner_does_not_converge_is_healed_by_a_better_one(run_cp2k, fast, cspbi3):
    settings = {**fast, 'max_scf': 20, 'outer_scf': 2}
    _, node = run_cp2k([cspbi3(charge=1)], settings)
    assert node.exit_status == 500
    healed, node = run_cp2k([cspbi3(charge=1)], settings, 'tighter_ot')
    assert node.is_finished_ok, node.exit_message
    (frame,) = healed['dataset']
    assert frame.energy == pytest.approx(-1588.1732, abs=1e-3)
    assert healed['results']['facts']['0']['spin_square']['found'] == pytest.approx(0.75, abs=0.02)


@pytest.mark.slow
def test_a_metal_is_listed_with_its_entropy_instead_of_being_labelled_with_smearing(run_cp2k, fast, recorded):
    results, node = run_cp2k(recorded('metal').frames, {**fast, 'kpoints': [3, 3, 3]}, 'diagonalisation')
    assert node.exit_status == 500
    assert 'meV of electronic entropy in the cell' in results['results']['failed'][0]['reason']


@pytest.mark.slow
def test_a_relaxation_becomes_a_trajectory_of_labels_down_to_the_force_that_was_asked_for(run_cp2k, mesh, cspbi3):
    start = cspbi3(size=0.02)
    results, node = run_cp2k([start], {**mesh, 'run': 'relax', 'max_force': 0.05})
    assert node.is_finished_ok, node.exit_message
    frames = list(results['dataset'])
    assert len(frames) > 1
    assert np.array_equal(frames[0].positions, start.positions)
    assert np.abs(frames[-1].forces).max() < 0.05 <= np.abs(frames[0].forces).max()
    assert results['results']['relaxed'] is True
    (shard,) = node.inputs.frames.frames.chunks()
    assert {frame.trajectory for frame in frames} == {digests(shard, labels=False)[0].tobytes().hex()}


@pytest.mark.slow
def test_dynamics_conserve_the_energy_and_begin_as_the_seed_says(run_cp2k, mesh, cspbi3):
    settings = {**mesh, 'run': 'md', 'ensemble': 'NVE', 'steps': 4, 'temperature': 600.0, 'seed': 7}
    results, node = run_cp2k([cspbi3()], settings)
    assert node.is_finished_ok, node.exit_message
    again, _ = run_cp2k([cspbi3()], settings)
    other, _ = run_cp2k([cspbi3()], {**settings, 'seed': 8})
    frames = list(results['dataset'])
    assert len(frames) == 5
    masses = np.array([132.9055, 207.2, 126.9045, 126.9045, 126.9045])[:, None]
    ends = [0.5 * (masses * ((frames[i + 2].positions - frames[i].positions) / 2) ** 2).sum() for i in (0, 1, 2)]
    kinetic = np.array(ends) * 103.64269  # u Å²/fs² in eV
    total = kinetic + [frame.energy for frame in frames[1:4]]
    assert np.ptp(total) < 1e-3
    assert [frame.energy for frame in again['dataset']] == pytest.approx([frame.energy for frame in frames], abs=1e-6)
    assert abs(list(other['dataset'])[-1].energy - frames[-1].energy) > 1e-4


def test_running_out_of_time_keeps_what_was_done_and_is_never_cached(run_cp2k, fast, cspbi3):
    frames = [cspbi3(6.3, variant) for variant in range(12)]
    results, node = run_cp2k(frames, fast, max_wallclock_seconds=12)
    assert node.exit_status == 400, (node.exit_status, node.exit_message)
    facts = results['results'].get_dict()
    assert facts['n_remaining'] > 0
    assert facts['n_labelled'] + facts['n_remaining'] == 12, facts['failed']
    assert not node.base.caching.is_valid_cache


def test_an_executable_that_is_not_there_says_so(run_cp2k, localhost, fast, cspbi3):
    code = orm.InstalledCode(label='nothing', computer=localhost, filepath_executable='/no/such/cp2k').store()
    frames = DatasetData.from_frames([cspbi3()])
    _, node = run_get_node(Cp2kLabelCalculation, code=code, frames=frames, settings=fast)
    assert node.exit_status == 320
    assert not node.base.caching.is_valid_cache


# ---------------------------------------------------------------------- exit codes, from recorded outputs


@pytest.mark.parametrize(
    ('name', 'changes', 'status'),
    [
        ('ot', {}, None),
        ('batch', {}, None),
        ('dynamics', {}, None),
        ('relaxation_stopped', {}, None),
        ('unconverged', {}, 500),
        ('metal', {}, 500),
        ('batch_out_of_time', {}, 400),
        ('no_basis', {}, 320),
        ('bad_keyword', {}, 420),
        ('ot', {'cutoff': 200.0}, 520),
    ],
)
def test_each_end_has_its_exit_code(parse_recorded, name, changes, status):
    node, outputs, code = parse_recorded(name, **changes)
    assert (code and code.status) == status, code
    assert 'results' in outputs
    assert ('dataset' in outputs) == (status in (None, 400))
    assert may_be_cached(node) == (status in (None, 500, 420, 520))  # 420 and its like are excluded by their code


@pytest.mark.parametrize(
    ('said', 'status'),
    [
        ('terminate called after throwing an instance of std::bad_alloc', 410),
        ('Program received signal SIGSEGV: Segmentation fault - invalid memory reference.', 420),
        ('', 310),
    ],
)
def test_a_run_that_broke_off_has_an_exit_code_that_is_never_cached(parse_recorded, recorded, said, status):
    text = recorded('ot').text
    broken = f'{text[: text.index("SCF WAVEFUNCTION") + 300]}\n{said}\n'
    node, outputs, code = parse_recorded('ot', broken)
    assert code.status == status
    assert 'dataset' not in outputs
    assert not may_be_cached(node)
    assert Cp2kLabelCalculation.exit_codes[code_label(code)].invalidates_cache


def may_be_cached(node):
    """Whether the parser left the node as one that may serve as an answer; one that never ran is none otherwise."""
    return node.base.extras.get('_aiida_valid_cache', True)


def code_label(code):
    return next(label for label, known in Cp2kLabelCalculation.exit_codes.items() if known.status == code.status)


def test_no_output_at_all_is_told_with_what_the_scheduler_knows(parse_recorded):
    _, outputs, code = parse_recorded('ot', '')
    assert (code.status, dict(outputs)) == (310, {})
    _, _, code = parse_recorded('ot', '', exit_status=110)
    assert (code.status, code.message) == (110, 'the scheduler said so')


def test_an_output_that_cannot_be_read_is_told(parse_recorded, recorded):
    text = re.sub(r'(QS. Number of grid levels:) +4', r'\1 four', recorded('ot').text)
    _, _, code = parse_recorded('ot', text)
    assert code.status == 311
    assert 'four' in code.message


@pytest.mark.parametrize(
    ('said', 'scheduler', 'status'),
    [
        (' *** MD run terminated - exceeded requested execution time:       5.000 seconds.', None, 400),
        ('', 120, 400),
        ('', 110, 410),
        ('terminate called after throwing an instance of std::bad_alloc', None, 410),
        ('Program received signal SIGSEGV: Segmentation fault - invalid memory reference.', None, 420),
        ('', None, 420),
        ('Fortran runtime error: No space left on device', None, 320),
    ],
)
def test_a_trajectory_that_broke_off_is_kept_with_an_exit_code_and_never_cached(
    parse_recorded, recorded, said, scheduler, status
):
    text = recorded('dynamics').text
    last = text.rindex('SCF WAVEFUNCTION OPTIMIZATION')
    node, outputs, code = parse_recorded('dynamics', f'{text[:last]}{said}\n', exit_status=scheduler)
    assert code.status == status
    assert '3 frames were labelled before' in code.message
    assert len(outputs['dataset']) == 3
    assert outputs['results']['facts']['0']['complete'] is False
    assert not may_be_cached(node)


# ---------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ('given', 'what'),
    [
        ({'settings': {'functional': 'SCAN', 'cutoff': 200.0}}, 'SCAN does not converge'),
        ({'settings': {'nonsense': 1}}, 'unknown setting'),
        ({'repair': 'magic'}, 'there is no repair `magic`; known are tighter_ot'),
        ({'settings': {}}, 'frame 0: cell times k-points reach 6.30'),
    ],
)
def test_inputs_that_no_run_could_satisfy_are_refused_at_submission(cp2k_code, fast, cspbi3, given, what):
    inputs = {'code': cp2k_code, 'frames': DatasetData.from_frames([cspbi3()]), 'settings': fast, **given}
    with pytest.raises(ValueError, match=what):
        run_get_node(Cp2kLabelCalculation, **inputs)


def test_frames_that_need_different_inputs_are_refused_in_one_job(cp2k_code, fast, cspbi3):
    frames = DatasetData.from_frames([cspbi3(charge=0), cspbi3(charge=-1)])
    with pytest.raises(ValueError, match='use one job for each'):
        run_get_node(Cp2kLabelCalculation, code=cp2k_code, frames=frames, settings=fast)
    two = DatasetData.from_frames([cspbi3(), cspbi3(variant=1)])
    with pytest.raises(ValueError, match='begins with one'):
        run_get_node(Cp2kLabelCalculation, code=cp2k_code, frames=two, settings={**fast, 'run': 'md'})


def test_cp2k_is_told_to_stop_before_it_is_stopped():
    assert walltime({}) is None
    assert walltime({'max_wallclock_seconds': 100}) == 90
    assert walltime({'max_wallclock_seconds': 86400}) == 86100


def test_the_ports_are_those_of_every_labeller_and_nothing_else():
    spec = Cp2kLabelCalculation.spec()
    assert {'frames', 'settings', 'repair', 'code', 'metadata'} <= set(spec.inputs)
    assert not {'parameters', 'structure', 'trajectory', 'file'} & set(spec.inputs)
    assert {'dataset', 'results'} <= set(spec.outputs)
    assert 'output_parameters' not in spec.outputs
    assert 'ERROR_OUTPUT_CONTAINS_ABORT' not in spec.exit_codes
