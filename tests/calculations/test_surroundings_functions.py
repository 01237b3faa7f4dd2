"""Errors of forces near vacancies that were made by hand, with provenance."""

from __future__ import annotations

import numpy as np
import pytest
from aiida import orm

from aiida_perovmlip.calculations.functions.surroundings import errors_near_defects
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.structures.defects import with_vacancy
from aiida_perovmlip.structures.perovskite import cubic

LEVEL = {'labeller': 'test', 'functional': 'none'}


def dataset_of(*crystals):
    rng = np.random.default_rng(0)
    frames = []
    for atoms in crystals:
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        told = {'energy': 0.0, 'forces': rng.normal(size=(len(atoms), 3))}
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, np.ones(3, dtype=bool), **told))
    return DatasetData.from_frames(frames, LEVEL).store()


def predicted(forces):
    return orm.ArrayData({'forces': forces})


def forces_of(dataset):
    return np.concatenate([frame.forces for frame in dataset.frames])


def test_forces_near_a_vacancy_have_errors_of_their_own():
    whole = cubic('Cs', 'Pb', 'I', 6.3, (3, 3, 3))
    vacant = with_vacancy(whole, 'I', 7)
    gone = whole.positions[np.flatnonzero(whole.numbers == 53)[7]]
    dataset = dataset_of(vacant, cubic('Cs', 'Pb', 'I', 6.3, (3, 3, 3)))
    known = forces_of(dataset)
    ways = (vacant.positions - gone) @ np.linalg.inv(vacant.cell.array)
    away = np.linalg.norm((ways - np.round(ways)) @ vacant.cell.array, axis=1)
    off = known.copy()
    off[: len(vacant)][(vacant.numbers == 82) & (away < 4.0)] += 0.3  # both metals beside it
    found = errors_near_defects(dataset, predicted(off), orm.Dict({'reach': 0.0}))
    assert found['forces']['near']['n'] == 6
    assert found['forces']['near']['mae'] == pytest.approx(0.3)
    assert found['forces']['rest']['mae'] == 0.0
    assert found['forces']['all']['n'] == known.size
    assert (found['n_frames'], found['n_without_defect'], found['marked']) == (2, 1, {'-1': 2})
    assert found.creator.process_label == 'errors_near_defects'
    wide = errors_near_defects(dataset, predicted(off), orm.Dict({}))['forces']
    assert 6 < wide['near']['n'] < 200
    assert 0.0 < wide['near']['mae'] < 0.3


def test_molecules_are_told_by_their_centres():
    host = cubic('MA', 'Pb', 'I', 6.3, (2, 2, 2))
    dataset = dataset_of(with_vacancy(host, 'MA'))
    told = orm.Dict({'sublattice': 'A', 'ions': ['MA'], 'reach': 0.0})
    found = errors_near_defects(dataset, predicted(forces_of(dataset)), told)
    assert found['marked'] == {'-1': 8}
    assert found['forces']['near']['n'] == 24


def test_frames_that_were_not_predicted_are_left_out_and_counted():
    dataset = dataset_of(*(cubic('Cs', 'Pb', 'I', 6.3, (2, 2, 2)) for _ in range(2)))
    forces = forces_of(dataset)
    forces[-1] = np.nan
    found = errors_near_defects(dataset, predicted(forces), orm.Dict({}))
    assert (found['n_frames'], found['n_left_out'], found['forces']['near']) == (1, 1, None)
    with pytest.raises(ValueError, match='no frame has both'):
        errors_near_defects(dataset, predicted(np.nan * forces), orm.Dict({}))
    with pytest.raises(ValueError, match='has 80 atoms, but there are predictions of 85'):
        errors_near_defects(dataset, predicted(np.zeros((85, 3))), orm.Dict({}))
    with pytest.raises(ValueError, match='no metal'):
        errors_near_defects(dataset, predicted(forces), orm.Dict({'metal': 'Sn'}))
