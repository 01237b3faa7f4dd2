"""What VASP is asked for, and what is refused before it is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.settings import SettingsError, describe_settings, read_settings
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.labellers.vasp import Vasp, inputs
from aiida_perovmlip.labellers.vasp.settings import VaspSettings, level_of

VALENCES = {'Cs': 9.0, 'Pb': 4.0, 'I': 7.0, 'H': 1.0}


def settings(**given):
    return read_settings(VaspSettings, given)


def incar(frame, repair='', **given):
    return inputs.incar_of(settings(**given), frame, VALENCES, repair)


@pytest.fixture
def refused(family):
    labeller = Vasp()
    return lambda frame, **given: labeller.refusal(settings(**{'potential_family': family, **given}), frame)


# ---------------------------------------------------------------------- settings


def test_it_is_a_labeller():
    assert isinstance(labeller_named('vasp'), Vasp)
    assert all(row['help'] for row in describe_settings(VaspSettings))


@pytest.mark.parametrize('name', list(Vasp().protocols()))
def test_each_protocol_can_be_used_and_says_where_it_is_from(name):
    labeller, protocol = Vasp(), Vasp().protocols()[name]
    assert protocol.about.endswith('.')
    assert protocol.origin
    assert labeller.problem(protocol.settings, {}) is None


def test_the_protocols_of_the_papers_have_their_settings(shuffled):
    of = {name: settings(**protocol.settings) for name, protocol in Vasp().protocols().items()}
    third, fourth = of['scan-rvv10'], of['scan-rvv10-500']
    tags = inputs.incar_of(third, shuffled, VALENCES)
    assert {key: tags[key] for key in ('metagga', 'luse_vdw', 'bparam', 'cparam', 'encut', 'lasph')} == {
        'metagga': 'SCAN',
        'luse_vdw': True,
        'bparam': 15.7,
        'cparam': 0.0093,
        'encut': 520,
        'lasph': True,
    }
    assert 'gga' not in tags
    tags = inputs.incar_of(fourth, shuffled, VALENCES)
    assert (tags['metagga'], tags['encut'], tags['ediff']) == ('SCAN', 500, 1e-6)
    assert inputs.mesh_of(fourth, shuffled) == (2, 2, 2)
    assert inputs.shift_of(fourth, (2, 2, 2)) == (0.5, 0.5, 0.5)
    fly = of['scan-rvv10-500-on-the-fly']
    assert level_of(fly) == level_of(fourth)
    tags = inputs.incar_of(fly, replace(shuffled, numbers=np.array([1, 82, 53, 53, 53], np.uint8)), VALENCES)
    assert tags['pomass'] == [4, 207.2, 126.90447]
    assert (tags['mdalgo'], tags['isif'], tags['langevin_gamma'], tags['langevin_gamma_l']) == (3, 3, [3, 3, 3], 3)
    assert tags['nsw'] * tags['potim'] == 105_000


@pytest.mark.parametrize(
    ('given', 'words'),
    [
        ({'dispersion': 'rVV10'}, 'rVV10 was parametrised for SCAN, r2SCAN, but not for PBE'),
        ({'kpoints': [2, 2]}, 'three numbers from 1 on'),
        ({'kpoints': [2, 2, 2], 'kspacing': 0.2}, 'give one of them'),
        ({'functional': 'HSE06', 'algorithm': 'Fast'}, 'hybrid functionals cannot use'),
        ({'ml': {'ml_mode': 'train'}}, '`ml` is for molecular dynamics'),
        ({'ml': {'mode': 'train'}, 'run': 'md'}, 'begin with `ml_`'),
        ({'incar': {'enuct': 500}}, 'VASP does not know and would pass over in silence'),
        ({'incar': {'LREAL': 'Auto'}}, 'lower case'),
        ({'incar': {'encut': 500}}, 'this is said by cutoff'),
        ({'incar': {'ml_lmlff': True}}, 'goes into `ml`'),
        ({'incar': {'magmom': {'Fe': 5}}}, 'use numbers, text, booleans'),
        ({'incar': {'pstress': 20.0}}, 'which gives no labels: energies and stresses would be those under'),
        ({'incar': {'algo': 'None'}}, 'it does not minimise the energy'),
        ({'incar': {'algo': 'Eigenval'}}, 'it does not minimise the energy'),
        ({'incar': {'ialgo': 2}}, 'it does not minimise the energy'),
        ({'incar': {'isif': 0}}, 'no whole stress'),
        ({'incar': {'icharg': 11}}, 'no charge density to start from'),
        ({'incar': {'istart': 1}}, 'no wave functions to start from'),
        ({'functional': 'HSE06', 'incar': {'algo': 'veryfast'}}, 'hybrid functionals cannot use'),
        ({'max_scf': 1}, 'has to be left over'),
        ({'functional': 'B3LYP'}, 'has to be one of'),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, words):
    with pytest.raises(SettingsError, match=words):
        settings(**given)
    assert words in Vasp().problem(given, {})


def test_only_what_changes_a_label_is_part_of_the_level():
    one = level_of(settings())
    same = {
        'algorithm': 'All',
        'max_scf': 300,
        'run': 'md',
        'steps': 9,
        'incar': {'ncore': 4, 'amix': 0.1, 'nelmin': 6, 'system': 'words'},
    }
    assert level_of(settings(**same)) == one
    for other in (
        {'cutoff': 400.0},
        {'functional': 'PBEsol'},
        {'dispersion': 'D3BJ'},
        {'energy_tolerance': 1e-5},
        {'smearing_width': 0.1},
        {'kpoints': [2, 2, 2]},
        {'aspherical': False},
        {'incar': {'lreal': 'Auto'}},
        {'incar': {'addgrid': True}},
        {'potential_family': 'LDA'},
        {'potential_mapping': {'Pb': 'Pb_d'}},
        {'spin_polarised': True},
    ):
        assert level_of(settings(**other)).fingerprint != one.fingerprint, other


@pytest.mark.parametrize(
    'given',
    [
        {'incar': {'isym': 2}},
        {'incar': {'prec': 'accurate', 'gga': 'pe', 'lasph': '.TRUE.', 'lreal': False, 'addgrid': False}},
        {'incar': {'algo': 'all', 'icharg': 2, 'pstress': 0}},
        {'gamma_centred': False},
    ],
)
def test_what_changes_nothing_is_no_other_level(given):
    mesh = {'kpoints': [3, 1, 5]}
    assert level_of(settings(**mesh, **given)) == level_of(settings(**mesh))


def test_a_mesh_with_an_even_number_depends_on_where_it_is_centred():
    meshes = [level_of(settings(kpoints=[3, 2, 1], gamma_centred=centred)).kpoints for centred in (True, False)]
    assert meshes == ['3x2x1, Gamma-centred', '3x2x1']


# ---------------------------------------------------------------------- tags, mesh, order


def test_species_stand_together_and_atoms_of_one_keep_their_order(shuffled):
    order = inputs.order_of(shuffled)
    assert order.tolist() == [0, 2, 4, 1, 3]
    assert inputs.species_of(shuffled) == ['I', 'Cs', 'Pb']
    grouped = replace(shuffled, numbers=np.array([82, 53, 53, 53, 55], np.uint8))
    assert inputs.order_of(grouped).tolist() == [0, 1, 2, 3, 4]


def test_the_spacing_of_k_points_has_the_factor_two_pi_as_in_vasp():
    cell = np.diag([6.3, 12.6, 25.2])
    frame = Frame(np.array([82], np.uint8), np.zeros((1, 3)), cell, np.ones(3, bool))
    # 2π / 6.3 Å is 0.9973 Å⁻¹: seven intervals of 0.15 Å⁻¹, and four, and two
    assert inputs.mesh_of(settings(kspacing=0.15), frame) == (7, 4, 2)
    assert inputs.mesh_of(settings(kspacing=2 * np.pi / 6.3), frame) == (1, 1, 1)
    assert inputs.mesh_of(settings(kspacing=2 * np.pi / 12.6), frame) == (2, 1, 1)
    assert inputs.mesh_of(settings(), frame) == (1, 1, 1)
    assert inputs.mesh_of(settings(kpoints=[3, 2, 1]), frame) == (3, 2, 1)
    assert inputs.shift_of(settings(), (2, 3, 1)) == (0, 0, 0)
    assert inputs.shift_of(settings(gamma_centred=False), (2, 3, 1)) == (0.5, 0, 0)


def test_electrons_are_counted_where_the_frame_has_a_charge(shuffled):
    assert 'nelect' not in incar(shuffled)
    assert 'nelect' not in incar(replace(shuffled, charge=0))
    assert incar(replace(shuffled, charge=1, spin=2))['nelect'] == 33
    assert incar(replace(shuffled, charge=-1, spin=2))['nelect'] == 35


@pytest.mark.parametrize(
    ('spin', 'polarised', 'ispin', 'nupdown'),
    [(None, False, 1, None), (1, False, 1, None), (3, False, 2, 2), (1, True, 2, 0), (None, True, 2, None)],
)
def test_the_multiplicity_decides_on_spin(shuffled, spin, polarised, ispin, nupdown):
    tags = incar(replace(shuffled, spin=spin), spin_polarised=polarised)
    assert (tags['ispin'], tags.get('nupdown')) == (ispin, nupdown)


def test_tags_of_the_user_win_and_null_removes_one(shuffled):
    tags = incar(shuffled, incar={'lreal': 'Auto', 'nsw': None})
    assert tags['lreal'] == 'Auto'
    assert 'nsw' not in tags


@pytest.mark.parametrize('repair', [repair.name for repair in Vasp.repairs])
def test_a_repair_touches_no_tag_of_the_level(shuffled, repair):
    from aiida_perovmlip.labellers.vasp.settings import SILENT

    for run in ('energy', 'md'):
        before, after = incar(shuffled, run=run), incar(shuffled, repair, run=run)
        changed = {tag for tag in before | after if before.get(tag) != after.get(tag)}
        assert changed
        assert changed <= SILENT


def test_the_repairs_of_the_labeller_are_those_that_exist():
    assert {repair.name for repair in Vasp.repairs} == set(inputs.REPAIRS)


# ---------------------------------------------------------------------- refusals


def test_frames_that_vasp_cannot_label_are_refused(shuffled, refused):
    assert refused(shuffled) is None
    assert 'no cell' in refused(replace(shuffled, cell=np.zeros((3, 3)), pbc=np.zeros(3, bool)))
    assert 'left-handed' in refused(replace(shuffled, cell=shuffled.cell[[1, 0, 2]]))
    assert 'leaves -6 electrons' in refused(replace(shuffled, charge=40))


def test_a_spin_that_does_not_fit_the_charge_is_refused(shuffled, refused):
    assert 'cannot be paired, and it has no multiplicity' in refused(replace(shuffled, charge=1))
    assert refused(replace(shuffled, charge=1), spin_polarised=True) is None
    assert refused(replace(shuffled, charge=1, spin=2)) is None
    assert 'cannot have the multiplicity 2; it has to be odd' in refused(replace(shuffled, spin=2))
    assert 'cannot have the multiplicity 3; it has to be even' in refused(replace(shuffled, charge=1, spin=3))
    assert 'at most 35' in refused(replace(shuffled, spin=37))


def test_a_potcar_that_is_missing_is_named_before_anything_is_submitted(shuffled, refused, family):
    tin = replace(shuffled, numbers=np.array([53, 55, 53, 50, 53], np.uint8))
    assert refused(tin) == f'the family `{family}` has no POTCAR `Sn_d` for Sn.'
    gold = replace(shuffled, numbers=np.array([53, 55, 53, 79, 53], np.uint8))
    assert '`potential_mapping` names no POTCAR for Au' in refused(gold)
    assert 'there is no family `nowhere` of POTCAR files' in refused(shuffled, potential_family='nowhere')
    with pytest.raises(ValueError, match='there is no family `nowhere`'):
        Vasp().inputs(orm.Dict({'potential_family': 'nowhere'}), '')
    assert 'the POTCAR for Pb is of Cs' in refused(shuffled, potential_mapping={'I': 'I', 'Cs': 'Cs_sv', 'Pb': 'Cs_sv'})


def test_the_inputs_hold_the_potcars_that_the_family_has(family):
    given = Vasp().inputs(orm.Dict({'potential_family': family}), 'algo_all')
    assert given['repair'].value == 'algo_all'
    assert set(given['potential']) == {'H', 'C', 'N', 'I', 'Pb', 'Cs', 'Si'}
    assert given['potential']['Cs'].title == 'PAW_PBE Cs_sv 00Xxx0000'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'repair': 'prayer'}, 'there is no repair `prayer`; there are algo_normal'),
        ({'settings': {'cutof': 1}}, 'unknown setting'),
        ({'potential': {}}, '`potential` has no POTCAR for Cs, I, Pb'),
        ({'n_frames': 2}, 'there are 2 frames, but a job takes one'),
        ({'charge': 1}, 'frame 0: 33 valence electrons'),
        ({'ml_ab': True}, '`ml_ab` is for runs that learn on the fly'),
    ],
)
def test_what_no_job_could_do_is_refused_before_it_starts(shuffled, family, change, words, tmp_path):
    from aiida.engine import run

    from aiida_perovmlip.data.dataset import DatasetData

    labeller, change = Vasp(), dict(change)
    frame = replace(shuffled, charge=change.pop('charge', None))
    given = {
        'frames': DatasetData.from_frames([frame] * change.pop('n_frames', 1)),
        **labeller.inputs(orm.Dict({'potential_family': family}), ''),
        **change,
    }
    if 'ml_ab' in given:
        (tmp_path / 'ML_AB').write_text('nothing')
        given['ml_ab'] = orm.SinglefileData(tmp_path / 'ML_AB')
    with pytest.raises(ValueError, match=words):
        run(labeller.process, **given)
