"""A vacancy of iodine hops in CsPbI3: the barrier of a potential beside that of CP2K, in some minutes.

Host → both ends, relaxed by CP2K → a path between them → distorted images, labelled by CP2K → MACE, trained on all of
this → band relaxed by it → CP2K on its images → comparison. The images of one round are learned in the next: where a
potential is wrong, its own path leads there. At the end: table and picture. Run it again and nothing is computed twice.

    aiida-perovmlip setup --with mace --with cp2k
    verdi run examples/neb_vacancy.py [--output FOLDER] [--rounds N] [--jobs N]

Cell and protocol are small, so that all of it takes minutes on a laptop: the potential is judged by what it was
trained on, but neither of the two is the barrier of CsPbI3. For that take a cell of 2×2×2 at least, ends that are
relaxed to the end, the protocol `balanced`, and a potential that has seen more.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiida import orm

from aiida_perovmlip.calculations.functions.dataset import join_datasets, select_frames, split_dataset
from aiida_perovmlip.calculations.functions.paths import build_path
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.launch import run_job, table
from aiida_perovmlip.query.paths import barriers_records
from aiida_perovmlip.report.barriers import write_profiles
from aiida_perovmlip.steps import Workbench, run_study
from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain

TILTED = {'formula': 'CsPbI3', 'count': 1, 'repeat': [2, 2, 1], 'glazer': ['a0a0c+'], 'tilt_degrees': 9.0}
# Of two hops of nearly one length, the one whose ends are alike. The other leads to a place that the cell repeats after
# 6 Å: there its ends differ by 2 eV, more than any barrier, and no potential that looks 5 Å far can see why.
HOP = {'kind': 'vacancy', 'ion': 'I', 'max_distance': 5.0, 'which': 1, 'n_images': 3, 'charge': 1}
BETWEEN = {'kind': 'between', 'n_images': 3}
# Each step of a relaxation is a label too, and is faster than a frame by itself.
RELAXING = {'run': 'relax', 'steps': 12, 'max_force': 0.05}
AROUND = {'count': 2, 'rattle': 0.08}
GRID = {'cutoff': 250.0, 'rel_cutoff': 50.0}  # that of `fast` alone is so coarse that energies jump from frame to frame
LEARNING = {'batch_size': 1, 'loss': 'squared', 'scheduler': 'ExponentialLR'}
FIRST = {**LEARNING, 'hidden_irreps': '16x0e', 'r_max': 5.0, 'epochs': 150, 'lr_scheduler_gamma': 0.98}
LATER = {**LEARNING, 'epochs': 60, 'learning_rate': 0.003, 'lr_scheduler_gamma': 0.96}
BAND = {'fmax': 0.05, 'relax_ends': False}  # both see the ends where CP2K left them


def labelling(bench: Workbench, frames: DatasetData, **settings: object) -> object:
    """Return the builder that labels frames with CP2K."""
    return bench.labelling(frames, 'cp2k', 'fast', {**GRID, **settings})


def last_of_each(steps: DatasetData) -> DatasetData:
    """Return the last frame of each relaxation, in the order of their first ones."""
    names = [frame.trajectory for frame in steps]
    last = {name: index for index, name in enumerate(names)}
    return select_frames(steps, orm.List(list(last.values())))


def train(bench: Workbench, labelled: DatasetData, parent: PotentialData | None) -> PotentialData:
    """Train a small MACE, or train the one of the round before on."""
    parts = split_dataset(labelled, orm.Dict({'training': 0.8, 'validation': 0.2}), orm.Str('random'), orm.Int(0))
    settings = FIRST if parent is None else LATER
    return bench.train('mace', parts, 'MACE', settings=settings, parent=parent)


def validate(bench: Workbench, potential: PotentialData, path: DatasetData) -> object:
    """Relax the path with the potential, label its images with CP2K, and compare."""
    builder = NebValidationWorkChain.get_builder_from_protocol(
        potential, bench.code('mace'), path=path, settings=BAND, reference=labelling(bench, path)
    )
    builder.metadata.label = 'iodine vacancy of CsPbI3'
    return run_job(builder, 'Barriers of MACE and of CP2K')


def show(validations: list[object]) -> None:
    """Print the barriers of all rounds."""
    shown = ('forward', 'forward_reference', 'reverse', 'reverse_reference', 'reaction', 'forces_rmse')
    records = barriers_records(validations)
    rows = [
        (str(number), *('–' if record[name] is None else f'{record[name]:.3f}' for name in shown))
        for number, record in enumerate(records, 1)
    ]
    print('\nBarriers in eV and errors of forces in eV/Å on the path of each round:\n')
    print(table(('round', *shown), rows))


def study(arguments: argparse.Namespace) -> None:
    """Run all rounds."""
    bench, validations, potential = Workbench(jobs=arguments.jobs), [], None
    host = build_frames(orm.Dict({'families': [TILTED]}), orm.Int(0))
    ends = select_frames(build_path(orm.Dict(HOP), host), orm.List([0, HOP['n_images'] + 1]))
    steps = run_job(labelling(bench, ends, **RELAXING), 'Relaxing both ends').outputs.dataset
    path = build_path(orm.Dict(BETWEEN), last_of_each(steps))
    images = select_frames(path, orm.List(list(range(1, len(path) - 1))))
    around = distort_frames(images, orm.Dict(AROUND), orm.Int(0))
    known = run_job(labelling(bench, around), f'Labelling {len(around)} frames').outputs.dataset
    known = join_datasets(known=known, relaxed=steps)
    for _ in range(arguments.rounds):
        potential = train(bench, known, potential)
        validations.append(validate(bench, potential, path))
        known = join_datasets(known=known, images=validations[-1].outputs.labels.mace)

    show(validations)
    arguments.output.mkdir(parents=True, exist_ok=True)
    picture = write_profiles(validations[-1], arguments.output / 'barrier.svg')
    print(f'\nPicture: {picture.resolve()}')


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, default=Path('neb-vacancy'), help='folder of the picture')
    parser.add_argument('--rounds', type=int, default=2, help='how often the potential is trained')
    parser.add_argument('--jobs', type=int, default=2, help='jobs of CP2K at a time, each on one core')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
