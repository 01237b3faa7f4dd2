"""CP2K relaxes a path by itself: what comes out is what single points say of it, and what went wrong has a name."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from aiida import orm
from aiida.common.folders import Folder
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager

from aiida_perovmlip.compute.band import BandSettings, residual_of
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.labellers.cp2k.band import (
    STEPS_BEFORE_CLIMB,
    Cp2kBandCalculation,
    band_sections,
    ranks_of_replica,
    steps_before_climb,
)
from aiida_perovmlip.labellers.cp2k.band_parser import Cp2kBandParser, numbered
from aiida_perovmlip.labellers.cp2k.calculation import Cp2kLabelCalculation
from aiida_perovmlip.labellers.cp2k.settings import Cp2kSettings, level

TINY = {
    'basis': 'SZV',
    'cutoff': 100.0,
    'rel_cutoff': 25.0,
    'eps_default': 1e-9,
    'eps_scf': 1e-5,
    'smallest_cell': 0.0,
}


def molecule(height: float, aside: float = 0.0) -> Frame:
    """Return AlCl in a row of its like: Cl is bound to the Al below or above it, so that there are two minima."""
    positions = np.array([(0, 0, 0), (aside, 0, 3.15 + height)]) + 0.1
    return Frame(np.array([13, 17], np.uint8), positions, np.diag([4.4, 4.4, 6.3]), np.ones(3, bool))


def path_of(n_images: int = 3, end: float = 0.75) -> DatasetData:
    """Return a path from one minimum to the other that makes a detour."""
    heights = np.linspace(-end, end, n_images + 2)
    return DatasetData.from_frames([molecule(height, 0.15 * (1 - (height / end) ** 2)) for height in heights])


@pytest.fixture
def run_band(cp2k_code):
    def run(path, settings, band, **options):
        inputs = {'path': path, 'settings': settings, 'band': band, 'metadata': {'options': options}}
        return run_get_node(Cp2kBandCalculation, code=cp2k_code, **inputs)

    return run


@pytest.fixture
def parse_band(cp2k_code, recorded, tmp_path):
    """Return a function that parses a recorded band as if a job had left it, with some of its files changed.

    It went one step from three structures; `edit` has functions of text by the names of files.
    """

    def parse(edit=None, frames=None, exit_status=None, settings=None, kept=('aiida.out', 'aiida-r-0.out'), **band):
        node = orm.CalcJobNode(computer=cp2k_code.computer, process_type='aiida.calculations:perovmlip.cp2k.band')
        for key, value in {'parser_name': 'perovmlip.cp2k.band', 'resources': {'num_machines': 1}}.items():
            node.set_option(key, value)
        links = {
            'path': DatasetData.from_frames(frames or recorded_path()).store(),
            'settings': orm.Dict({**TINY, **(settings or {})}).store(),
            'band': orm.Dict({'fmax': 0.05, 'max_steps': 1, **band}).store(),
            'code': cp2k_code,
        }
        for label, value in links.items():
            node.base.links.add_incoming(value, LinkType.INPUT_CALC, label)
        node.store()
        shutil.copytree(recorded('ot').path('').parent / 'band', tmp_path, dirs_exist_ok=True)
        for name, change in (edit or {}).items():
            text = (tmp_path / name).read_text()
            changed = change(text)
            assert changed != text
            (tmp_path / name).write_text(changed)
        retrieved = orm.FolderData()
        for name in kept:
            retrieved.base.repository.put_object_from_file(str(tmp_path / name), name)
            (tmp_path / name).unlink()
        retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
        retrieved.store()
        if exit_status is not None:
            node.set_exit_status(exit_status)
            node.set_exit_message('the scheduler said so')
        parser = Cp2kBandParser(node)
        code = parser.parse(retrieved_temporary_folder=str(tmp_path))
        return parser.outputs, code

    return parse


def recorded_path() -> list[Frame]:
    """Return the path of the recorded band."""
    return [molecule(-0.7), molecule(0.1, 0.15), molecule(0.7)]


# ---------------------------------------------------------------------- with CP2K


@pytest.mark.slow
@pytest.mark.long
def test_a_band_that_goes_in_again_climbs_to_the_saddle_that_single_points_see(run_band, cp2k_code):
    band = {'fmax': 0.05}
    begun, node = run_band(path_of(), TINY, {**band, 'max_steps': 2})
    assert node.exit_status == 500, node.exit_message
    assert 'The path after 2 steps is kept' in node.exit_message
    assert begun['results']['n_steps'] == 2
    results, node = run_band(begun['path'], TINY, band)
    assert node.is_finished_ok, node.exit_message
    facts, path = results['results'].get_dict(), list(results['path'])
    assert (facts['is_converged'], facts['is_climbing']) == (True, True)
    assert facts['residual'] <= 0.05
    labels, node = run_get_node(Cp2kLabelCalculation, code=cp2k_code, frames=results['path'], settings=TINY)
    assert node.is_finished_ok, node.exit_message
    energies = [frame.energy for frame in labels['dataset']]
    assert [frame.energy for frame in path] == pytest.approx(energies, abs=1e-5)
    for image, label in zip(path, labels['dataset'], strict=True):
        assert image.forces == pytest.approx(label.forces, abs=1e-3)
    assert results['path'].level == labels['dataset'].level
    profile = facts['profile']
    assert profile['forward'] == pytest.approx(max(energies) - energies[0], abs=1e-5)
    assert profile['forward'] == pytest.approx(profile['reverse'], abs=5e-3)
    again, node = run_band(results['path'], TINY, band)  # near as it is, it climbs from the first step on
    assert node.is_finished_ok, node.exit_message
    assert 'NSTEPS_IT 0' in node.base.repository.get_object_content('aiida.inp')
    assert (again['results']['n_steps'], again['results']['is_climbing']) == (1, True)
    assert again['results']['profile']['forward'] == pytest.approx(profile['forward'], abs=1e-3)


@pytest.mark.slow
def test_a_band_without_time_or_without_a_converged_cycle_says_so(run_band):
    results, node = run_band(path_of(5), TINY, {}, max_wallclock_seconds=12)
    assert node.exit_status == 400, (node.exit_status, node.exit_message)
    assert not node.base.caching.is_valid_cache
    results, node = run_band(path_of(1), {**TINY, 'max_scf': 3, 'outer_scf': 0}, {'max_steps': 1})
    assert node.exit_status == 500
    assert 'image 0 (and 2 more): the SCF cycle' in node.exit_message
    assert 'path' not in results


# ---------------------------------------------------------------------- exit codes, from a recorded band


def test_a_band_that_is_read_has_images_with_labels_and_the_residual_of_these(parse_band):
    outputs, code = parse_band()
    assert (code.status, 'The path after 1 steps is kept' in code.message) == (500, True)
    images, facts = list(outputs['path']), outputs['results'].get_dict()
    assert images[0].energy == pytest.approx(-17.027652275256 * 27.211386, abs=1e-5)
    assert images[1].positions[1] == pytest.approx([0.2453180989, 0.0996, 3.3349105221], abs=1e-3)
    assert all(image.stress is not None for image in images)
    assert facts['residual'] == pytest.approx(residual_of(images, 5.0, climb=True))
    assert facts['residual'] == pytest.approx(0.281, abs=0.02)
    assert (facts['n_steps'], facts['is_climbing'], facts['is_converged']) == (1, False, False)
    assert facts['settings'] == {'fmax': 0.05, 'climb': True, 'spring': 5.0, 'max_steps': 1, 'relax_ends': True}


def test_a_text_that_idle_processes_left_is_no_image(parse_band, recorded, tmp_path):
    shutil.copy(recorded('ot').path('').parent / 'band' / 'aiida-BAND1.out', tmp_path / 'aiida-BAND4.out')
    outputs, _ = parse_band()
    assert len(outputs['path']) == 3


def test_convergence_is_judged_by_what_was_read_and_not_by_what_cp2k_thinks(parse_band):
    outputs, code = parse_band(fmax=0.5)
    assert code is None
    assert outputs['results']['is_converged']
    assert outputs['results']['is_climbing']


@pytest.mark.parametrize(
    ('given', 'said'),
    [
        ({'spring': 6.0}, 'the springs had 5 eV/Å² instead of 6'),
        ({'climb': False}, 'the band was of the kind CI-NEB instead of IT-NEB'),
        ({'settings': {'cutoff': 120.0}}, 'the cutoff in Ry was 100 instead of 120'),
        ({'settings': {'functional': 'PBEsol'}}, 'was PBE instead of PBEsol'),
        ({'frames': [replace(frame, charge=-2) for frame in recorded_path()]}, 'the charge was 0 instead of -2'),
        ({'frames': [molecule(-0.7), molecule(0.2, 0.15), molecule(0.7)]}, 'image 1 began at other positions'),
        (
            {
                'edit': {
                    'aiida.out': lambda text: text.replace(
                        'REPLICA         =                                               3', 'REPLICA = 4'
                    )
                }
            },
            'there were 4 replicas instead of 3',
        ),
    ],
)
def test_a_band_that_ran_otherwise_than_asked_is_no_result(parse_band, given, said):
    outputs, code = parse_band(**given)
    assert code.status == 520
    assert said in code.message
    assert not outputs


def unconverged(which: int):
    """Return a function that makes an SCF cycle of a text one that did not converge."""

    def change(text: str) -> str:
        places = [match.span() for match in re.finditer(r' *\*\*\* SCF run converged in .*', text)]
        start, end = places[which]
        return f'{text[:start]} *** WARNING in qs_scf.F:598 :: SCF run NOT converged ***{text[end:]}'

    return change


def test_a_cycle_that_did_not_converge_names_its_image_and_leaves_the_path_before_it(parse_band):
    outputs, code = parse_band({'aiida-BAND2.out': unconverged(1)}, fmax=5.0)
    assert code.status == 500
    assert code.message.startswith('The band did not converge: image 1: the SCF cycle')
    assert outputs['results']['n_steps'] == 0
    assert list(outputs['path'])[1].positions == pytest.approx(recorded_path()[1].positions, abs=1e-8)


def test_a_cycle_that_did_not_converge_at_first_leaves_no_path(parse_band):
    def neither(text: str) -> str:
        return unconverged(0)(unconverged(1)(text))

    outputs, code = parse_band({'aiida-BAND3.out': neither})
    assert (code.status, dict(outputs)) == (500, {})
    assert 'image 2: the SCF cycle' in code.message
    assert 'There is no path' in code.message


def without_end(text: str) -> str:
    """Return the text of a run that was killed in its last step."""
    return text[: text.rindex('NEB| REPLICA Nr.    3')]


def half(text: str) -> str:
    """Return a text up to somewhere in its second SCF cycle."""
    return text[: text.rindex('SCF WAVEFUNCTION OPTIMIZATION') + 900]


@pytest.mark.parametrize(
    ('said', 'scheduler', 'status'),
    [
        ('', None, 310),
        ('', 120, 400),
        ('', 110, 410),
        (' *** NEB run terminated - exceeded requested execution time:       5.000 seconds.\n', None, 400),
        ('Program received signal SIGSEGV: Segmentation fault - invalid memory reference.\n', None, 420),
        ('terminate called after throwing an instance of std::bad_alloc\n', None, 410),
    ],
)
def test_a_band_that_broke_off_keeps_the_last_path_all_of_whose_images_have_labels(parse_band, said, scheduler, status):
    broken = {'aiida.out': lambda text: without_end(text) + said, 'aiida-BAND3.out': half}
    outputs, code = parse_band(broken, exit_status=scheduler)
    assert code.status == status, code
    assert outputs['results']['n_steps'] == 0
    assert [frame.energy is not None for frame in outputs['path']] == [True] * 3


def test_what_cannot_be_read_and_what_never_ran_are_told(parse_band, recorded):
    _, code = parse_band(kept=())
    assert code.status == 310
    damaged = {'aiida-r-0.out': lambda text: re.sub(r'(QS. Number of grid levels:) +4', r'\1 four', text)}
    _, code = parse_band(damaged)
    assert (code.status, 'four' in code.message) == (311, True)


def test_a_basis_set_that_is_not_there_is_told(parse_band, recorded, tmp_path):
    said = recorded('no_basis').text
    empty = dict.fromkeys([f'aiida-BAND{index}.out' for index in (1, 2, 3)], lambda _: '')
    outputs, code = parse_band({'aiida.out': lambda _: said, 'aiida-r-0.out': lambda _: '', **empty})
    assert (code.status, dict(outputs)) == (320, {})


def test_ends_that_become_one_structure_are_no_band(parse_band, recorded):
    first = (recorded('ot').path('').parent / 'band' / 'aiida-pos-Replica_nr_1-1.xyz').read_text().splitlines()[-2:]

    def same(text: str) -> str:
        return '\n'.join([*text.splitlines()[:-2], *first]) + '\n'

    _, code = parse_band({'aiida-pos-Replica_nr_3-1.xyz': same})
    assert code.status == 570


def test_files_of_images_come_in_the_order_of_their_numbers(tmp_path):
    for number in ('02', '10', '01', '9'):
        (tmp_path / f'aiida-BAND{number}.out').touch()
    assert [path.name[10:-4] for path in numbered(tmp_path, 'aiida-BAND*.out')] == ['01', '02', '9', '10']


# ---------------------------------------------------------------------- inputs


def sections_for(frames, **band):
    """Return the band of the input for these frames."""
    settings = read_settings(Cp2kSettings, TINY)
    return band_sections(settings, frames, read_settings(BandSettings, band))['MOTION']['BAND']


def test_each_structure_of_the_path_is_a_replica_so_that_nothing_is_interpolated():
    band = sections_for(list(path_of(3).frames))
    assert band['NUMBER_OF_REPLICA'] == 5
    assert [entry['COORD_FILE_NAME'] for entry in band['REPLICA']] == [f'aiida-image-{index}.xyz' for index in range(5)]
    assert (band['BAND_TYPE'], band['ALIGN_FRAMES'], band['ROTATE_FRAMES']) == ('CI-NEB', False, False)


def test_settings_of_the_band_come_in_atomic_units():
    band = sections_for(recorded_path(), fmax=0.03, spring=5.0, climb=False, max_steps=7, relax_ends=False)
    assert band['BAND_TYPE'] == 'IT-NEB'
    assert band['K_SPRING'] == pytest.approx(5.0 * 0.529177**2 / 27.21139, rel=1e-5)
    assert band['CONVERGENCE_CONTROL']['MAX_FORCE'] == pytest.approx(0.03 / 3**0.5 * 0.529177 / 27.21139, rel=1e-5)
    optimiser = band['OPTIMIZE_BAND']
    assert (optimiser['OPTIMIZE_END_POINTS'], optimiser['DIIS']['MAX_STEPS']) == (False, 7)


@pytest.mark.parametrize(('ranks', 'images', 'each'), [(1, 5, 1), (4, 5, 1), (16, 7, 4), (7, 5, 7), (64, 9, 8)])
def test_as_many_images_as_can_be_are_computed_at_a_time(ranks, images, each):
    assert ranks_of_replica(ranks, images) == each


def test_a_path_that_is_near_climbs_at_once_or_it_would_converge_without(parse_band):
    outputs, _ = parse_band()
    images = list(outputs['path'])
    assert outputs['path'].level == level(read_settings(Cp2kSettings, TINY))  # and would be known when it goes in
    loose, tight = (read_settings(BandSettings, {'fmax': fmax}) for fmax in (0.5, 0.05))
    assert steps_before_climb(images, loose, same_level=True) == 0
    assert steps_before_climb(images, loose, same_level=False) == STEPS_BEFORE_CLIMB
    assert steps_before_climb(images, tight, same_level=True) == STEPS_BEFORE_CLIMB
    assert steps_before_climb(recorded_path(), loose, same_level=True) == STEPS_BEFORE_CLIMB


@pytest.mark.parametrize(
    ('settings', 'band', 'said'),
    [
        ({'run': 'relax'}, {}, '`run` is `relax`'),
        ({'band_edges': True}, {}, 'no `band_edges`'),
        ({'sections': {'MOTION': {'BAND': {'K_SPRING': 1.0}}}}, {}, 'how atoms move'),
        ({'nonsense': 1}, {}, 'unknown setting'),
        ({}, {'nonsense': 1}, 'unknown setting'),
        ({}, {'fmax_before_climb': 0.2}, 'after a number of steps'),
        ({}, {'fmax_ends': 0.01, 'max_steps_ends': 5}, '`max_steps_ends` cannot be honoured'),
    ],
)
def test_what_a_band_of_cp2k_cannot_honour_is_refused(settings, band, said):
    problem = labeller_named('cp2k').problem_of_band({**TINY, **settings}, band)
    assert said in problem


def test_the_labeller_offers_its_band():
    labeller = labeller_named('cp2k')
    assert labeller.band is Cp2kBandCalculation
    assert labeller.problem_of_band(TINY, {'fmax': 0.05, 'spring': 2.0, 'relax_ends': False}) is None


@pytest.mark.parametrize(
    ('frames', 'said'),
    [
        (recorded_path()[:2], 'needs its two ends'),
        ([*recorded_path()[:2], molecule(0.7, 2.0)][::-1], None),
        ([replace(molecule(-0.7), charge=-1), *recorded_path()[1:]], 'has the charge 0 and not -1'),
        ([replace(frame, charge=-1, spin=1) for frame in recorded_path()], 'image 0: 11 valence electrons'),
    ],
)
def test_paths_that_are_none_are_refused_at_submission(cp2k_code, frames, said):
    from aiida_perovmlip.labellers.cp2k.band import _problem_of_frames

    problem = _problem_of_frames(frames, TINY)
    assert problem is None if said is None else said in problem


def test_an_isolated_system_is_moved_into_the_middle_of_its_box_in_all_images_alike(cp2k_code, fast, water, tmp_path):
    frames = [water(12.0, shift) for shift in (0.0, 0.1, 0.2)]
    manager = get_manager()
    inputs = {'code': cp2k_code, 'path': DatasetData.from_frames(frames), 'settings': fast}
    process = instantiate_process(manager.get_runner(), Cp2kBandCalculation, **inputs)
    folder = Folder(tmp_path)
    info = process.prepare_for_submission(folder)
    assert 'aiida-r-0.out' in info.retrieve_list
    written = [ase.io.read(tmp_path / f'aiida-image-{index}.xyz').positions for index in range(3)]
    assert written[0].mean() > 4.0
    for before, after, frame, following in zip(written, written[1:], frames, frames[1:], strict=False):
        assert after - before == pytest.approx(following.positions - frame.positions)


def test_the_ports_are_those_of_every_band_of_a_labeller():
    spec = Cp2kBandCalculation.spec()
    assert {'path', 'settings', 'band', 'code'} <= set(spec.inputs)
    assert not {'frames', 'repair', 'parameters', 'structure'} & set(spec.inputs)
    assert {'path', 'results'} <= set(spec.outputs)
    assert 'dataset' not in spec.outputs
