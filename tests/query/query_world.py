"""A small world of nodes to ask about: every node that matters has a label of its own, the same in every storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

PBE = {'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '500 eV'}
HSE = {'labeller': 'vasp', 'functional': 'HSE06', 'cutoff': '500 eV'}
CORES = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': 4}


def process(
    entry_point: str, exit_status: int = 0, label: str = '', chain: Any = None, options: Any = None, **inputs: Any
) -> Any:
    """Return a stored job that looks finished."""
    node = orm.CalcJobNode(process_type=f'aiida.calculations:{entry_point}', label=label)
    node.set_options({'resources': CORES, **(options or {})})
    for name, data in inputs.items():
        node.base.links.add_incoming(data, LinkType.INPUT_CALC, name)
    if chain is not None:
        node.base.links.add_incoming(chain, LinkType.CALL_CALC, 'job_' + label.replace(' ', '_'))
    node.set_process_state('finished')
    node.set_exit_status(exit_status)
    return node.store()


def put(node: Any, label: str, data: Any) -> Any:
    """Store an output of a job."""
    data.base.links.add_incoming(node, LinkType.CREATE, label)
    return data.store()


def found(entry_point: str, label: str, output: str, content: dict[str, Any], **inputs: Any) -> tuple[Any, Any]:
    """Return a stored chain and the result that it returned."""
    chain = orm.WorkChainNode(process_type=f'aiida.workflows:{entry_point}', label=label)
    for name, data in inputs.items():
        chain.base.links.add_incoming(data, LinkType.INPUT_WORK, name)
    chain.store()
    result = orm.Dict(content, label=f'{output} of {label}').store()
    result.base.links.add_incoming(chain, LinkType.RETURN, output)
    return chain, result


def frames(count: int, seed: int, **fields: Any) -> list[Frame]:
    """Return made-up labelled frames."""
    rng = np.random.default_rng(seed)
    return [
        Frame(
            np.array([55, 82, 53]),
            6.0 * rng.random((3, 3)),
            6.0 * np.eye(3),
            np.ones(3, bool),
            energy=float(-9.0 - rng.random()),
            forces=rng.normal(0, 1, (3, 3)),
            **fields,
        )
        for _ in range(count)
    ]


def potential(folder: Path, label: str, architecture: str, n_parameters: int, heads: Any = ('default',)) -> Any:
    """Return an unstored potential."""
    files = folder / label
    files.mkdir()
    (files / 'potential').write_text(label)
    about = {'elements': ['Cs', 'I', 'Pb'], 'cutoff': 6.0, 'heads': heads, 'n_parameters': n_parameters}
    node = PotentialData(files, architecture=architecture, dtype='float64', **about)
    node.label = label
    return node


class World:
    """Two architectures, a lineage of three stages, three test sets, and what was measured and labelled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.datasets()
        self.trainings()
        self.evaluations()
        self.studies()
        self.labels()

    def datasets(self) -> None:
        """Store two sets of one level, and one of two levels."""
        self.bulk = DatasetData.from_frames(frames(4, 1, group='bulk'), PBE)
        self.slab = DatasetData.from_frames(frames(2, 2, group='slab'), PBE)
        mixed = [*frames(2, 3, head='pbe'), *frames(1, 4, head='hse')]
        self.mixed = DatasetData.from_frames(mixed, {'pbe': PBE, 'hse': HSE})
        for label in ('bulk', 'slab', 'mixed'):
            node = getattr(self, label)
            node.label = label
            node.store()

    def trainings(self) -> None:
        """Store an imported potential, two that were trained on from it, and one of another architecture."""
        self.foundation = potential(self.folder, 'foundation', 'mace', 5000).store()
        self.naive = self.trained('naive', 'mace', 5000, self.slab, parent=self.foundation, legs=2)
        heads = ('pbe', 'hse')
        replay = {'parent': self.naive, 'replay': self.bulk}
        self.multihead = self.trained('multihead', 'mace', 6000, self.mixed, heads=heads, device='cuda', **replay)
        self.nep = self.trained('scratch', 'nep', 3000, self.bulk)

    def trained(
        self,
        strategy: str,
        architecture: str,
        n_parameters: int,
        training: Any,
        legs: int = 1,
        device: str = 'cpu',
        heads: Any = ('default',),
        **inputs: Any,
    ) -> Any:
        """Return a potential whose training took some legs."""
        chain = orm.WorkChainNode(process_type='aiida.workflows:perovmlip.train', label=f'training {strategy}').store()
        given = {'training': training, 'seed': orm.Int(len(strategy)).store(), **inputs}
        for leg in range(legs):
            status = 0 if leg == legs - 1 else 400
            job = process(f'perovmlip.train.{architecture}', status, f'{strategy} leg {leg}', chain, **given)
            told = {'strategy': strategy, 'effective': {'learning_rate': 0.003, 'epochs': 50, 'gpus': 2}}
            put(job, 'results', orm.Dict({**told, 'seconds': {'task': 80.5, 'total': 90.0}, 'device': device}))
        return put(
            job, 'potential', potential(self.folder, f'{architecture} {strategy}', architecture, n_parameters, heads)
        )

    def evaluations(self) -> None:
        """Store evaluations: two of one potential and set, one that failed, one not finite, one of two heads."""
        for node, dataset, error in (
            (self.foundation, self.bulk, 0.1),
            (self.foundation, self.slab, 0.4),
            (self.naive, self.bulk, 0.9),
            (self.naive, self.bulk, 0.3),  # the newer one counts
            (self.naive, self.slab, 0.05),
            (self.nep, self.bulk, 2.0),
        ):
            self.evaluated(node, dataset, error)
        process('perovmlip.evaluate', 400, 'no evaluation', potential=self.nep, dataset=self.slab)
        broken = {'forces': {'n': 6, 'n_not_finite': 6}, 'state': 'not_finite'}
        self.evaluated(self.nep, self.slab, 0.7, 530, **broken)
        blocks = {
            head: {'forces': {'rmse': error, 'mae': error / 2, 'n': 9}} for head, error in (('pbe', 0.2), ('hse', 0.25))
        }
        self.evaluated(
            self.multihead,
            self.mixed,
            0.22,
            head=None,
            per_head=blocks,
            same_level_per_head={'pbe': True, 'hse': False},
        )
        self.evaluated(self.multihead, self.bulk, 0.15, head='pbe')

    def evaluated(self, node: Any, dataset: Any, error: float, exit_status: int = 0, **more: Any) -> None:
        """Store an evaluation."""
        job = process(
            'perovmlip.evaluate', exit_status, f'{node.label} on {dataset.label}', potential=node, dataset=dataset
        )
        metrics = {
            'state': 'finite',
            'head': 'default',
            'same_level': dataset.label != 'slab',
            'microseconds_per_atom': 25.0,
            'peak_memory_mb': 512.5,
            'device': 'cpu',
            'energy_per_atom': {'n': 3, 'mae': error / 20, 'rmse': error / 10},
            'forces': {'n': 9, 'mae': error / 2, 'rmse': error},
            **more,
        }
        put(job, 'results', orm.Dict({'seconds': {'total': 9.0}, 'device': 'cpu'}))
        self.metrics = put(job, 'metrics', orm.Dict(metrics, label=f'metrics of {job.label}'))

    def studies(self) -> None:
        """Store barriers, diffusion, transitions and energies of phases."""
        paths = {}
        for name, node, forward in (('one', self.multihead, 0.31), ('two', self.nep, 0.45)):
            own = {'forward': forward, 'reverse': 0.2, 'span': forward, 'reaction': forward - 0.2, 'top': 3}
            profile = {**own, 'is_interior': True, 'minima': []}
            difference = {'forward': forward - 0.3, 'reverse': 0.0, 'span': forward - 0.3, 'reaction': 0.0}
            about = {'potential': node.content_hash, 'architecture': node.architecture, 'profile': profile}
            reference = {'forward': 0.3, 'reverse': 0.2, 'span': 0.3, 'reaction': 0.1}
            paths[name] = {
                'relaxed_by': name,
                'n_images': 5,
                'reference': reference,
                'potentials': {name: {**about, 'difference': {**difference, 'forces_rmse': 0.04}}},
            }
        comparison = {'formula': 'Cs8Pb8I23', 'charge': 1, 'recipe': {'kind': 'vacancy'}, 'paths': paths}
        given = {'potential_one': self.multihead, 'potential_two': self.nep}
        self.validation, self.comparison = found('perovmlip.neb_validation', 'V_I', 'comparison', comparison, **given)
        for number, (node, energy) in enumerate(((self.nep, 0.5), (self.nep, 0.25), (self.multihead, 0.2))):
            fit = {
                'activation_energy': energy,
                'activation_energy_error': 0.01,
                'prefactor': 1e-4,
                'prefactor_factor': 2.0,
            }
            rows = [{'temperature': kelvin, 'n_runs': 3, 'lack': None} for kelvin in (500.0, 600.0)]
            species = {'I': {'sum': {'temperatures': rows, 'arrhenius': fit}, 'hops': []}}
            about = {'formula': 'Cs8Pb8I23', 'charge': 1, 'architecture': node.architecture, 'engine': 'ase'}
            content = {**about, 'potential': node.content_hash, 'species': species}
            found('perovmlip.diffusion', f'study {number}', 'diffusion', content, potential=node)
        seen = {'low': 'a-a-c+', 'high': 'a0a0c+', 'heating': 330.0, 'heating_error': 5.0, 'cooling': None}
        compositions = {
            'CsPbI3': {
                'x': 0.0,
                'n_atoms': 320,
                'transitions': [seen, {**seen, 'heating': 420.5, 'cooling': 400.0, 'width': 20.5}],
            },
            'FAPbI3': {'x': 1.0, 'n_atoms': 768, 'transitions': []},
        }
        content = {
            'compositions': compositions,
            'warnings': ['too fast'],
            'engine': 'ase',
            'potential': self.nep.content_hash,
        }
        found('perovmlip.phase_map', 'map', 'phases', content, potential=self.nep)
        energies = {'energies': {'cubic': 0.125, 'yellow': 0.0}, 'errors': {'cubic': 0.025}, 'ranks_alike': True}
        content = {'formula': 'CsPbI3', 'reference': {'cubic': 0.1, 'yellow': 0.0}, 'potentials': {'nep': energies}}
        found('perovmlip.phase_validation', 'order', 'comparison', content, nep=self.nep)

    def labels(self) -> None:
        """Store a labelling of four frames: one of the second pair failed twice and was repaired at the second try."""
        content = {'repaired': {'3': 'smearing'}, 'level': PBE, 'n_labelled': 4}
        self.labelling, _ = found('perovmlip.label', 'labelling', 'results', content, frames=self.bulk)
        parts = orm.Dict({'first': [0, 1], 'second': [2, 3], 'third': [3], 'fourth': [3]}, label='parts').store()
        cut = orm.CalcFunctionNode(label='cut')
        for name, data in (('frames', self.bulk), ('parts', parts)):
            cut.base.links.add_incoming(data, LinkType.INPUT_CALC, name)
        cut.base.links.add_incoming(self.labelling, LinkType.CALL_CALC, 'cut')
        cut.store()
        failures = {'first': [], 'second': [1], 'third': [0], 'fourth': []}
        for name, places in failures.items():
            part = put(cut, name, DatasetData.from_frames(frames(len(parts[name]), 9), PBE))
            job = process('perovmlip.vasp.label', 0, name, self.labelling, frames=part)
            failed = [
                {'frame': place, 'kind': 'not_converged', 'reason': f'{name} did not converge.'} for place in places
            ]
            told = {'failed': failed, 'n_labelled': len(parts[name]) - len(places), 'seconds_of_labels': 1800.0}
            put(job, 'results', orm.Dict(told))
