"""Slabs, molecules, single atoms and defects as datasets, with provenance."""

from __future__ import annotations

import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.dataset import join_datasets, name_group, state_cell
from aiida_perovmlip.calculations.functions.defects import make_defect, make_defects
from aiida_perovmlip.calculations.functions.structures import build_frames
from aiida_perovmlip.calculations.functions.surfaces import build_atoms, build_molecules, build_surface


def test_a_surface_is_a_slab_a_molecule_and_all_ways_in_which_they_meet():
    recipe = {'formula': 'CsPbI3', 'molecule': 'CN', 'anchors': ['N', 'C'], 'sites': ['Pb', 'I'], 'heights': [2.6, 3.4]}
    found = build_surface(orm.Dict(recipe), orm.Int(0))
    groups = found.base.attributes.get('groups')
    assert groups['slab'] == groups['molecule'] == 1
    assert {name: count for name, count in groups.items() if ' on ' in name} == {
        'N on Pb': 2,
        'N on I': 2,
        'C on Pb': 2,
        'C on I': 2,
    }
    assert {len(frame) for frame in found if ' on ' in frame.group} == {len(found[0]) + len(found[1])}
    assert found.creator.inputs.recipe.get_dict() == recipe


def test_a_recipe_that_makes_no_surface_is_refused():
    with pytest.raises(ValueError, match='holds no O'):
        build_surface(orm.Dict({'molecule': 'CN', 'anchors': ['O']}), orm.Int(0))
    with pytest.raises(ValueError, match='planez'):
        build_surface(orm.Dict({'planez': 3}), orm.Int(0))


def test_molecules_and_atoms_stand_alone():
    gas = build_molecules(orm.List(['CN', 'O']), orm.Float(12.0))
    assert [len(frame) for frame in gas] == [7, 3]
    assert all(frame.pbc.all() for frame in gas)
    atoms = build_atoms(orm.List(['Cs', 'I']))
    assert [frame.spin for frame in atoms] == [2, 2]
    assert {frame.group for frame in atoms} == {'IsolatedAtom'}


def test_each_defect_is_put_into_each_crystal_and_names_its_frame():
    families = [{'formula': formula, 'count': 1} for formula in ('CsPbI3', 'CsPbBr3')]
    crystals = build_frames(orm.Dict({'families': families}), orm.Int(0))
    recipes = [{'kind': 'vacancy', 'ion': 'Cs'}, {'kind': 'substitution', 'ion': 'Pb', 'by': 'Sn'}]
    found = make_defects(crystals, orm.List(recipes))
    assert [frame.group for frame in found] == ['CsPbI3 v_Cs', 'CsPbI3 Sn_Pb', 'CsPbBr3 v_Cs', 'CsPbBr3 Sn_Pb']
    assert [frame.spin for frame in found] == [2, 1, 2, 1]


def test_a_group_is_renamed_and_labels_stay(make_dataset):
    dataset = make_dataset(3).store()
    found = name_group(dataset, orm.Str('surface'))
    assert found.base.attributes.get('groups') == {'surface': 3}
    assert [frame.energy for frame in found] == [frame.energy for frame in dataset]
    assert found.levels == dataset.levels


def test_a_crystal_that_says_its_charge_joins_charged_defects():
    crystal = build_frames(orm.Dict({'families': [{'formula': 'CsPbI3', 'count': 1}]}), orm.Int(0))
    defects = make_defect(crystal, orm.Dict({'kind': 'vacancy', 'ion': 'I', 'charge': 1}))
    joined = join_datasets(crystal=state_cell(crystal, orm.Dict({'charge': 0})), defects=defects)
    assert [frame.charge for frame in joined] == [0, 1]
    with pytest.raises(ValueError, match='frames with the charge 1, and not 0'):
        state_cell(defects, orm.Dict({'charge': 0}))
    with pytest.raises(ValueError, match='energy: only `charge` and `spin`'):
        state_cell(crystal, orm.Dict({'energy': 0.0}))
