"""Potentials from elsewhere: looked into by a job where they are pickles, and read where they are text."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.functions.potentials import import_potential, levels_of_heads
from aiida_perovmlip.calculations.inspect import InspectCalculation

SPRINGS = {'constant': 1.0, 'offset': -2.0, 'cutoff': 4.0, 'elements': ['Cs', 'I', 'Pb']}
LEVEL = {'labeller': 'vasp', 'functional': 'PBE'}


class Bomb:
    """What leaves a mark where somebody unpickles it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.write_text, (self.mark, 'exploded')


def files_of(folder: Path, name: str, content: bytes) -> orm.FolderData:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)
    return orm.FolderData(tree=str(folder)).store()


@pytest.fixture
def inspect(python_code):
    def run(files, **inputs):
        builder = InspectCalculation.get_builder()
        builder.code, builder.architecture, builder.files = python_code, 'pickled', files
        for name, value in inputs.items():
            setattr(builder, name, value)
        return run_get_node(builder)

    return run


def test_a_job_tells_what_is_in_a_pickle_that_is_trusted(inspect, tmp_path):
    files = files_of(tmp_path / 'in', 'springs.pickle', pickle.dumps(SPRINGS))
    outputs, node = inspect(files, trust=True, levels=LEVEL)
    assert node.is_finished_ok, node.exit_message
    potential = outputs['potential']
    assert (potential.elements, potential.cutoff, potential.architecture) == (['Cs', 'I', 'Pb'], 4.0, 'pickled')
    assert potential.levels['default'].functional == 'PBE'
    assert potential.file_names() == ['springs.pickle']
    assert node.process_label == 'Inspect<pickled>'


def test_a_pickle_that_nobody_vouches_for_is_not_opened(inspect, tmp_path):
    mark = tmp_path / 'mark'
    files = files_of(tmp_path / 'in', 'springs.pickle', pickle.dumps(Bomb(mark)))
    with pytest.raises(ValueError, match=r'pickles, which can run foreign code .* say so by `trust`'):
        inspect(files)
    assert not mark.exists()


def test_what_a_trusted_file_does_it_does_in_the_job_and_the_potential_keeps_what_went_in(inspect, tmp_path):
    mark = tmp_path / 'mark'
    files = files_of(tmp_path / 'in', 'springs.pickle', pickle.dumps(Bomb(mark)))
    _, node = inspect(files, trust=True)
    assert mark.exists()
    assert node.exit_status == 210
    assert 'pickled cannot open springs.pickle: TypeError' in node.exit_message
    assert 'potential' not in node.outputs


def test_an_architecture_that_is_not_installed_is_a_sentence(inspect, tmp_path):
    files = files_of(tmp_path / 'in', 'a', b'')
    with pytest.raises(ValueError, match='there is no architecture `magic`; installed are'):
        inspect(files, architecture='magic', trust=True)


def test_text_is_read_without_a_job(tmp_path):
    files = files_of(tmp_path / 'in', 'springs.json', json.dumps(SPRINGS).encode())
    potential = import_potential(files, orm.Str('springs'), orm.Dict(LEVEL))
    assert potential.elements == ['Cs', 'I', 'Pb']
    assert potential.creator.inputs.files.uuid == files.uuid


def test_no_pickle_is_read_without_a_job(tmp_path):
    mark = tmp_path / 'mark'
    files = files_of(tmp_path / 'in', 'springs.pickle', pickle.dumps(Bomb(mark)))
    with pytest.raises(PermissionError, match='opened in a job alone: run InspectCalculation'):
        import_potential(files, orm.Str('pickled'), orm.Dict({}))
    assert not mark.exists()


@pytest.mark.parametrize(('name', 'content'), [('reference', b'\0pickle'), ('nep', b'nep9 1 H'), ('springs', b'{}')])
def test_rubbish_is_a_sentence(tmp_path, name, content):
    file = {'reference': 'reference.json', 'nep': 'nep.txt', 'springs': 'springs.json'}[name]
    with pytest.raises(ValueError, match=r'\S'):
        import_potential(files_of(tmp_path / 'in', file, content), orm.Str(name), orm.Dict({}))


def test_levels_are_those_of_heads():
    assert levels_of_heads({}, ['a', 'b']) == {}
    assert levels_of_heads(LEVEL, ['default'])['default'].labeller == 'vasp'
    assert set(levels_of_heads({'a': LEVEL}, ['a', 'b'])) == {'a'}
    with pytest.raises(ValueError, match='the heads a, b; give the level of theory of each'):
        levels_of_heads(LEVEL, ['a', 'b'])
    with pytest.raises(ValueError, match='there is a level of theory for c'):
        levels_of_heads({'c': LEVEL}, ['a', 'b'])
