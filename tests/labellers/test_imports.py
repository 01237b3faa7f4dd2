"""Datasets from calculations that AiiDA did not run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from aiida_perovmlip.compute.extxyz import open_text, read_extxyz
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData, LevelError
from aiida_perovmlip.labellers import imports
from aiida_perovmlip.labellers.imports import dataset_from_run, guess_labeller, import_ase_db, import_run

LEVEL = {'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '520 eV'}


def sha256(path: Path) -> str:
    return f'sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}'


# ---------------------------------------------------------------------- outputs of programs


class Run:
    """The output of a program that writes `*.xyz` and leaves out what is unhappy."""

    level = Level(labeller='xyz', functional='PBE', cutoff='520.0 eV')

    def __init__(self, path: Path) -> None:
        self.files = [path] if path.is_file() else sorted(path.rglob('*.xyz'))
        self.skipped: list[str] = []
        self.frames = self._frames()

    def _frames(self) -> Iterator[Frame]:
        for file in self.files:
            with open_text(file) as handle:
                for index, frame in enumerate(read_extxyz(handle, file.name)):
                    if frame.group == 'unhappy':
                        self.skipped.append(f'step {index} of {file.name} did not converge.')
                    else:
                        yield replace(frame, source='' if len(self.files) == 1 else file.name)


class Reader:
    """A labeller that can read output."""

    def read_run(self, path: Path) -> Run:
        run = Run(path)
        if not run.files:
            raise FileNotFoundError(f'there is no *.xyz in {path.name}.')
        return run


class Mute:
    """A labeller that cannot."""

    def read_run(self, path: Path) -> Run:
        raise NotImplementedError('it cannot read output.')


@pytest.fixture
def labellers(monkeypatch):
    known = {'xyz': Reader(), 'mute': Mute()}
    monkeypatch.setattr(imports, 'labeller_named', known.__getitem__)
    monkeypatch.setattr(imports.registry, 'names', lambda group: tuple(sorted(known)))
    return known


@pytest.fixture
def run_folder(make_frames, level, tmp_path, labellers):
    folder = tmp_path / 'run'
    folder.mkdir()
    frames = make_frames(3)
    frames[1] = replace(frames[1], group='unhappy')
    DatasetData.from_frames(frames, level).to_extxyz(folder / 'run.xyz')
    (folder / 'WAVECAR').write_bytes(b'\0' * 1000)
    return folder


def test_a_run_becomes_a_dataset_with_its_files_before_it(run_folder, make_frames):
    dataset = dataset_from_run(run_folder)
    assert dataset.is_stored
    assert len(dataset) == 2
    assert dataset.level == Run.level
    assert np.allclose(dataset[1].forces, make_frames(3)[2].forces)
    assert {frame.source for frame in dataset} == {sha256(run_folder / 'run.xyz')}
    process = dataset.creator
    assert process.inputs.folder.base.repository.list_object_names() == ['run.xyz']
    report = process.outputs.report.get_dict()
    assert (report['labeller'], report['n_frames'], report['n_skipped']) == ('xyz', 2, 1)
    assert report['skipped'] == ['step 1 of run.xyz did not converge.']
    assert report['files'] == [{'name': 'run.xyz', 'hash': sha256(run_folder / 'run.xyz')}]


def test_a_single_file_is_enough(run_folder):
    dataset = dataset_from_run(run_folder / 'run.xyz')
    assert isinstance(dataset.creator.inputs.folder, orm.SinglefileData)
    assert len(dataset) == 2
    again = import_run(orm.Str('xyz'), dataset.creator.inputs.folder)['dataset']
    assert again.content_hash == dataset.content_hash


def test_files_need_not_be_kept_but_their_hashes_are(run_folder):
    kept, dataset = dataset_from_run(run_folder), dataset_from_run(run_folder, keep_files=False)
    assert dataset.content_hash == kept.content_hash
    inputs = dataset.creator.inputs
    assert set(inputs) == {'labeller', 'files'}
    assert inputs.files.get_list() == [{'name': 'run.xyz', 'hash': sha256(run_folder / 'run.xyz')}]
    assert {frame.source for frame in dataset} == {frame.source for frame in kept}


def test_files_that_are_not_those_of_the_hashes_are_refused(run_folder):
    token = imports._FOLDER.set(run_folder)
    try:
        with pytest.raises(ValueError, match='changed while they were read'):
            imports.import_listed_files(orm.Str('xyz'), orm.List([{'name': 'run.xyz', 'hash': 'sha256:0'}]))
    finally:
        imports._FOLDER.reset(token)
    with pytest.raises(ValueError, match='not part of the graph'):
        imports.import_listed_files(orm.Str('xyz'), orm.List([{'name': 'run.xyz', 'hash': 'sha256:0'}]))


def test_each_frame_names_the_file_that_it_is_from(run_folder):
    (run_folder / 'again').mkdir()
    (run_folder / 'again.xyz').write_bytes((run_folder / 'run.xyz').read_bytes() + b'\n')
    dataset = dataset_from_run(run_folder)
    assert [frame.source for frame in dataset] == [
        sha256(run_folder / name) for name in ['again.xyz'] * 2 + ['run.xyz'] * 2
    ]
    assert dataset.creator.outputs.report['n_skipped'] == 2


def test_files_beside_the_one_that_is_named_are_kept_with_it(run_folder, labellers, monkeypatch):
    class Both(Run):
        def __init__(self, path: Path) -> None:
            super().__init__(path if path.is_file() else path / 'run.xyz')
            self.files = [self.files[0], self.files[0].with_name('run.inp')]

        def _frames(self) -> Iterator[Frame]:
            self.files.pop()
            yield from super()._frames()

    (run_folder / 'run.inp').write_text('PBE')
    monkeypatch.setattr(Reader, 'read_run', lambda self, path: Both(path))
    dataset = dataset_from_run(run_folder / 'run.xyz', labeller='xyz')
    assert sorted(dataset.creator.inputs.folder.base.repository.list_object_names()) == ['run.inp', 'run.xyz']
    assert {frame.source for frame in dataset} == {sha256(run_folder / 'run.xyz')}
    assert len(dataset.creator.outputs.report['files']) == 2


def test_a_level_that_is_stated_takes_the_place_of_the_one_that_is_read(run_folder):
    stated = {'labeller': 'xyz', 'functional': 'pbe', 'cutoff': '520 eV', 'basis': 'PAW 54', 'spin': 'closed shell'}
    dataset = dataset_from_run(run_folder, level=stated)
    assert dataset.level == Level.from_dict(stated)
    assert dataset.creator.outputs.report['level_of_files']['cutoff'] == '520.0 eV'


def test_a_level_that_the_output_contradicts_is_refused(run_folder):
    with pytest.raises(ValueError, match=r"`functional` is 'SCAN' in the level that you state and 'PBE' in the output"):
        dataset_from_run(run_folder, level={'labeller': 'xyz', 'functional': 'SCAN'})
    with pytest.raises(ValueError, match='`cutoff` is'):
        dataset_from_run(run_folder, level={'labeller': 'xyz', 'cutoff': '521 eV'})


def test_a_run_without_one_good_frame_is_refused_with_the_first_reason(run_folder, make_frames, level):
    frames = [replace(frame, group='unhappy') for frame in make_frames(2)]
    DatasetData.from_frames(frames, level).to_extxyz(run_folder / 'run.xyz')
    with pytest.raises(ValueError, match=r'not one frame of run\.xyz can be used\. step 0'):
        dataset_from_run(run_folder)


def test_a_place_where_nothing_is_to_be_read_is_named_with_what_everybody_says(labellers, tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        dataset_from_run(tmp_path / 'nowhere')
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match=r'mute: it cannot read output\. xyz: there is no \*\.xyz in empty'):
        dataset_from_run(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError, match=r'no \*\.xyz in empty'):
        dataset_from_run(tmp_path / 'empty', labeller='xyz')


def test_a_run_that_two_labellers_can_read_is_not_guessed(run_folder, labellers):
    labellers['second'] = Reader()
    with pytest.raises(ValueError, match='these can: second, xyz'):
        guess_labeller(run_folder)
    assert len(dataset_from_run(run_folder, labeller='second')) == 2


# ---------------------------------------------------------------------- databases of ASE


@pytest.fixture
def write_db(make_frames, tmp_path):
    def write(name='frames.db', count=4, keys=None, missing=(), **results):
        path = tmp_path / name
        with connect(path) as database:
            for index, frame in enumerate(make_frames(count)):
                atoms = frame.to_atoms()
                more = {name: value(frame) for name, value in results.items()}
                if index not in missing:
                    atoms.calc = SinglePointCalculator(atoms, **{**atoms.calc.results, **more})
                else:
                    atoms.calc = None
                database.write(atoms, **{key: values[index] for key, values in (keys or {}).items()})
        return orm.SinglefileData(path)

    return write


@pytest.mark.parametrize('name', ['frames.db', 'frames.json'])
def test_a_database_gives_back_what_was_written(write_db, make_frames, name):
    file = write_db(name)
    outputs = import_ase_db(file, orm.Dict(LEVEL))
    dataset = outputs['dataset']
    for frame, original in zip(dataset, make_frames(4), strict=True):
        assert frame.energy == pytest.approx(original.energy)
        assert np.allclose(frame.positions, original.positions, atol=1e-12)
        assert np.allclose(frame.forces, original.forces, atol=1e-12)
        assert np.allclose(frame.stress, original.stress, atol=1e-12)
    with file.open(mode='rb') as handle:
        digest = hashlib.sha256(handle.read()).hexdigest()
    assert {frame.source for frame in dataset} == {f'sha256:{digest}'}
    assert outputs['report']['n_frames'] == 4
    assert dataset.level.functional == 'PBE'


def test_rows_come_page_by_page_in_order(write_db, make_frames, monkeypatch):
    monkeypatch.setattr(imports, 'PAGE', 3)
    dataset = import_ase_db(write_db(count=7), orm.Dict(LEVEL))['dataset']
    assert [frame.energy for frame in dataset] == pytest.approx([frame.energy for frame in make_frames(7)])


def test_a_selection_and_keys_are_used(write_db):
    keys = {'family': ['cubic', 'tetra', 'cubic', 'ortho'], 'net': [0, 1, 0, 0], 'series': [1, 1, 2, 2]}
    options = {'selection': 'family!=ortho, net<5', 'group': 'family', 'charge': 'net', 'trajectory': 'series'}
    dataset = import_ase_db(write_db(keys=keys), orm.Dict(LEVEL), orm.Dict(options))['dataset']
    assert [(frame.group, frame.charge, frame.trajectory) for frame in dataset] == [
        ('cubic', 0, '1'),
        ('tetra', 1, '1'),
        ('cubic', 0, '2'),
    ]


def test_labels_under_other_names_are_found(write_db, make_frames):
    file = write_db(keys={'e_dft': [-1.0, -2.0, -3.0, -4.0]})
    dataset = import_ase_db(file, orm.Dict(LEVEL), orm.Dict({'energy': 'e_dft', 'stress': ''}))['dataset']
    assert dataset.frames.column('energy').tolist() == [-1.0, -2.0, -3.0, -4.0]
    assert dataset.labels == ['energy', 'forces']


def test_rows_without_labels_are_left_out_and_told_of(write_db):
    outputs = import_ase_db(write_db(missing=(1, 2)), orm.Dict(LEVEL))
    assert len(outputs['dataset']) == 2
    assert outputs['report']['skipped'] == [f'row {row} has no `energy` and no `forces`.' for row in (2, 3)]


def test_another_free_energy_is_told_of(write_db):
    outputs = import_ase_db(write_db(free_energy=lambda frame: frame.energy - 0.25), orm.Dict(LEVEL))
    (note,) = outputs['report']['notes']
    assert 'by up to 0.250000 eV' in note
    free = import_ase_db(
        write_db('free.db', free_energy=lambda frame: frame.energy - 0.25),
        orm.Dict(LEVEL),
        orm.Dict({'energy': 'free_energy'}),
    )
    assert free['report']['notes'] == []
    shift = free['dataset'].frames.column('energy') - outputs['dataset'].frames.column('energy')
    assert np.allclose(shift, -0.25)


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        ({'selektion': 'x=1'}, 'selektion are unknown'),
        ({'energy': 3}, 'energy are unknown or not text'),
        ({'selection': 'age<1d'}, 'other rows tomorrow'),
        ({'selection': 'natoms>1000'}, r'not one frame of frames\.db can be used'),
        ({'forces': 'f_dft'}, 'row 1 has no `f_dft`'),
    ],
)
def test_options_that_cannot_be_meant_are_refused(write_db, options, words):
    with pytest.raises(ValueError, match=words):
        import_ase_db(write_db(), orm.Dict(LEVEL), orm.Dict(options))


def test_labels_without_a_level_are_refused(write_db):
    with pytest.raises((LevelError, ValueError), match='labeller'):
        import_ase_db(write_db(), orm.Dict({}))


def test_a_row_that_is_no_frame_is_named_with_its_file(write_db):
    with pytest.raises(ValueError, match=r'frames\.db: frame 0: `forces` has shape'):
        import_ase_db(write_db(forces=lambda frame: frame.forces[:2]), orm.Dict(LEVEL))
