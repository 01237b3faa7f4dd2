"""Labelling jobs of VASP, by a stand-in that is not VASP."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from aiida import orm
from aiida.manage.caching import enable_caching

from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.labellers.vasp.ml_ab import read_ml_ab
from aiida_perovmlip.labellers.vasp.reading import digest_of

PAIR = {'incar': {'system': 'pair'}}


def failure(outputs):
    """Return kind and reason of the only frame."""
    (entry,) = outputs['results']['failed']
    return entry['kind'], entry['reason']


def test_a_frame_of_shuffled_species_gets_its_own_labels_in_its_own_order(label, shuffled, evaluate):
    outputs, node = label(shuffled)
    assert node.is_finished_ok, node.exit_message
    assert node.base.repository.get_object_content('POSCAR').splitlines()[5].split() == ['I', 'Cs', 'Pb']
    (frame,) = outputs['dataset']
    (expected,) = evaluate([shuffled])
    assert np.array_equal(frame.numbers, shuffled.numbers)
    assert np.array_equal(frame.positions, shuffled.positions)
    assert np.array_equal(frame.cell, shuffled.cell)
    assert frame.energy == pytest.approx(expected['energy'], abs=1e-6)
    assert np.allclose(frame.forces, expected['forces'], atol=1e-6)
    assert np.abs(frame.forces).max() > 0.1
    assert np.allclose(frame.stress, expected['stress'], atol=1e-7)
    assert (frame.source, frame.group, frame.trajectory) == (node.uuid, 'cubic', '')


def test_the_level_of_the_dataset_is_that_of_the_labeller(label, shuffled):
    outputs, node = label(shuffled, **PAIR)
    labeller = labeller_named('vasp')
    assert outputs['dataset'].level == labeller.level_of(node.inputs.settings.get_dict(), {})
    assert Level.from_dict(outputs['results']['level']) == outputs['dataset'].level
    assert outputs['results']['facts']['0']['gap_eV'] == 1.5
    assert outputs['results']['seconds_of_labels'] == 6.0
    assert outputs['results']['potcars'] == [
        'PAW_PBE I 00Xxx0000',
        'PAW_PBE Cs_sv 00Xxx0000',
        'PAW_PBE Pb 00Xxx0000',
    ]


def test_what_was_run_is_kept_with_the_job_but_no_potcar(label, shuffled):
    _, node = label(shuffled, kspacing=0.5, gamma_centred=False, **PAIR)
    names = node.base.repository.list_object_names()
    assert {'INCAR', 'KPOINTS', 'POSCAR'} <= set(names)
    assert 'POTCAR' not in names
    assert 'POTCAR' not in node.outputs.retrieved.base.repository.list_object_names()
    assert 'vasprun.xml' not in node.outputs.retrieved.base.repository.list_object_names()
    lines = node.base.repository.get_object_content('KPOINTS').splitlines()
    assert lines[3].split() == ['2', '2', '3']
    assert [float(part) for part in lines[4].split()] == [0.5, 0.5, 0.0]
    assert node.outputs.results['mesh'] == [2, 2, 3]


def test_a_charge_is_missing_electrons_and_the_calculation_knows_of_it(label, shuffled, evaluate):
    charged = replace(shuffled, charge=1, spin=2)
    outputs, node = label(charged)
    assert node.is_finished_ok, node.exit_message
    incar = node.base.repository.get_object_content('INCAR')
    assert 'NELECT = 33' in incar  # 3 × 7 of I, 9 of Cs, 4 of Pb, less one
    assert 'NUPDOWN = 1' in incar
    assert 'ISPIN = 2' in incar
    (frame,) = outputs['dataset']
    assert (frame.charge, frame.spin) == (1, 2)
    neutral, cation = evaluate([shuffled])[0], evaluate([shuffled], charge=1)[0]
    assert abs(cation['energy'] - neutral['energy']) > 1.0
    assert frame.energy == pytest.approx(cation['energy'], abs=1e-2)


def test_a_neutral_frame_leaves_the_electrons_to_vasp(label, shuffled):
    _, node = label(replace(shuffled, charge=0), **PAIR)
    assert node.is_finished_ok
    assert 'NELECT' not in node.base.repository.get_object_content('INCAR')


def test_the_same_frame_is_served_from_the_cache(label, shuffled):
    label(shuffled, **PAIR)
    with enable_caching():
        _, again = label(shuffled, **PAIR)
    assert again.base.caching.get_cache_source() is not None


# ---------------------------------------------------------------------- atoms that move


@pytest.mark.parametrize('vary_cell', [False, True])
def test_each_step_of_a_relaxation_is_a_label(label, shuffled, evaluate, vary_cell):
    outputs, node = label(shuffled, run='relax', steps=5, vary_cell=vary_cell, incar={'system': 'pair'})
    assert node.is_finished_ok, node.exit_message
    frames = list(outputs['dataset'])
    assert len(frames) == 5
    assert {frame.trajectory for frame in frames} == {digest_of(shuffled)}
    assert np.array_equal(frames[0].positions, shuffled.positions)
    assert frames[-1].energy < frames[0].energy
    assert (np.abs(frames[-1].cell - frames[0].cell).max() > 1e-3) == vary_cell
    for before, after in pairwise(frames):  # VASP wraps atoms into the cell, we do not
        assert np.abs(after.positions - before.positions).max() < 1.0


def test_molecular_dynamics_gives_the_labels_of_each_step(label, shuffled, evaluate):
    outputs, node = label(shuffled, run='md', steps=4, timestep=2.0, temperature=600.0)
    assert node.is_finished_ok, node.exit_message
    frames = list(outputs['dataset'])
    assert len(frames) == 4
    for frame, expected in zip(frames, evaluate(frames), strict=True):
        assert frame.energy == pytest.approx(expected['energy'], abs=1e-4)
        assert np.allclose(frame.forces, expected['forces'], atol=1e-3)  # its SCF starts from the step before


def test_the_seed_decides_the_simulation_and_nothing_else_does(label, shuffled):
    def run(seed):
        outputs, _ = label(shuffled, run='md', steps=3, seed=seed, ensemble='NVE', **PAIR)
        return outputs['dataset'][2].positions

    assert np.array_equal(run(1), run(1))
    assert np.abs(run(1) - run(2)).max() > 1e-3


def test_steps_whose_scf_cycle_did_not_converge_are_left_out(label, shuffled):
    outputs, node = label(shuffled, run='md', steps=4, incar={'system': 'pair unconverged:2'})
    assert node.is_finished_ok
    assert len(outputs['dataset']) == 3
    facts = outputs['results']['facts']['0']
    assert (facts['n_steps'], facts['n_skipped']) == (4, 1)
    assert facts['skipped'] == ['step 2: the SCF cycle took all of its 100 steps (NELM).']


def test_what_is_learned_on_the_fly_becomes_the_dataset(label, shuffled, evaluate):
    outputs, node = label(shuffled, run='md', steps=7, ml={'ml_mode': 'train'})
    assert node.is_finished_ok, node.exit_message
    incar = node.base.repository.get_object_content('INCAR')
    assert 'ML_LMLFF = .TRUE.' in incar
    assert 'ML_MODE = train' in incar
    frames = list(outputs['dataset'])
    assert len(frames) == 3  # the steps 1, 4 and 7 were computed from first principles
    facts = outputs['results']['facts']['0']
    assert (facts['n_steps'], facts['n_predicted'], facts['n_skipped']) == (7, 4, 0)
    assert {frame.trajectory for frame in frames} == {digest_of(shuffled)}
    for frame, expected in zip(frames, evaluate(frames), strict=True):
        assert np.array_equal(frame.numbers, shuffled.numbers)
        assert frame.energy == pytest.approx(expected['energy'], abs=1e-4)
        assert np.allclose(frame.forces, expected['forces'], atol=1e-3)
        assert np.allclose(frame.stress, expected['stress'], atol=1e-5)


def test_learning_goes_on_from_what_was_learned_and_counts_it_once(label, shuffled, learned_text):
    learned = orm.SinglefileData(io.StringIO(learned_text), 'ML_AB').store()
    system = {'system': 'pair unconverged:4'}
    outputs, node = label(shuffled, run='md', steps=7, ml={'ml_mode': 'train'}, incar=system, nodes={'ml_ab': learned})
    assert node.is_finished_ok, node.exit_message
    assert len(outputs['dataset']) == 2  # of the steps 1, 4 and 7 the second did not converge
    assert len(list(read_ml_ab(learned_text.splitlines()))) == 2


def test_the_kernel_of_the_dispersion_reaches_the_job(label, shuffled, make_code, stand_in, tmp_path):
    script = tmp_path / 'vasp_with_kernel'
    script.write_text(f'#!/bin/sh\ngrep -q "not a real kernel" vdw_kernel.bindat && exec {stand_in}\n')
    script.chmod(0o755)
    kernel = orm.SinglefileData(io.StringIO('not a real kernel'), 'kernel').store()
    settings = {'functional': 'SCAN', 'dispersion': 'rVV10', **PAIR, 'code': make_code('vasp-kernel', script)}
    outputs, node = label(shuffled, nodes={'vdw_kernel': kernel}, **settings)
    assert node.is_finished_ok, node.exit_message
    assert outputs['dataset'].level.dispersion == 'rVV10'
    assert label(shuffled, **settings)[1].exit_status == 320


# ---------------------------------------------------------------------- failures


def test_an_scf_cycle_that_does_not_converge_gives_no_label(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair steps:1000'})
    assert node.exit_status == 500
    assert 'dataset' not in outputs
    assert failure(outputs) == ('not_converged', 'step 1: the SCF cycle took all of its 100 steps (NELM).')


@pytest.mark.parametrize(
    ('repair', 'need', 'more'),
    [
        ('algo_normal', 'needs:algo=Normal', {'algorithm': 'Fast'}),
        ('algo_normal', 'steps:150', {}),
        ('algo_all', 'needs:algo=All', {}),
        ('algo_all', 'steps:250', {}),
        ('smaller_mixing', 'needs:amix=0.1 needs:bmix=0.0001', {}),
        ('smaller_steps', 'needs:time=0.1', {}),
        ('smaller_steps', 'needs:potim=0.5', {'run': 'md', 'steps': 2}),
    ],
)
def test_each_repair_mends_what_it_is_for_and_keeps_the_level(label, shuffled, repair, need, more):
    more = {**more, 'incar': {'system': f'pair {need}'}}
    outputs, node = label(shuffled, **more)
    assert node.exit_status == 500
    mended, node = label(shuffled, repair, **more)
    assert node.is_finished_ok, node.exit_message
    assert mended['dataset'].level == Level.from_dict(outputs['results']['level'])


def test_the_chain_is_offered_each_repair_once():
    labeller = labeller_named('vasp')
    tried = []
    while repair := labeller.next_repair('not_converged', tried):
        tried.append(repair.name)
    assert tried == ['algo_normal', 'algo_all', 'smaller_mixing', 'smaller_steps']
    assert labeller.next_repair('inconsistent', []) is None


@pytest.mark.parametrize(
    ('wish', 'words'),
    [
        ('wrong:enmax=400.0', 'ENCUT is 400.0 instead of 520'),
        ('wrong:ediff=0.0001', 'EDIFF is 0.0001 instead of 1e-06'),
        ('wrong:ismear=1', 'ISMEAR is 1 instead of 0'),
        ('wrong:gga=PS', 'GGA is PS instead of PE'),
        ('wrong:lasph=F', 'LASPH is False instead of True'),
        ('wrong:nelect=33.0', 'it has 33.0 electrons instead of 34'),
        ('wrong:ispin=2', 'ISPIN is 2 instead of 1'),
        ('shift', 'it computed another structure: an atom is 0.17 Å away'),
    ],
)
def test_a_run_at_other_settings_gives_no_label(label, shuffled, wish, words):
    outputs, node = label(shuffled, incar={'system': f'pair {wish}'})
    assert node.exit_status == 520
    assert 'dataset' not in outputs
    kind, reason = failure(outputs)
    assert kind == 'inconsistent'
    assert words in reason


def test_a_functional_that_was_not_read_gives_no_label(label, shuffled):
    good, node = label(shuffled, functional='r2SCAN', **PAIR)
    assert node.is_finished_ok, node.exit_message
    assert good['dataset'].level.functional == 'r2SCAN'
    outputs, node = label(shuffled, functional='r2SCAN', incar={'system': 'pair mute:metagga'})
    assert node.exit_status == 520
    assert 'it says nothing of METAGGA, which was to be R2SCAN' in failure(outputs)[1]


def test_a_frame_without_a_stress_gives_no_label(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair strainless'})
    assert node.exit_status == 520
    assert failure(outputs) == ('inconsistent', 'it computed no stress.')
    slab = replace(shuffled, pbc=np.array([True, True, False]))
    assert label(slab, incar={'system': 'pair strainless'})[1].is_finished_ok


def test_a_step_that_vasp_itself_doubts_is_no_label(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair doubt:1'})
    assert node.exit_status == 520
    assert failure(outputs) == ('inconsistent', 'step 1: VASP warns: "BRMIX: very serious problems".')
    outputs, node = label(shuffled, run='md', steps=3, incar={'system': 'pair doubt:2'})
    assert node.is_finished_ok
    assert len(outputs['dataset']) == 2
    assert 'step 2: VASP warns' in outputs['results']['facts']['0']['skipped'][0]


@pytest.fixture
def other_lead(tmp_path):
    """Return another POTCAR of lead, of the same name and the same title as that of the family."""
    from aiida_vasp.data.potcar import PotcarData, sha512_potcar

    def upload(name):
        (tmp_path / name / 'Pb').mkdir(parents=True)
        (tmp_path / name / 'Pb' / 'POTCAR').write_text(LEAD)
        PotcarData.upload_potcar_family(tmp_path / name, name, 'Made up for tests', stop_if_existing=False)
        return PotcarData.find_one(sha512=sha512_potcar(LEAD))

    return upload


LEAD = """  PAW_PBE Pb 00Xxx0000
 4.0
 parameters from PSCTR are:
   VRHFIN =Pb: made up otherwise
   LEXCH  = PE
   TITEL  = PAW_PBE Pb 00Xxx0000
   POMASS =    1.000; ZVAL   =     4.000    mass and valenz
   ENMAX  =  210.000; ENMIN  =  150.000 eV
 END of PSCTR-controll parameters
 End of Dataset
