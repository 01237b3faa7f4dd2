"""The potential node."""

from __future__ import annotations

import pickle

import pytest
from aiida import orm
from aiida.common.exceptions import StoringNotAllowed

from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.potential import PotentialData

FACTS = {'architecture': 'reference', 'elements': ['Pb', 'Cs'], 'cutoff': 5.0, 'dtype': 'float64', 'n_parameters': 3}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'a.json').write_text('{}')
    (tmp_path / 'sub' / 'b.bin').write_bytes(b'\0\1')
    return tmp_path


def test_a_potential_keeps_its_files_and_facts(folder, tmp_path_factory):
    potential = PotentialData(folder, levels={'default': Level('cp2k', 'PBE')}, **FACTS).store()
    loaded = orm.load_node(potential.pk)
    assert loaded.file_names() == ['a.json', 'sub/b.bin']
    assert loaded.elements == ['Cs', 'Pb']
    assert loaded.levels['default'].functional == 'PBE'
    target = loaded.export(tmp_path_factory.mktemp('out') / 'new')
    assert (target / 'sub' / 'b.bin').read_bytes() == b'\0\1'


def test_equal_files_are_an_equal_potential(folder):
    one, other = PotentialData(folder, **FACTS).store(), PotentialData(folder, **FACTS).store()
    assert one.content_hash == other.content_hash
    assert one.base.caching.compute_hash() == other.base.caching.compute_hash()
    (folder / 'a.json').write_text('{"x": 1}')
    assert PotentialData(folder, **FACTS).content_hash != one.content_hash


def test_the_level_is_part_of_a_potential(folder):
    one, other = (PotentialData(folder, levels={'default': Level(name)}, **FACTS).store() for name in ('cp2k', 'vasp'))
    assert one.base.caching.compute_hash() != other.base.caching.compute_hash()


def test_typed_fields_find_potentials(folder):
    potential = PotentialData(folder, **{**FACTS, 'cutoff': 4.75}).store()
    fields = PotentialData.fields
    filters = (
        (fields.architecture == 'reference')
        & (fields.cutoff > 4.7)
        & (fields.cutoff < 4.8)
        & fields.elements.contains(['Cs'])
    )
    assert [potential.uuid] in orm.QueryBuilder().append(PotentialData, filters=filters, project=fields.uuid).all()


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'architecture': ''}, 'architecture'),
        ({'elements': []}, 'elements'),
        ({'elements': ['Xx']}, "'Xx' is not a chemical element"),
        ({'cutoff': 0.0}, 'cutoff'),
        ({'levels': {'other': Level('cp2k')}}, 'levels for heads that it has not'),
    ],
)
def test_an_incomplete_potential_is_not_stored(folder, change, words):
    with pytest.raises(StoringNotAllowed, match=words):
        PotentialData(folder, **{**FACTS, **change}).store()


def test_an_empty_or_changed_potential_is_not_stored(folder, tmp_path_factory):
    with pytest.raises(StoringNotAllowed):
        PotentialData().store()
    with pytest.raises(StoringNotAllowed, match='no files'):
        PotentialData(tmp_path_factory.mktemp('empty'), **FACTS).store()
    changed = PotentialData(folder, **FACTS)
    changed.base.repository.put_object_from_file(str(folder / 'a.json'), 'more.json')
    with pytest.raises(StoringNotAllowed, match='content_hash'):
        changed.store()


class Bomb:
    """What a hostile potential file could hold."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, 'w'))


def test_a_pickle_is_never_opened_here(tmp_path):
    fuse = tmp_path / 'exploded'
    folder = tmp_path / 'potential'
    folder.mkdir()
    (folder / 'mace.model').write_bytes(pickle.dumps(Bomb(str(fuse))))
    potential = PotentialData(folder, **{**FACTS, 'architecture': 'mace'}).store()
    orm.load_node(potential.pk).export(tmp_path / 'out')
    with pytest.raises((PermissionError, ModuleNotFoundError)):
        potential.calculator()
    assert not fuse.exists()


def test_a_pickle_needs_trust_even_where_the_package_is_installed(folder, monkeypatch):
    monkeypatch.setattr('aiida_perovmlip.compute.architectures.mace.Mace.requirements', ())
    potential = PotentialData(folder, **{**FACTS, 'architecture': 'mace'})
    with pytest.raises(PermissionError, match='trust=True'):
        potential.calculator()
