"""A vacancy of iodine walks through CsPbI3: coefficients of diffusion and their activation energy, in some minutes.

Crystal → lattice constants from runs at constant pressure → three runs at each of three temperatures → displacements →
Arrhenius line. At the end: a table and two pictures. Run it again and nothing is computed twice.

    aiida-perovmlip setup --with nep
    verdi run examples/diffusion_vacancy.py --potential nep.txt [--output FOLDER] [--jobs N]
    verdi run examples/diffusion_vacancy.py --potential nep.txt --protocol paper --dry-run

The potential is a file of NEP (GPUMD) that knows Cs, Pb and I. The cell has eight formula units and the runs are short,
so that all of it takes minutes on a laptop; the error bars say what that costs. With the protocol `paper` the cell has
216 formula units, and the runs are those of the published study of MAPbI3: the dry run lists them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiida import orm

from aiida_perovmlip.calculations.functions.defects import make_defect
from aiida_perovmlip.calculations.functions.structures import build_frames
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.importing import import_potential
from aiida_perovmlip.launch import run_job, table
from aiida_perovmlip.query.codes import find_code
from aiida_perovmlip.query.motion import diffusion_records
from aiida_perovmlip.report.diffusion import write_arrhenius, write_msd
from aiida_perovmlip.steps import run_study
from aiida_perovmlip.workflows.diffusion import DiffusionWorkChain
from aiida_perovmlip.workflows.diffusion_plan import forecast

VACANCY = {'kind': 'vacancy', 'ion': 'I', 'charge': 1}
# So small a crystal melts at 725 K; without hydrogen atoms steps may be long.
SHORT = {'temperatures': [550.0, 600.0, 650.0], 'n_runs': 3, 'production': 250.0, 'timestep': 5.0}
REPEATS = {'fast': 2, 'balanced': 4, 'paper': 6}


def structures(repeat: int) -> tuple[DatasetData, DatasetData]:
    """Return the crystal, and the same without one iodine."""
    # Atoms that are a little off their sites find the tilts of the octahedra sooner.
    family = {'formula': 'CsPbI3', 'count': 1, 'repeat': [repeat] * 3, 'rattle': 0.05}
    crystal = build_frames(orm.Dict({'families': [family]}), orm.Int(0))
    return crystal, make_defect(crystal, orm.Dict(VACANCY))


def show(study: object) -> None:
    """Print what was found, temperature by temperature and together."""
    found = study.outputs.diffusion['species']['I']
    rows = [_row_of(row, hops) for row, hops in zip(found['sum']['temperatures'], found['hops'], strict=True)]
    print('\nIodine, all atoms together, mean and standard error of the runs:\n')
    print(table(('T (K)', 'D (cm²/s)', 'window (ps)', 'hops', 'ambiguous'), rows))
    for note in found['notes']:
        print(f'\nNote: {note}')
    (record,) = diffusion_records([study])
    if record['lower_bound'] is not None:
        print(f'\nNo iodine moved: Ea is above {record["lower_bound"]:.2f} eV')
    if record['activation_energy'] is None:
        print(f'\nNo activation energy: {record["lack"]}')
        return
    print(
        f'\nEa = {record["activation_energy"]:.2f} ± {_told(record["activation_energy_error"], ".2f")} eV, '
        f'D(300 K) = {record["at_room_temperature"]:.1e} cm²/s '
        f'(×/÷ {_told(record["at_room_temperature_factor"], ".1f")})'
    )


def _row_of(row: dict, hops: dict) -> tuple[str, ...]:
    """Return one temperature, with a dash for what is not known."""
    window = row.get('window') or {}
    return (
        f'{row["temperature"]:g}',
        f'{_told(row.get("coefficient"), ".2e")} ± {_told(row.get("error"), ".1e")}',
        f'{_told(window.get("begin"), ".1f")}–{_told(window.get("end"), ".1f")}',
        _told(hops['n_hops'], 'd'),
        _told(hops['ambiguous'], '.0%'),
    )


def _told(value: float | None, how: str) -> str:
    return '?' if value is None else format(value, how)


def study(arguments: argparse.Namespace) -> None:
    """Run the study and show it, or say what would be run."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    code, potential = find_code(None, 'nep'), import_potential(arguments.potential, 'nep')
    crystal, start = structures(REPEATS[arguments.protocol])
    builder = DiffusionWorkChain.get_builder_from_protocol(
        code,
        potential,
        start,
        crystal=crystal,
        protocol=arguments.protocol,
        settings=SHORT if arguments.protocol == 'fast' else None,
        seed=1,
        max_concurrent=arguments.jobs,
    )
    builder.metadata.label = 'iodine vacancy of CsPbI3'
    if arguments.dry_run:
        print(forecast(builder, arguments.speed))
        return
    node = run_job(builder, 'Diffusion')
    show(node)
    for write, name in ((write_arrhenius, 'arrhenius.svg'), (write_msd, 'msd.svg')):
        print(f'Picture: {write(node, arguments.output / name).resolve()}')


def main() -> None:
    """Run the study, or say what it would run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--potential', type=Path, required=True, help='file of a NEP that knows Cs, Pb and I')
    parser.add_argument('--protocol', choices=REPEATS, default='fast')
    parser.add_argument('--dry-run', action='store_true', help='list the runs with their cost; run nothing')
    parser.add_argument('--speed', type=float, help='atom·steps/s of one job, for the cost; by default as measured')
    parser.add_argument('--output', type=Path, default=Path('diffusion-vacancy'), help='folder of the pictures')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time, each on one core')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
