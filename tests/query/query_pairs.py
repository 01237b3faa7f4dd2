"""Questions that are asked twice, by the query layer and by a QueryBuilder that is written by hand.

    python query_pairs.py FOLDER STORAGE CONFIG

builds the world in a new profile with a storage, or opens an archive of it, and prints all answers as JSON. Nodes are
named by their labels, which are the same in every storage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiida import load_profile, orm

Answer = Any
PAIRS: dict[str, Callable[[], tuple[Answer, Answer]]] = {}


def labels() -> dict[Any, str]:
    """Return the label of every node by PK, UUID and, for potentials, content."""
    rows = orm.QueryBuilder().append(orm.Node, project=['id', 'uuid', 'label', 'attributes.content_hash']).all()
    return {key: row[2] for row in rows for key in (row[0], row[1], row[3]) if key}


def ask(name: str) -> Callable[[Callable[[], tuple[Answer, Answer]]], None]:
    """Add a question: a function that returns the answer of the query layer and that by hand."""

    def add(question: Callable[[], tuple[Answer, Answer]]) -> None:
        PAIRS[name] = question

    return add


def rows_of(table: Any, *columns: str) -> list[list[Any]]:
    """Return columns of a table as plain values; what is missing is None."""
    values = table[list(columns)].astype(object)
    return values.where(values.notna(), None).values.tolist()


def node(label: str) -> Any:
    """Return the node of a label."""
    return orm.QueryBuilder().append(orm.Node, filters={'label': label}).one()[0]


@ask('which strategy and learning rate has each potential, and which parent')
def potentials() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import potentials

    name, table = labels(), potentials()
    asked = {
        label: [strategy, settings and settings['learning_rate'], name.get(parent), seed, [name[pk] for pk in lineage]]
        for label, strategy, settings, parent, seed, lineage in rows_of(
            table, 'potential_label', 'strategy', 'settings', 'parent', 'seed', 'lineage'
        )
    }
    query = orm.QueryBuilder().append(
        orm.Data, filters={'node_type': {'like': 'data.perovmlip.potential%'}}, tag='potential', project='label'
    )
    query.append(orm.CalcJobNode, with_outgoing='potential', tag='job')
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'results'},
        project=['attributes.strategy', 'attributes.effective.learning_rate'],
    )
    query.append(orm.Int, with_outgoing='job', edge_filters={'label': 'seed'}, project='attributes.value')
    by_hand = {label: [strategy, rate, None, seed, [label]] for label, strategy, rate, seed in query.all()}
    by_hand['foundation'] = [None, None, None, None, ['foundation']]
    query = orm.QueryBuilder().append(orm.Data, tag='parent', project='label')
    query.append(orm.CalcJobNode, with_incoming='parent', edge_filters={'label': 'parent'}, tag='job')
    query.append(orm.Data, with_incoming='job', edge_filters={'label': 'potential'}, project='label')
    parents = {child: parent for parent, child in query.all()}
    for label, entry in by_hand.items():
        entry[2] = parents.get(label)
        while entry[4][0] in parents:
            entry[4].insert(0, parents[entry[4][0]])
    return asked, by_hand


@ask('which node is meant by a label, a PK or the beginning of a UUID')
def names() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query.describe import describe, find

    bulk = node('bulk')
    asked = [find(name, 'dataset')['id'] == bulk.pk for name in ('bulk', bulk.pk, bulk.uuid, bulk.uuid[:9])]
    known = describe('mace naive', 'potential')
    return [asked, known['architecture'], known['n_parameters']], [[True] * 4, 'mace', 5000]


@ask('how many frames and which groups and levels has each dataset with a label')
def datasets() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import datasets

    columns = ('dataset_label', 'n_frames', 'groups', 'levels', 'force_largest [eV/Å]')
    asked = {label: rest for label, *rest in rows_of(datasets(), *columns) if label}
    query = orm.QueryBuilder().append(
        orm.Data,
        filters={'node_type': {'like': 'data.perovmlip.dataset%'}, 'label': {'!==': ''}},
        project=['label', *(f'attributes.{name}' for name in ('n_frames', 'groups', 'levels', 'force_range'))],
    )
    by_hand = {
        label: [
            count,
            groups,
            {head: f'vasp / {level["functional"]} / 500 eV' for head, level in levels.items()},
            span[1],
        ]
        for label, count, groups, levels, span in query.all()
    }
    return asked, by_hand


def metrics(*project: str) -> list[Any]:
    """Return labels of potential and dataset, exit status and metrics of evaluations, the newest first."""
    query = orm.QueryBuilder().append(orm.Data, tag='potential', project='label')
    query.append(
        orm.CalcJobNode,
        tag='job',
        with_incoming='potential',
        edge_filters={'label': 'potential'},
        filters={'process_type': 'aiida.calculations:perovmlip.evaluate'},
        project='attributes.exit_status',
    )
    query.append(orm.Data, with_outgoing='job', edge_filters={'label': 'dataset'}, project='label')
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'metrics'},
        project=[f'attributes.{name}' for name in project],
    )
    return query.order_by({'job': {'id': 'desc'}}).all()


@ask('which errors has each potential on each test set')
def evaluations() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import evaluations

    columns = (
        'potential_label',
        'dataset_label',
        'head',
        'forces_rmse [eV/Å]',
        'same_level',
        'state',
        'speed [µs/atom]',
    )
    asked = {' '.join(entry[:3]): entry[3:] for entry in rows_of(evaluations(), *columns)}
    by_hand: dict[str, Any] = {}
    names = ('head', 'forces', 'per_head', 'same_level', 'same_level_per_head', 'state', 'microseconds_per_atom')
    for potential, _, dataset, head, forces, per_head, same, same_per_head, state, speed in metrics(*names):
        heads = {name: (block['forces'], same_per_head[name]) for name, block in (per_head or {}).items()}
        for name, (block, is_same) in (heads or {head: (forces, same)}).items():
            by_hand.setdefault(f'{potential} {dataset} {name}', [block.get('rmse'), bool(is_same), state, speed])
    return asked, by_hand


@ask('what does each stage of a lineage know of each test set')
def forgetting() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import forgetting_matrix

    name, table = labels(), forgetting_matrix(node('mace multihead'), error='mae')
    asked = [
        [name[pk], *row] for pk, *row in table.astype(object).where(table.notna(), None).reset_index().values.tolist()
    ]
    heads = [f'mixed ({node("mixed").pk}) vasp / {functional} / 500 eV' for functional in ('HSE06', 'PBE')]
    assert list(table.columns) == [f'{label} ({node(label).pk})' for label in ('bulk', 'slab')] + heads
    known: dict[tuple[str, str], Any] = {}
    for potential, _, dataset, forces, per_head in metrics('forces', 'per_head'):
        if per_head:
            known |= {(potential, head): per_head[head]['forces']['mae'] for head in per_head}
        else:
            known.setdefault((potential, dataset), forces.get('mae'))
    stages = ('foundation', 'mace naive', 'mace multihead')
    return asked, [
        [stage, *(known.get((stage, column)) for column in ('bulk', 'slab', 'hse', 'pbe'))] for stage in stages
    ]


@ask('which errors has each strategy on each test set')
def strategies() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import compare_strategies

    table = compare_strategies([node('bulk'), node('slab')], 'energy_per_atom', 'rmse').droplevel('potential')
    table.columns = [column.partition(' ')[0] for column in table.columns]
    asked = rows_of(table.reset_index(), 'strategy', 'potential_label', 'bulk', 'slab')
    known: dict[tuple[str, str], Any] = {}
    for potential, _, dataset, energy in metrics('energy_per_atom'):
        known.setdefault((potential, dataset), energy['rmse'])
    query = orm.QueryBuilder().append(
        orm.Dict, project='attributes.strategy', tag='results', filters={'attributes': {'has_key': 'strategy'}}
    )
    query.append(orm.CalcJobNode, with_outgoing='results', tag='job')
    query.append(orm.Data, with_incoming='job', edge_filters={'label': 'potential'}, project='label')
    by_strategy = sorted([[None, 'foundation'], *query.all()], key=lambda row: row[0] or '')
    return asked, [[*row, *(known.get((row[1], dataset)) for dataset in ('bulk', 'slab'))] for row in by_strategy]


@ask('how far is each barrier from the reference')
def barriers() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import barriers

    columns = (
        'name',
        'path',
        'potential',
        'is_own',
        'is_interior',
        'forward [eV]',
        'forward_error [eV]',
        'reverse_reference [eV]',
    )
    asked = rows_of(barriers(), *columns)
    query = orm.QueryBuilder().append(
        orm.WorkChainNode,
        filters={'process_type': 'aiida.workflows:perovmlip.neb_validation'},
        tag='chain',
        project='label',
    )
    query.append(orm.Dict, with_incoming='chain', project='attributes.paths')
    by_hand = [
        [
            chain,
            path,
            name,
            True,
            told['profile']['is_interior'],
            told['profile']['forward'],
            told['difference']['forward'],
            entry['reference']['reverse'],
        ]
        for chain, paths in query.all()
        for path, entry in sorted(paths.items())
        for name, told in entry['potentials'].items()
    ]
    return asked, by_hand


@ask('which activation energies are known')
def diffusion() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import diffusion

    asked = rows_of(diffusion(), 'name', 'species', 'activation_energy [eV]', 'n_runs')
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'process_type': 'aiida.workflows:perovmlip.diffusion'}, tag='chain', project='label'
    )
    query.append(orm.Dict, with_incoming='chain', project='attributes.species.I.sum')
    by_hand = [
        [label, 'I', told['arrhenius']['activation_energy'], 6] for label, told in query.order_by({'chain': 'id'}).all()
    ]
    return asked, by_hand


@ask('at which temperatures do phases change, and how far are their energies from the reference')
def phases() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import phase_energies, phases

    asked = [
        rows_of(phases(), 'formula', 'high', 'heating [K]', 'cooling [K]', 'width [K]'),
        rows_of(
            phase_energies(), 'phase', 'energy [eV per formula unit]', 'error [eV per formula unit]', 'ranks_alike'
        ),
    ]
    compositions = (
        orm.QueryBuilder()
        .append(orm.Dict, filters={'label': 'phases of map'}, project='attributes.compositions')
        .one()[0]
    )
    names = ('high', 'heating', 'cooling', 'width')
    seen = [
        [name, *(each.get(key) for key in names)]
        for name in ('CsPbI3', 'FAPbI3')
        for each in compositions[name]['transitions'] or [{}]
    ]
    told = (
        orm.QueryBuilder()
        .append(orm.Dict, filters={'label': 'comparison of order'}, project='attributes.potentials.nep')
        .one()[0]
    )
    energies = [
        [phase, energy, told['errors'].get(phase), told['ranks_alike']] for phase, energy in told['energies'].items()
    ]
    return asked, [seen, energies]


@ask('what are architectures good for on one test set, and what do they cost')
def architectures() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import compare_architectures

    columns = ('forces_rmse [eV/Å]', 'barrier_mae [eV]', 'activation_energy [eV]', 'speed [µs/atom]', 'n_parameters')
    costs = ('training_core_hours [h]', 'training_gpu_hours [h]')
    table = compare_architectures(datasets=[node('bulk')])
    asked = {label: rest for label, *rest in rows_of(table, 'potential_label', *columns, *costs)}
    known: dict[str, Any] = {}
    for potential, _, dataset, forces, speed in metrics('forces', 'microseconds_per_atom'):
        if dataset == 'bulk':
            known.setdefault(potential, (forces['rmse'], speed))
    query = orm.QueryBuilder().append(
        orm.Data,
        filters={'node_type': {'like': 'data.perovmlip.potential%'}},
        project=['label', 'attributes.n_parameters', 'attributes.content_hash'],
    )
    sizes = {label: (size, content) for label, size, content in query.all()}
    paths = (
        orm.QueryBuilder().append(orm.Dict, filters={'label': 'comparison of V_I'}, project='attributes.paths').one()[0]
    )
    errors = {
        told['potential']: abs(told['difference']['forward'])
        for path in paths.values()
        for told in path['potentials'].values()
    }
    query = orm.QueryBuilder().append(
        orm.Dict,
        filters={'label': {'like': 'diffusion of study%'}},
        project=['attributes.potential', 'attributes.species.I.sum.arrhenius.activation_energy'],
        tag='study',
    )
    energies = dict(query.order_by({'study': 'id'}).all())  # the newest is the last
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'process_type': 'aiida.workflows:perovmlip.train'}, tag='chain', project='label'
    )
    query.append(orm.CalcJobNode, with_incoming='chain', tag='job')
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'results'},
        project=['attributes.seconds.total', 'attributes.device'],
    )
    hours: dict[str, list[float]] = {}
    for chain, seconds, device in query.all():
        cost = hours.setdefault(chain.removeprefix('training '), [0.0, 0.0])
        cost[0] += 4 * seconds / 3600
        cost[1] += 2 * seconds / 3600 if device == 'cuda' else 0.0
    by_hand = {
        label: [
            known[label][0],
            errors.get(content),
            energies.get(content),
            known[label][1],
            size,
            *hours.get(label.rpartition(' ')[2], [None, None]),
        ]
        for label, (size, content) in sizes.items()
    }
    return asked, by_hand


@ask('which labels came from calculations that had failed and were repaired')
def repaired() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import repaired_labels

    name, table = labels(), repaired_labels()
    columns = ('name', 'frame', 'repair', 'kind', 'reason', 'n_failed', 'failed_job', 'job', 'level')
    asked = [[*row[:6], name[row[6]], name[row[7]], row[8]] for row in rows_of(table, *columns)]
    query = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={'process_type': 'aiida.workflows:perovmlip.label'}, tag='chain', project='label'
    )
    query.append(orm.Dict, with_incoming='chain', project='attributes.repaired')
    ((chain, known),) = query.all()
    parts = node('parts').get_dict()
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'label': chain}, tag='chain')
    query.append(orm.CalcJobNode, with_incoming='chain', tag='job', project='label')
    query.append(orm.Dict, with_incoming='job', project='attributes.failed')
    tried = [(job, failed) for job, failed in query.order_by({'job': 'id'}).all() if 3 in parts[job]]
    reasons = [(job, entry) for job, failed in tried for entry in failed if parts[job][entry['frame']] == 3]
    job, why = reasons[0]
    row = [chain, 3, known['3'], why['kind'], why['reason'], len(reasons), job, tried[-1][0], 'vasp / PBE / 500 eV']
    return asked, [row]


@ask('what does a figure depend on')
def dependencies() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import ancestors

    chain, comparison = node('V_I'), node('comparison of V_I')
    figure = Path('figure.svg')
    figure.write_text(f'<svg><metadata>{chain.uuid} {comparison.uuid}</metadata></svg>')
    table = ancestors(figure)
    asked = sorted(rows_of(table, 'class', 'label'))
    found = {chain.uuid, comparison.uuid}
    query = orm.QueryBuilder().append(orm.WorkChainNode, filters={'label': 'V_I'}, tag='chain')
    query.append(orm.Data, with_outgoing='chain', tag='input', project='uuid')
    query.append(orm.Node, with_descendants='input', project='uuid')
    found |= {uuid for row in query.all() for uuid in row}
    query = orm.QueryBuilder().append(orm.Node, filters={'uuid': {'in': list(found)}}, tag='job')
    query.append(orm.WorkChainNode, with_outgoing='job', edge_filters={'type': 'call_calc'}, project='uuid')
    found |= set(query.all(flat=True))
    rows = (
        orm.QueryBuilder().append(orm.Node, filters={'uuid': {'in': list(found)}}, project=['node_type', 'label']).all()
    )
    return asked, sorted([kind.split('.')[-2], label] for kind, label in rows)


@ask('how many core-hours, GPU-hours and labels are there')
def costs() -> tuple[Answer, Answer]:
    from aiida_perovmlip.query import costs

    total = costs().attrs['total']
    asked = [total[key] for key in ('n_jobs', 'core_hours', 'gpu_hours', 'n_labels', 'n_unknown')]
    jobs = orm.QueryBuilder().append(orm.CalcJobNode, filters={'process_type': {'like': '%perovmlip%'}}).count()
    query = orm.QueryBuilder().append(orm.CalcJobNode, tag='job')
    query.append(
        orm.Dict,
        with_incoming='job',
        edge_filters={'label': 'results'},
        project=[f'attributes.{name}' for name in ('seconds.total', 'device', 'seconds_of_labels', 'n_labelled')],
    )
    told = query.all()
    core = sum(4 * wall if wall else labels for wall, _, labels, _ in told) / 3600
    gpu = sum(2 * wall for wall, device, _, _ in told if device == 'cuda') / 3600
    return asked, [jobs, core, gpu, sum(count or 0 for *_, count in told), jobs - len(told)]


def code_runs() -> bool:
    """Whether the code that tables show makes the queries that they were made by."""
    from aiida_perovmlip import query
    from aiida_perovmlip.query.table import code_of

    names = ('potentials', 'datasets', 'evaluations', 'costs', 'barriers', 'compare_architectures', 'repaired_labels')
    for builder in (builder for name in names for builder in getattr(query, name)().query.builders):
        namespace: dict[str, Any] = {}
        exec(code_of(builder), namespace)
        if namespace['query'].all() != builder.all():
            return False
    return True


def main() -> None:
    """Print all answers."""
    folder, storage, config = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    if storage == 'core.sqlite_zip':
        from aiida.storage.sqlite_zip.backend import SqliteZipBackend

        load_profile(SqliteZipBackend.create_profile(config['filepath']))
    else:
        from aiida.manage.configuration import create_profile, get_config
        from query_world import World

        create_profile(
            get_config(create=True), name='world', email='a@b.c', storage_backend=storage, storage_config=config
        )
        load_profile('world')
        (folder / 'files').mkdir()
        World(folder / 'files')
    answers = {name: question() for name, question in PAIRS.items()}
    if storage == 'core.sqlite_dos':
        from aiida.tools.archive import create_archive

        for process in orm.QueryBuilder().append(orm.ProcessNode).all(flat=True):
            process.seal()  # others cannot be exported
        create_archive(None, filename=folder / 'world.aiida')
    print('ANSWERS', json.dumps({'code_runs': code_runs(), **answers}))


if __name__ == '__main__':
    main()
