"""A small history of trainings and evaluations: a foundation potential, two fine-tunings, three test sets."""

from __future__ import annotations

from typing import Any

import pytest
from query_world import process, put

from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData


@pytest.fixture
def count_queries() -> Any:
    """Return a list that grows with every SELECT."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.lstrip().upper().startswith(('SELECT', 'WITH')):
            seen.append(statement)

    event.listen(Engine, 'before_cursor_execute', note)
    yield seen
    event.remove(Engine, 'before_cursor_execute', note)


@pytest.fixture
def make_potential(tmp_path) -> Any:
    """Return a function that stores a potential of some content."""

    def make(content: str, label: str = '', heads=('default',), store: bool = True) -> PotentialData:
        folder = tmp_path / content
        folder.mkdir(exist_ok=True)
        (folder / 'potential.json').write_text(content)
        kind = {'architecture': 'reference', 'elements': ['Cs', 'I', 'Pb'], 'cutoff': 5.0, 'heads': heads}
        node = PotentialData(folder, **kind)
        node.label = label
        return node.store() if store else node

    return make


@pytest.fixture
def broken_evaluation() -> Any:
    """Return a function that makes an evaluation whose forces are not finite."""
    from aiida import orm

    def make(potential: Any, dataset: Any) -> None:
        block = {'n': 9, 'n_not_finite': 9, 'unit': 'eV/Å'}
        node = process('perovmlip.evaluate', 530, potential=potential, dataset=dataset)
        put(node, 'metrics', orm.Dict({'state': 'not_finite', 'forces': block}))

    return make


@pytest.fixture
def evaluated() -> Any:
    """Return a function that makes an evaluation with given errors."""
    from aiida import orm

    def make(potential: Any, dataset: Any, forces: float, exit_status: int = 0, **more: Any) -> Any:
        node = process('perovmlip.evaluate', exit_status, potential=potential, dataset=dataset)
        metrics = {
            'state': 'finite',
            'head': 'default',
            'same_level': True,
            'microseconds_per_atom': 12.5,
            'energy_per_atom': {'n': 3, 'mae': forces / 20, 'rmse': forces / 10, 'unit': 'eV/atom'},
            'forces': {'n': 360, 'mae': forces / 2, 'rmse': forces, 'unit': 'eV/Å'},
            **more,
        }
        put(node, 'metrics', orm.Dict(metrics))
        return node

    return make


@pytest.fixture
def trained(make_potential: Any) -> Any:
    """Return a function that makes a training and its potential."""
    from aiida import orm

    def make(
        content: str, training: Any, strategy: str = 'naive', has_results: bool = True, **inputs: Any
    ) -> PotentialData:
        node = process('perovmlip.train.mace', training=training, **inputs)
        if has_results:
            put(node, 'results', orm.Dict({'strategy': strategy}))
        return put(node, 'potential', make_potential(content, content, store=False))

    return make


@pytest.fixture
def trained_in_legs(make_potential: Any, localhost: Any) -> Any:
    """Return a function that makes a training of several legs, each resumed from the folder of the one before."""
    from aiida import orm

    def make(content: str, legs: int, **inputs: Any) -> PotentialData:
        for leg in range(legs):
            node = process('perovmlip.train.mace', 0 if leg == legs - 1 else 400, **inputs)
            put(node, 'results', orm.Dict({'strategy': 'naive'}))
            folder = orm.RemoteData(remote_path=f'/{content}/{leg}', computer=localhost)
            inputs['restart'] = put(node, 'remote_folder', folder)
        return put(node, 'potential', make_potential(content, content, store=False))

    return make


@pytest.fixture
def store_frames(make_dataset: Any) -> Any:
    """Return a function that stores a dataset under a label."""

    def make(label: str, seed: int, count: int = 3) -> DatasetData:
        node = make_dataset(count, seed=seed)
        node.label = label
        return node.store()

    return make
