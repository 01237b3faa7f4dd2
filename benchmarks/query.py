"""How long questions to a profile with 10 000 nodes take, beside a QueryBuilder that is written by hand for each.

Prints wall and CPU seconds of the fastest of some runs, and the ratio of the first to that by hand. The nodes are made
up and inserted in bulk into a profile in a temporary folder; with `--database`, into an empty database of PostgreSQL.

    python benchmarks/query.py [--runs N] [--database postgresql://USER:PASSWORD@HOST:PORT/NAME]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np

N_POTENTIALS = 400
N_SETS = 4
N_LABELLINGS = 20
N_JOBS = 40
LEVEL = {'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '500 eV'}
RESOURCES = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': 4}


class Nodes:
    """Rows of nodes and links that wait for their insertion; a node is known by its place."""

    def __init__(self, user: int) -> None:
        self.user, self.nodes, self.links = user, [], []  # type: int, list[dict[str, Any]], list[tuple[int, ...]]

    def add(
        self, kind: str, attributes: dict[str, Any], label: str = '', process: str | None = None, **made: Any
    ) -> int:
        """Add a node and the links that lead to it: by label a type, and the place of the source."""
        row = {'node_type': kind, 'attributes': attributes, 'label': label, 'process_type': process}
        self.nodes.append({**row, 'user_id': self.user})
        for name, (link, source) in made.items():
            self.link(source, len(self.nodes) - 1, link, name)
        return len(self.nodes) - 1

    def link(self, source: int, target: int, kind: str, label: str) -> None:
        """Add a link."""
        self.links.append((source, target, kind, label))

    def insert(self) -> None:
        """Insert all into the profile."""
        from aiida.manage import get_manager
        from aiida.orm.entities import EntityTypes

        storage = get_manager().get_profile_storage()
        pks = storage.bulk_insert(EntityTypes.NODE, self.nodes, allow_defaults=True)
        rows = [
            {'input_id': pks[source], 'output_id': pks[target], 'type': kind, 'label': label}
            for source, target, kind, label in self.links
        ]
        storage.bulk_insert(EntityTypes.LINK, rows)

    # ------------------------------------------------------------------ kinds of nodes

    def data(self, name: str, attributes: dict[str, Any], label: str = '', **made: Any) -> int:
        """Add data of ours."""
        kind = {'potential': 'PotentialData', 'dataset': 'DatasetData'}[name]
        return self.add(f'data.perovmlip.{name}.{kind}.', attributes, label, **made)

    def dict(self, content: dict[str, Any], **made: Any) -> int:
        """Add a dictionary."""
        return self.add('data.core.dict.Dict.', content, **made)

    def job(self, name: str, exit_status: int = 0, **made: Any) -> int:
        """Add a finished job."""
        about = {'process_label': name, 'process_state': 'finished', 'exit_status': exit_status, 'resources': RESOURCES}
        process = f'aiida.calculations:perovmlip.{name}'
        return self.add('process.calculation.calcjob.CalcJobNode.', about, '', process, **made)

    def chain(self, name: str, output: str = '', content: dict[str, Any] | None = None, **made: Any) -> int:
        """Add a finished chain and what it returned."""
        about = {'process_label': name, 'process_state': 'finished', 'exit_status': 0}
        kind, process = 'process.workflow.workchain.WorkChainNode.', f'aiida.workflows:perovmlip.{name}'
        node = self.add(kind, about, f'{name} {len(self.nodes)}', process, **made)
        if content is not None:
            self.dict(content, **{output: ('return', node)})
        return node


def dataset(n_frames: int, content: str) -> dict[str, Any]:
    """Return the attributes of a dataset."""
    from aiida_perovmlip.compute.level import Level

    level = Level.from_dict(LEVEL)
    return {
        'n_frames': n_frames,
        'n_atoms': 40 * n_frames,
        'elements': ['Cs', 'I', 'Pb'],
        'groups': {'cubic': n_frames},
        'levels': {'default': level.to_dict()},
        'fingerprints': [level.fingerprint],
        'content_hash': content,
        'force_range': [0.0, 5.0],
    }


def metrics(rng: Any) -> dict[str, Any]:
    """Return the metrics of an evaluation, with all elements and groups."""
    blocks = {
        name: {'n': 1000, 'mae': float(rng.random()), 'rmse': float(rng.random()), 'bias': 0.0, 'largest': 1.0}
        for name in ('energy_per_atom', 'forces', 'stress')
    }
    about = {'state': 'finite', 'head': 'default', 'same_level': True, 'microseconds_per_atom': 20.0, 'device': 'cuda'}
    parts = {'per_element': dict.fromkeys(('Cs', 'Pb', 'I', 'C', 'N', 'H'), blocks)}
    parts['per_group'] = {f'group {number}': blocks for number in range(10)}
    return {**blocks, **about, **parts, 'per_head': {'default': blocks}}


def make_world(nodes: Nodes) -> None:
    """Add potentials in lineages of four, with all that was measured of them, and labellings with repairs."""
    rng = np.random.default_rng(0)
    sets = [nodes.data('dataset', dataset(100, f'set {number}'), f'set {number}') for number in range(N_SETS)]
    parent = None
    for number in range(N_POTENTIALS):
        architecture = ('mace', 'nep')[number // 4 % 2]
        chain = nodes.chain('train')
        given: dict[str, Any] = {'training': ('input_calc', sets[number % N_SETS]), 'job': ('call_calc', chain)}
        if number % 4:
            given['parent'] = ('input_calc', parent)
        training = nodes.job(f'train.{architecture}', **given)
        nodes.link(nodes.add('data.core.int.Int.', {'value': number}), training, 'input_calc', 'seed')
        told = {'strategy': 'naive' if number % 4 else 'scratch', 'effective': {'learning_rate': 0.01, 'epochs': 100}}
        told |= {'seconds': {'total': 3600.0}, 'device': 'cuda'}
        nodes.dict(told, results=('create', training))
        content = f'content {number}'
        about = {'architecture': architecture, 'elements': ['Cs', 'I', 'Pb'], 'cutoff': 6.0, 'heads': ['default']}
        about |= {'n_parameters': 10_000, 'content_hash': content, 'levels': {}}
        parent = nodes.data('potential', about, f'potential {number}', potential=('create', training))
        for each in sets:
            job = nodes.job('evaluate', potential=('input_calc', parent), dataset=('input_calc', each))
            nodes.dict({'seconds': {'total': 60.0}, 'device': 'cuda'}, results=('create', job))
            nodes.dict(metrics(rng), metrics=('create', job))
        if number % 4 == 0:
            study(nodes, parent, content, architecture)
    for number in range(N_LABELLINGS):
        labelling(nodes, number)


def study(nodes: Nodes, potential: int, content: str, architecture: str) -> None:
    """Add barriers and diffusion of a potential."""
    barrier = {'forward': 0.3, 'reverse': 0.2, 'span': 0.3, 'reaction': 0.1}
    told = {'architecture': architecture, 'potential': content, 'profile': {**barrier, 'minima': []}}
    told |= {'difference': {**barrier, 'forces_rmse': 0.05}, 'images': [{'energy': 0.1, 'forces_rmse': 0.1}] * 7}
    path = {'relaxed_by': 'one', 'n_images': 5, 'reference': barrier, 'potentials': {'one': told}}
    comparison = {'formula': 'Cs8Pb8I23', 'charge': 1, 'recipe': {'kind': 'vacancy'}, 'paths': {'one': path}}
    nodes.chain('neb_validation', 'comparison', comparison, potential=('input_work', potential))
    fit = {'activation_energy': 0.2, 'activation_energy_error': 0.01, 'prefactor': 1e-4}
    rows = [
        {'temperature': kelvin, 'n_runs': 3, 'lack': None, 'values': [1e-6] * 3} for kelvin in (500.0, 550.0, 600.0)
    ]
    kinds = {kind: {'temperatures': rows, 'arrhenius': fit} for kind in ('sum', 'tracer', 'collective')}
    content_of = {'formula': 'Cs8Pb8I23', 'charge': 1, 'architecture': architecture, 'engine': 'gpumd'}
    content_of |= {'potential': content, 'species': {'I': {**kinds, 'hops': []}}}
    nodes.chain('diffusion', 'diffusion', content_of, potential=('input_work', potential))


def labelling(nodes: Nodes, number: int) -> None:
    """Add a labelling in which each tenth job has a frame that failed and was repaired."""
    frames = nodes.data('dataset', dataset(20 * N_JOBS, f'frames {number}'))
    parts = {f'part_{job}': list(range(20 * job, 20 * job + 20)) for job in range(N_JOBS)}
    repaired = {str(20 * job): 'smearing' for job in range(0, N_JOBS, 10)}
    parts |= {f'again_{frame}': [int(frame)] for frame in repaired}
    chain = nodes.chain('label', 'results', {'repaired': repaired, 'level': LEVEL}, frames=('input_work', frames))
    told = nodes.dict(parts)
    made = {'frames': ('input_calc', frames), 'parts': ('input_calc', told), 'CALL': ('call_calc', chain)}
    cut = nodes.add('process.calculation.calcfunction.CalcFunctionNode.', {}, **made)
    for name, positions in parts.items():
        part = nodes.data('dataset', dataset(len(positions), f'{number} {name}'), **{name: ('create', cut)})
        job = nodes.job('vasp.label', frames=('input_calc', part), **{f'job_{name}': ('call_calc', chain)})
        fails = name.startswith('part') and positions[0] % 200 == 0
        failed = [{'frame': 0, 'kind': 'not_converged', 'reason': 'it did not converge.'}] if fails else []
        results = {'failed': failed, 'n_labelled': len(positions) - len(failed), 'seconds_of_labels': 7200.0}
        nodes.dict(results, results=('create', job))
        nodes.data('dataset', dataset(len(positions), f'labels {number} {name}'), dataset=('create', job))


# ---------------------------------------------------------------------- by hand


def joined(process: str, output: str, *attributes: str, jobs: bool = True) -> Any:
    """Return the query for processes and an output of theirs."""
    from aiida import orm

    kind = orm.CalcJobNode if jobs else orm.WorkChainNode
    query = orm.QueryBuilder().append(kind, filters={'process_type': {'like': process}}, tag='process', project='id')
    project = [f'attributes.{name}' for name in attributes]
    return query.append(orm.Dict, with_incoming='process', edge_filters={'label': output}, project=project)


def of(entry_point: str, *attributes: str, **filters: Any) -> Any:
    """Return the query for data of a kind."""
    from aiida import orm, plugins

    project = ['id', 'label', *(f'attributes.{name}' for name in attributes)]
    return orm.QueryBuilder().append(plugins.DataFactory(entry_point), tag='data', filters=filters, project=project)


def errors(potentials: list[int] | None = None) -> list[Any]:
    """Return the errors of potentials on test sets."""
    from aiida import orm

    query = of('perovmlip.potential', 'architecture', **({'id': {'in': potentials}} if potentials else {}))
    evaluate = {'process_type': 'aiida.calculations:perovmlip.evaluate', 'attributes.exit_status': 0}
    query.append(orm.CalcJobNode, with_incoming='data', filters=evaluate, tag='job', project='ctime')
    query.append(orm.Data, with_outgoing='job', edge_filters={'label': 'dataset'}, project=['id', 'label'])
    project = [
        f'attributes.{quantity}.{error}' for quantity in ('energy_per_atom', 'forces') for error in ('mae', 'rmse')
    ]
    return list(query.append(orm.Dict, with_incoming='job', edge_filters={'label': 'metrics'}, project=project).all())


def costs_by_hand() -> list[Any]:
    """Return seconds and resources of all jobs."""
    query = joined('aiida.calculations:perovmlip.%', 'results', 'seconds.total', 'device', 'seconds_of_labels')
    query.add_projection('process', ['id', 'attributes.resources'])
    return list(query.all())


def trained_by_hand() -> list[Any]:
    """Return potentials with the results of their trainings."""
    from aiida import orm

    query = of('perovmlip.potential', 'architecture', 'n_parameters')
    query.append(orm.CalcJobNode, with_outgoing='data', tag='job')
    project = ['attributes.strategy', 'attributes.effective']
    return list(query.append(orm.Dict, with_incoming='job', edge_filters={'label': 'results'}, project=project).all())


def ancestors_by_hand(pk: int) -> list[Any]:
    """Return the ancestors of a node, as AiiDA's own recursion finds them."""
    from aiida import orm

    query = orm.QueryBuilder().append(orm.Node, filters={'id': pk}, tag='node')
    return list(query.append(orm.Node, with_descendants='node', project=['id', 'uuid', 'label']).distinct().all())


