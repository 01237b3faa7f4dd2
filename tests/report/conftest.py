"""A made-up report of a realistic size, and the pieces it consists of."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aiida_perovmlip.report.contents import (
    Curve,
    DatasetCard,
    Edge,
    EvaluationSection,
    Lineage,
    NodeMark,
    Parity,
    PotentialCard,
    PotentialReport,
    TrainingRecord,
)

LEVEL = {'labeller': 'tblite', 'functional': 'GFN1-xTB', 'kpoints': '2x2x2', 'fingerprint': '0c4e5b1a9d7f3e21'}
GROUPS = {'cubic': 420, 'tetragonal': 310, 'orthorhombic': 265, 'iodine vacancy': 140, 'surface CsI': 65}


def uuid_of(number: int) -> str:
    """Return a UUID that is always the same for a number."""
    return str(uuid.UUID(int=0x9E3779B97F4A7C15F39CC0605CEDC834 ^ (number * 0x1000000000000000000001)))


def errors_of(predicted: Any, reference: Any, unit: str) -> dict[str, Any]:
    """Return a block of metrics."""
    error = predicted - reference
    return {
        'n': len(error),
        'mae': float(np.abs(error).mean()),
        'rmse': float(np.sqrt((error**2).mean())),
        'bias': float(error.mean()),
        'largest': float(np.abs(error).max()),
        'r2': float(1 - (error**2).sum() / ((reference - reference.mean()) ** 2).sum()),
        'unit': unit,
    }


def make_parity(quantity: Any, count: int, seed: int = 0) -> Parity:
    """Return made-up values of a quantity with errors of a usual size."""
    rng = np.random.default_rng(seed)
    unit, centre, spread, error, kinds = {
        'energy': ('eV/atom', -3.9, 0.09, 0.0035, tuple(GROUPS)),
        'forces': ('eV/Å', 0.0, 0.8, 0.045, ('Cs', 'I', 'Pb')),
        'stress': ('eV/Å³', -0.004, 0.006, 0.0004, tuple(GROUPS)),
    }[quantity]
    reference = centre + spread * rng.standard_t(6, count)
    predicted = reference + error * rng.standard_t(4, count)
    categories = tuple(kinds[index] for index in rng.integers(0, len(kinds), count))
    return Parity(quantity, unit, reference, predicted, categories, 'element' if quantity == 'forces' else 'group')


def make_evaluation(dataset: DatasetCard, counts: tuple[int, int, int], seed: int = 0) -> EvaluationSection:
    """Return an evaluation with the metrics that belong to its points."""
    parities = tuple(
        make_parity(name, count, seed) for name, count in zip(('energy', 'forces', 'stress'), counts, strict=True)
    )
    energy, forces, stress = parities
    metrics: dict[str, Any] = {
        'n_frames': dataset.n_frames,
        'n_atoms': dataset.n_atoms,
        'state': 'finite',
        'same_level': True,
        'microseconds_per_atom': 38.2,
        'energy_per_atom': errors_of(energy.predicted, energy.reference, 'eV/atom'),
        'forces': errors_of(forces.predicted, forces.reference, 'eV/Å'),
        'stress': errors_of(stress.predicted, stress.reference, 'eV/Å³'),
        'per_element': {},
        'per_group': {},
    }
    for symbol, scale in (('Cs', 0.6), ('I', 1.0), ('Pb', 1.3)):
        error = {key: value * scale for key, value in metrics['forces'].items() if key not in ('n', 'unit', 'r2')}
        metrics['per_element'][symbol] = {'forces': {**error, 'n': 1200, 'unit': 'eV/Å'}}
    for index, name in enumerate(GROUPS):
        metrics['per_group'][name] = {
            key: {**metrics[key], 'rmse': metrics[key]['rmse'] * (0.7 + 0.2 * index), 'n': 100}
            for key in ('energy_per_atom', 'forces', 'stress')
        }
    return EvaluationSection(dataset, metrics, parities, uuid_of(51 + seed), 151 + seed)


def make_curve(n_steps: int = 80) -> Curve:
    """Return a curve that falls and then overfits a little."""
    rng = np.random.default_rng(3)
    steps = []
    for step in range(n_steps):
        fall, noise = np.exp(-step / 14), rng.normal(0, 0.05, 7)
        entry = {'step': step, 'loss': (0.9 * fall + 0.012) * np.exp(noise[0])}
        for index, (name, start, floor) in enumerate(
            (('energy_per_atom', 0.08, 0.0031), ('forces', 0.6, 0.038), ('stress', 0.004, 0.00041))
        ):
            entry[f'training_{name}_rmse'] = (start * fall + 0.85 * floor) * np.exp(noise[1 + index])
            late = floor * (1 + 0.0015 * step)
            entry[f'validation_{name}_rmse'] = (1.1 * start * fall + late) * np.exp(noise[4 + index])
        steps.append(entry)
    return Curve(tuple(steps))


def make_dataset_card(number: int, label: str, n_frames: int, role: str = '') -> DatasetCard:
    """Return a dataset."""
    share = n_frames / sum(GROUPS.values())
    return DatasetCard(
        uuid=uuid_of(number),
        pk=number,
        label=label,
        n_frames=n_frames,
        n_atoms=40 * n_frames,
        elements=('Cs', 'I', 'Pb'),
        groups={name: round(count * share) for name, count in GROUPS.items()},
        labels=('energy', 'forces', 'stress'),
        levels={'default': LEVEL},
        energy_per_atom_range=(-4.213, -3.611),
        force_range=(0.0, 6.83),
        content_hash=f'{number:064x}',
        role=role,
    )


def make_lineage(n_batches: int = 3) -> Lineage:
    """Return structures that are labelled in batches, joined, split, trained on and evaluated."""
    marks: list[NodeMark] = []
    edges: list[Edge] = []

    def add(kind: Any, type_name: str, label: str = '', state: str = '', detail: str = '') -> str:
        number = 100 + len(marks)
        marks.append(NodeMark(uuid_of(number), number, kind, label, type_name, detail, state))
        return marks[-1].uuid

    def link(source: str, target: str, label: str) -> None:
        edges.append(Edge(source, target, label))

    join = add('process', 'concatenate_datasets', state='finished')
    for batch in range(n_batches):
        recipe = add('data', 'Dict', 'recipe', detail='rattle 0.08 Å')
        build = add('process', 'build_structures', state='finished')
        frames = add('data', 'DatasetData', f'structures {batch}', detail='400 frames, 16 000 atoms')
        settings = add('data', 'Dict', 'GFN1-xTB')
        label = add('process', 'Label<tblite>', state='finished' if batch else 'finished with exit code 400')
        labelled = add('data', 'DatasetData', f'labelled {batch}', detail='398 frames, 15 920 atoms')
        for source, target, name in (
            (recipe, build, 'recipe'),
            (build, frames, 'result'),
            (frames, label, 'dataset'),
            (settings, label, 'settings'),
            (label, labelled, 'dataset'),
            (labelled, join, f'part_{batch}'),
        ):
            link(source, target, name)
    joined = add('data', 'DatasetData', 'CsPbI3, all phases')
    split = add('process', 'split_dataset', state='finished')
    seed, parts = add('data', 'Int', '42'), add('data', 'Dict', 'parts')
    link(join, joined, 'result')
    for source, name in ((joined, 'dataset'), (seed, 'seed'), (parts, 'parts')):
        link(source, split, name)
    train = add('process', 'Train<mace>', state='finished', detail='ran mace@localhost')
    for name in ('training', 'validation'):
        part = add('data', 'DatasetData', name)
        link(split, part, name)
        link(part, train, name)
    test = add('data', 'DatasetData', 'test')
    link(split, test, 'test')
    for name in ('settings', 'architecture'):
        link(add('data', 'Dict' if name == 'settings' else 'Str', name), train, name)
    link(seed, train, 'seed')
    potential = add('data', 'PotentialData', 'mace CsPbI3')
    link(train, potential, 'potential')
    evaluate = add('process', 'Evaluate<mace>', state='finished')
    link(potential, evaluate, 'potential')
    link(test, evaluate, 'dataset')
    link(evaluate, add('data', 'Dict', 'metrics'), 'metrics')
    return Lineage(tuple(marks), tuple(edges), potential)


def build_report(counts: tuple[int, int, int] = (120, 14_400, 720), **changes: Any) -> PotentialReport:
    """Return a whole report; `counts` are the numbers of energies, force components and stress components."""
    lineage = make_lineage()
    training = make_dataset_card(201, 'training', 960, 'training')
    validation = make_dataset_card(202, 'validation', 120, 'validation')
    contents: dict[str, Any] = {
        'title': 'MACE potential of CsPbI₃',
        'created': '2025-11-03T14:22:10+00:00',
        'potential': PotentialCard(
            uuid=lineage.focus_uuid,
            pk=131,
            label='mace CsPbI3',
            architecture='mace',
            elements=('Cs', 'I', 'Pb'),
            cutoff=6.0,
            level=LEVEL,
            dtype='float64',
            n_parameters=187_344,
            content_hash=f'{77:064x}',
            settings={'r_max': 6.0, 'max_ell': 3, 'optimizer': {'name': 'adam', 'lr': 0.01}, 'ema': True, 'seed': 42},
        ),
        'datasets': (training, validation),
        'evaluations': (
            make_evaluation(make_dataset_card(203, 'test', 120), counts),
            make_evaluation(validation, (120, 900, 60), seed=1),
        ),
        'curve': make_curve(),
        'lineage': lineage,
        'training': TrainingRecord(uuid_of(40), 140, 'Train<mace>', seed=42, seconds={'total': 5130.2, 'task': 5084.7}),
        'versions': {'python': '3.11.9', 'torch': '2.8.0', 'mace-torch': '0.3.14', 'aiida-perovmlip': '0.1.0'},
    }
    return PotentialReport(**{**contents, **changes})


@pytest.fixture(scope='session')
def make_report() -> Callable[..., PotentialReport]:
    """Return a function that makes a report."""
    return build_report


@pytest.fixture(scope='session')
def points() -> Callable[..., Parity]:
    """Return a function that makes the points of a parity plot."""
    return make_parity


@pytest.fixture(scope='session')
def curve() -> Curve:
    """Return a training curve."""
    return make_curve()


@pytest.fixture(scope='session')
def lineage() -> Callable[..., Lineage]:
    """Return a function that makes a lineage."""
    return make_lineage
