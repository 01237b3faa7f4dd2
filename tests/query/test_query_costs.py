"""What jobs cost."""

from __future__ import annotations

import pytest
from aiida import orm
from query_world import process, put

from aiida_perovmlip.query import compare_architectures, costs, potentials
from aiida_perovmlip.query.jobs import cores_of


@pytest.fixture
def job():
    """Return a function that makes a job with results."""

    def make(kind, told=None, options=None, **inputs):
        node = process(f'perovmlip.{kind}', options=options, **inputs)
        if told is not None:
            put(node, 'results', orm.Dict(told))
        return node

    return make


@pytest.mark.parametrize(
    ('resources', 'cores'),
    [
        ({'num_machines': 2, 'num_mpiprocs_per_machine': 8}, 16),
        ({'num_machines': 1, 'num_mpiprocs_per_machine': 2, 'num_cores_per_mpiproc': 4}, 8),
        ({'num_machines': 2, 'num_mpiprocs_per_machine': 1, 'num_cores_per_machine': 32}, 64),
        ({'parallel_env': 'mpi', 'tot_num_mpiprocs': 12}, 12),
        ({'num_machines': 3}, None),
        ({}, None),
    ],
)
def test_cores_are_those_that_were_asked_for(resources, cores):
    assert cores_of(resources) == cores


def test_core_hours_are_cores_times_wall_time_or_what_a_program_tells(job):
    own = job('evaluate', {'seconds': {'task': 1.0, 'total': 1800.0}, 'device': 'cpu'})
    dft = job('vasp.label', {'seconds_of_labels': 7200.0, 'n_labelled': 3})
    band = job('cp2k.band', {'seconds': 3600.0})
    row = {node.pk: costs(node).iloc[0] for node in (own, dft, band)}
    assert [row[node.pk]['core_hours [h]'] for node in (own, dft, band)] == [2.0, 2.0, 1.0]
    assert row[own.pk]['wall_hours [h]'] == 0.5
    assert row[own.pk]['gpu_hours [h]'] == 0.0
    assert row[dft.pk]['n_labels'] == 3
    assert costs(dft).isna()['gpu_hours [h]'].tolist() == [True]


def test_gpu_hours_count_the_gpus_that_were_asked_for_or_that_the_trainer_tells_of(job):
    seconds = {'seconds': {'total': 3600.0}, 'device': 'cuda'}
    one, four = job('md', seconds), job('train.mace', {**seconds, 'effective': {'gpus': 4}})
    asked, idle = job('md', seconds, options={'gpus': 2}), job('md', {**seconds, 'device': 'cpu'}, options={'gpus': 2})
    assert [costs(node)['gpu_hours [h]'].item() for node in (one, four, asked, idle)] == [1.0, 4.0, 2.0, 0.0]


def test_what_nobody_told_is_unknown_and_counted_as_such(job):
    killed = job('train.mace')
    total = costs(killed).attrs['total']
    assert total == {'n_jobs': 1, 'core_hours': 0, 'gpu_hours': 0, 'n_labels': 0, 'n_unknown': 1}


def test_a_copy_that_caching_has_made_costs_nothing(job):
    told = {'seconds': {'total': 3600.0}, 'device': 'cpu', 'n_labelled': 2}
    original, copy = job('label', told), job('label', told)
    copy.base.extras.set('_aiida_cached_from', original.uuid)
    table = costs([original, copy])
    assert table['from_cache'].tolist() == [False, True]
    assert table.attrs['total'] == {'n_jobs': 1, 'core_hours': 4.0, 'gpu_hours': 0.0, 'n_labels': 2, 'n_unknown': 0}


def test_the_cost_of_a_potential_is_that_of_all_that_its_chains_tried(make_potential, store_frames):
    chain = orm.WorkChainNode(process_type='aiida.workflows:perovmlip.train').store()
    told = {'seconds': {'total': 900.0}, 'device': 'cpu', 'strategy': 'scratch'}
    frames = store_frames('frames', 75)
    for label in ('diverged', 'good'):
        node = process('perovmlip.train.mace', 510 if label == 'diverged' else 0, label, chain, training=frames)
        put(node, 'results', orm.Dict(told))
    potential = put(node, 'potential', make_potential('costly', 'costly', store=False))
    assert costs(potential)['label'].tolist() == ['diverged', 'good']
    assert costs(potential).attrs['total']['core_hours'] == 2.0
    (row,) = compare_architectures([potential]).to_dict('records')
    assert row['training_core_hours [h]'] == 2.0
    assert row['dataset'] is None


def test_an_equal_potential_has_the_errors_of_the_one_that_was_evaluated(make_potential, store_frames, evaluated):
    one, two, bulk = make_potential('equal'), make_potential('equal'), store_frames('bulk', 78)
    original, copy = evaluated(one, bulk, 0.1), evaluated(two, bulk, 0.1)
    copy.base.extras.set('_aiida_cached_from', original.uuid)
    table = compare_architectures(datasets=[bulk])
    known = table[table['potential'].isin([one.pk, two.pk])]
    assert known['forces_rmse [eV/Å]'].tolist() == [0.1, 0.1]


def test_the_lineage_of_one_potential_names_parents_that_were_not_asked_for(make_potential, trained, store_frames):
    frames, foundation = store_frames('frames', 76), make_potential('base')
    first = trained('first', frames, parent=foundation)
    second = trained('second', frames, 'multihead', parent=first, replay=frames)
    (row,) = potentials([second]).to_dict('records')
    assert row['lineage'] == [foundation.pk, first.pk, second.pk]
    assert (row['stage'], row['parent'], row['replay'], row['strategy']) == (2, first.pk, frames.pk, 'multihead')
    assert row['n_parameters'] is None