"""


def test_the_level_knows_the_potcar_that_was_used_and_not_its_name_alone(label, shuffled, family, other_lead):
    labeller, settings = labeller_named('vasp'), {'potential_family': family, **PAIR}
    usual = labeller.level_of(settings, {})
    assert 'Cs: PAW_PBE Cs_sv 00Xxx0000 (' in usual.basis
    nodes = {**labeller.inputs(orm.Dict(settings), '')['potential'], 'Pb': other_lead('elsewhere')}
    outputs, node = label(shuffled, nodes={'potential': nodes}, **settings)
    assert node.is_finished_ok, node.exit_message
    level = outputs['dataset'].level
    assert level.fingerprint != usual.fingerprint
    assert level == labeller.level_of(settings, {'potential': nodes})


def test_a_family_that_was_made_anew_with_other_files_is_another_level(family, other_lead):
    from aiida_vasp.data.potcar import PotcarGroup

    settings = {'potential_family': 'made-anew', 'potential_mapping': {'Pb': 'Pb'}}
    other_lead('made-anew')
    before = labeller_named('vasp').level_of(settings, {})
    assert labeller_named('vasp').level_of(settings, {}) == before
    group = PotcarGroup.collection.get(label='made-anew')
    group.clear()
    group.add_nodes(labeller_named('vasp').inputs(orm.Dict({'potential_family': family}), '')['potential']['Pb'])
    assert labeller_named('vasp').level_of(settings, {}).fingerprint != before.fingerprint


@pytest.mark.parametrize(
    ('words', 'status', 'kind', 'told'),
    [
        ('', 420, 'crashed', 'Killed'),
        ('slurmstepd: error: Detected 1 oom-kill event(s)', 410, 'memory', 'It completed 0 steps'),
        ('Error EDDDAV: Call to ZHEGV failed. Returncode =  13', 420, 'failed', 'Error in ZHEGV from EDDAV.'),
        ('vdw_kernel.bindat: No such file or directory', 320, 'environment', 'The last line of'),
    ],
)
def test_a_run_that_dies_says_why(label, shuffled, words, status, kind, told):
    outputs, node = label(shuffled, words=words, incar={'system': 'pair stop:1'})
    assert node.exit_status == status
    assert failure(outputs)[0] == kind
    assert told in failure(outputs)[1] or words == ''
    assert not node.base.caching.is_valid_cache


def test_steps_before_a_crash_are_kept(label, shuffled):
    outputs, node = label(shuffled, run='md', steps=5, incar={'system': 'pair stop:4'})
    assert node.exit_status == 420
    assert len(outputs['dataset']) == 3
    assert outputs['results']['n_labelled'] == 1
    assert 'It completed 3 steps.' in node.exit_message


def test_an_executable_that_is_not_there_is_no_matter_of_the_frame(label, shuffled, make_code, tmp_path):
    outputs, node = label(shuffled, code=make_code('no-vasp', tmp_path / 'no_vasp'))
    assert node.exit_status == 320
    assert failure(outputs)[0] == 'environment'
    assert not node.base.caching.is_valid_cache


def test_a_job_that_prints_nothing_left_no_response(label, shuffled, make_code, tmp_path):
    script = tmp_path / 'silent'
    script.write_text('#!/bin/sh\nexit 0\n')
    script.chmod(0o755)
    outputs, node = label(shuffled, code=make_code('silent', script))
    assert node.exit_status == 310
    assert failure(outputs) == ('crashed', 'It printed nothing; look at the executable of the code.')


def test_output_that_is_no_xml_is_unreadable(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair garble'})
    assert node.exit_status == 311
    assert 'vasprun.xml, line' in node.exit_message
    assert outputs['results']['n_labelled'] == 1  # the step was complete before
    outputs, node = label(shuffled, incar={'system': 'pair garble unconverged:1'})
    assert (node.exit_status, failure(outputs)[0]) == (311, 'crashed')


def test_a_number_that_did_not_fit_is_no_label(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair stars'})
    assert node.exit_status == 500
    assert 'cannot be read' in failure(outputs)[1]


def test_an_energy_that_no_cell_has_is_not_stored(label, shuffled):
    outputs, node = label(shuffled, incar={'system': 'pair huge'})
    assert node.exit_status == 312
    assert 'too large to be physics' in node.exit_message
    assert 'dataset' not in outputs


@pytest.mark.parametrize(
    ('wish', 'words', 'n_frames'),
    [('forget', 'there is no ML_ABN', 0), ('tear', 'ML_ABN, line', 1)],
)
def test_learned_frames_that_are_not_there_are_a_failure(label, shuffled, wish, words, n_frames):
    outputs, node = label(shuffled, run='md', steps=4, ml={'ml_mode': 'train'}, incar={'system': f'pair {wish}'})
    assert node.exit_status == 312
    assert words in node.exit_message
    assert len(outputs.get('dataset', [])) == n_frames


@pytest.mark.parametrize(('scheduler', 'status', 'kind'), [(120, 400, 'timeout'), (110, 410, 'memory')])
def test_what_the_scheduler_says_of_the_end_is_believed(label, shuffled, scheduler, status, kind):
    """The scheduler of this machine says nothing, so its word is put in before the output is read again."""
    from aiida.common.links import LinkType

    from aiida_perovmlip.labellers.vasp.parser import VaspLabelParser

    _, done = label(shuffled, incar={'system': 'pair stop:1'})
    node = orm.CalcJobNode(computer=done.computer, process_type=done.process_type)
    for entry in done.base.links.get_incoming(link_type=LinkType.INPUT_CALC):
        node.base.links.add_incoming(entry.node, LinkType.INPUT_CALC, entry.link_label)
    node.set_option('resources', {'num_machines': 1})
    node.set_exit_status(scheduler)
    node.store()
    retrieved = orm.FolderData()
    retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
    retrieved.store()
    parser = VaspLabelParser(node)
    code = parser.parse()
    assert code.status == status
    assert failure({'results': parser.outputs['results'].get_dict()})[0] == kind