def lineage_by_hand(pk: int) -> list[Any]:
    """Return the errors of the stages of a potential; its lineage is followed parent by parent."""
    from aiida import orm

    stages = [pk]
    while True:
        query = orm.QueryBuilder().append(orm.Node, filters={'id': stages[-1]}, tag='node')
        query.append(orm.CalcJobNode, with_outgoing='node', tag='job')
        found = query.append(orm.Data, with_outgoing='job', edge_filters={'label': 'parent'}, project='id').all(
            flat=True
        )
        if not found:
            return errors(stages)
        stages += found


def questions() -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Return each question with what answers it, and with what does by hand."""
    from aiida_perovmlip import query

    last = of('perovmlip.potential').order_by({'data': {'id': 'desc'}}).first()[0]

    def diffusion() -> Any:
        return joined('%diffusion', 'diffusion', 'species.I.sum.arrhenius.activation_energy', jobs=False).all()

    def barriers() -> Any:
        return joined('%neb_validation', 'comparison', 'formula', 'paths', jobs=False).all()

    return {
        'potentials': (query.potentials, trained_by_hand),
        'datasets': (query.datasets, of('perovmlip.dataset', 'n_frames', 'groups', 'levels').all),
        'evaluations': (query.evaluations, errors),
        'forgetting_matrix': (lambda: query.forgetting_matrix(last), lambda: lineage_by_hand(last)),
        'compare_strategies': (query.compare_strategies, lambda: (errors(), trained_by_hand())),
        'compare_architectures': (
            query.compare_architectures,
            lambda: (errors(), trained_by_hand(), barriers(), diffusion(), costs_by_hand()),
        ),
        'barriers': (query.barriers, barriers),
        'diffusion': (query.diffusion, diffusion),
        'costs': (query.costs, costs_by_hand),
        'repaired_labels': (query.repaired_labels, joined('%label', 'results', 'repaired', jobs=False).all),
        'ancestors': (lambda: query.ancestors(last), lambda: ancestors_by_hand(last)),
    }


def fastest(work: Callable[[], Any], runs: int) -> tuple[float, float, Any]:
    """Return wall and CPU time of the fastest of some runs in s, and what it returned."""
    results = []
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        results.append((time.perf_counter() - wall, time.process_time() - cpu, value))
    return min(results, key=lambda entry: entry[0])


def storage(folder: str, database: str | None) -> tuple[str, dict[str, Any]]:
    """Return the storage of the profile and its configuration."""
    if database is None:
        return 'core.sqlite_dos', {}
    url = urlsplit(database)
    return 'core.psql_dos', {
        'database_engine': 'postgresql_psycopg',
        'database_hostname': url.hostname,
        'database_port': url.port,
        'database_username': url.username,
        'database_password': url.password,
        'database_name': url.path.strip('/'),
        'repository_uri': f'file://{folder}/repository',
    }


def main() -> None:
    """Ask a temporary profile."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=3)
    parser.add_argument('--database', metavar='URL', help='an empty database of PostgreSQL')
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['AIIDA_PATH'] = folder
        from aiida import load_profile, orm
        from aiida.manage import get_manager
        from aiida.manage.configuration import create_profile, get_config

        kind, config = storage(folder, arguments.database)
        name, email = 'benchmark', 'benchmark@localhost'
        create_profile(get_config(create=True), name=name, email=email, storage_backend=kind, storage_config=config)
        load_profile(name)
        nodes = Nodes(get_manager().get_profile_storage().default_user.pk)
        make_world(nodes)
        nodes.insert()
        print(f'{orm.QueryBuilder().append(orm.Node).count()} nodes in {kind}; fastest of {arguments.runs} runs')
        print(f'{"":24}{"rows":>8}{"wall s":>10}{"CPU s":>10}{"by hand":>10}{"ratio":>8}')
        for title, (ask, by_hand) in questions().items():
            wall, cpu, table = fastest(ask, arguments.runs)
            theirs, *_ = fastest(by_hand, arguments.runs)
            print(f'{title:24}{len(table):8}{wall:10.3f}{cpu:10.3f}{theirs:10.3f}{wall / theirs:8.1f}')


if __name__ == '__main__':
    main()
