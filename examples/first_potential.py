"""From structures to a published potential: the whole chain on a laptop, in a few minutes.

Perovskite structures → tight-binding labels → dataset → MACE → errors on frames it has not seen → report → archive.
Every arrow is a step that AiiDA records; run it again and everything that is unchanged is reused.

    verdi run examples/first_potential.py [--output FOLDER] [--cores N] [--computer NAME]

To do the same with your own structures, replace `build_frames` by `DatasetData.from_ase(...)` or
`DatasetData.from_extxyz(...)`; with labels that you already have, leave the labelling out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiida import orm
from aiida.manage.caching import enable_caching

from aiida_perovmlip.analysis.metrics import COLUMNS, flat_rows
from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.calculations.functions.structures import build_frames
from aiida_perovmlip.calculations.train import TrainMaceCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.launch import run_job, table, write_archive
from aiida_perovmlip.report.writing import write_report
from aiida_perovmlip.workflows.label import LabelWorkChain

GROUP = 'first-potential'

# Two families of 2×2×2 cells: tight binding samples Γ only, so smaller cells would not be comparable.
RECIPE = {
    'families': [
        {
            'formula': 'CsPbI3',
            'count': 32,
            'repeat': [2, 2, 2],
            'glazer': ['a0a0a0', 'a0a0c+', 'a0a0c-', 'a-a-c+'],
            'tilt_degrees': 8.0,
            'strain': 0.02,
            'rattle': 0.06,
        },
        {'formula': 'MAPbI3', 'count': 12, 'repeat': [2, 2, 2], 'strain': 0.02, 'rattle': 0.06},
    ]
}

SETTINGS = {
    'hidden_irreps': '16x0e',
    'r_max': 5.0,
    'epochs': 60,
    'batch_size': 2,
    'energy_weight': 10.0,
    'stress_weight': 100.0,
}


def label(frames: DatasetData, computer: str, options: dict) -> DatasetData:
    """Compute energies, forces and stresses with GFN2-xTB; what this profile knows already is not computed again."""
    code = orm.load_code(f'tblite@{computer}')
    builder = LabelWorkChain.get_builder_from_protocol('tblite', code, frames, options=options, max_concurrent=1)
    chain = run_job(builder, f'Labelling {len(frames)} frames')
    results = chain.outputs.results
    print(f'  {results["n_known"]} were known, {len(results["repaired"])} needed a repair')
    for failure in chain.outputs.failures['frames']:
        print(f'  frame {failure["frame"]} has no label and is left out: {failure["reason"]}')
    return chain.outputs.dataset


def train(parts: dict[str, DatasetData], computer: str, options: dict) -> PotentialData:
    """Train a small MACE."""
    builder = TrainMaceCalculation.get_builder()
    builder.code = orm.load_code(f'mace@{computer}')
    builder.training, builder.validation = parts['training'], parts['validation']
    builder.settings = SETTINGS
    builder.seed = 1
    builder.metadata.options = options
    return run_job(builder, f'Training on {len(parts["training"])} frames').outputs.potential


def evaluate(potential: PotentialData, dataset: DatasetData, computer: str, options: dict) -> None:
    """Compare the potential with the labels of frames it has not seen."""
    builder = EvaluateCalculation.get_builder()
    builder.code = orm.load_code(f'mace@{computer}')
    builder.potential, builder.dataset = potential, dataset
    builder.metadata.options = options
    run_job(builder, f'Evaluating {len(dataset)} frames')


def metrics_of(potential: PotentialData) -> dict:
    """Ask the provenance graph for the errors of a potential."""
    query = orm.QueryBuilder()
    query.append(PotentialData, filters={'uuid': potential.uuid}, tag='potential')
    query.append(EvaluateCalculation, with_incoming='potential', tag='evaluation')
    query.append(orm.Dict, with_incoming='evaluation', edge_filters={'label': 'metrics'}, project='attributes')
    return query.first(flat=True)


def main() -> None:
    """Run the chain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, default=Path(GROUP), help='folder of the report and the archive')
    parser.add_argument('--cores', type=int, default=2, help='processor cores of a job')
    parser.add_argument('--computer', default='localhost', help='where jobs run: a computer with the codes of both')
    arguments = parser.parse_args()
    resources = {'num_machines': 1, 'num_mpiprocs_per_machine': 1, 'num_cores_per_mpiproc': arguments.cores}
    options = {'resources': resources}

    with enable_caching():
        frames = build_frames(orm.Dict(RECIPE), orm.Int(0))
        labelled = label(frames, arguments.computer, options)
        fractions = orm.Dict({'training': 0.7, 'validation': 0.15, 'test': 0.15})
        parts = split_dataset(labelled, fractions, orm.Str('stratified'), orm.Int(0))
        potential = train(parts, arguments.computer, options)
        evaluate(potential, parts['test'], arguments.computer, options)

    group, _ = orm.Group.collection.get_or_create(GROUP)
    group.clear()
    group.add_nodes(potential)
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = write_report(potential, arguments.output / 'report.html')
    evaluations = [link.node for link in potential.base.links.get_outgoing()]
    archive = write_archive([group, *evaluations], arguments.output / f'{GROUP}.aiida')

    print(f'\nErrors of the potential (PK {potential.pk}) on {len(parts["test"])} frames it has not seen:\n')
    print(table(COLUMNS, flat_rows(metrics_of(potential))))
    print(f'\nReport:  {report.resolve()}\nArchive: {archive.resolve()}')


if __name__ == '__main__':
    main()
