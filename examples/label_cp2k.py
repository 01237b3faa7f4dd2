"""Labels from density-functional theory: small cells of CsPbI3 and MAPbI3 with CP2K, in a few minutes.

Perovskite cells → CP2K, several cells a job → dataset, and a table of those that failed → extended XYZ.
Run it again and nothing is computed twice; stop it at any time and run it again.

    aiida-perovmlip setup --with cp2k
    verdi run examples/label_cp2k.py [--output FOLDER] [--jobs N] [--dry-run]

The numbers are coarser than those of the protocol `balanced`, so that all of it takes minutes on a laptop. For a real
dataset leave out `SETTINGS` and take the protocol `paper`, or what your other data were computed with.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiida import orm

from aiida_perovmlip.calculations.functions.structures import build_frames
from aiida_perovmlip.launch import run_job, table
from aiida_perovmlip.workflows.label import LabelWorkChain

RECIPE = {
    'families': [
        {'formula': 'CsPbI3', 'count': 6, 'repeat': [1, 1, 1], 'strain': 0.02, 'rattle': 0.05},
        {'formula': 'MAPbI3', 'count': 6, 'repeat': [1, 1, 1], 'strain': 0.02, 'rattle': 0.05},
    ]
}

SETTINGS = {'cutoff': 300.0, 'rel_cutoff': 50.0, 'kpoints': [2, 2, 2]}


def main() -> None:
    """Run the chain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--output', type=Path, default=Path('label-cp2k'), help='folder of the extended XYZ file')
    parser.add_argument('--jobs', type=int, default=2, help='jobs at a time, each on one core')
    parser.add_argument('--dry-run', action='store_true', help='say what would be done and what it would cost')
    arguments = parser.parse_args()

    frames = build_frames(orm.Dict(RECIPE), orm.Int(0))
    builder = LabelWorkChain.get_builder_from_protocol(
        'cp2k', orm.load_code('cp2k@localhost'), frames, settings=SETTINGS, max_concurrent=arguments.jobs
    )
    print(LabelWorkChain.forecast(builder))
    if arguments.dry_run:
        return
    chain = run_job(builder, f'Labelling {len(frames)} cells')
    dataset, results = chain.outputs.dataset, chain.outputs.results

    rows = [
        (str(row['frame']), row['group'], row['kind'], ', '.join(row['repairs']), row['reason'])
        for row in chain.outputs.failures['frames']
    ]
    if rows:
        print(f'\nCells without a label:\n\n{table(("Frame", "Group", "Kind", "Repairs", "Reason"), rows)}')
    print(f'\n{len(dataset)} labels at {dataset.level} (PK {dataset.pk}):')
    print(f'  {results["n_known"]} were known, {results["n_jobs"]} jobs, {results["core_hours"]:.3f} core-hours')
    smallest, largest = dataset.base.attributes.get('force_range')
    print(f'  forces from {smallest:.3f} to {largest:.3f} eV/Å')

    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f'\nExtended XYZ: {dataset.to_extxyz(arguments.output / "labels.xyz").resolve()}')


if __name__ == '__main__':
    main()
