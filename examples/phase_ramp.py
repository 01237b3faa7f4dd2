"""CsPbBr3 is heated and cooled: the tilts of its octahedra, its transitions and the motion of its modes, in minutes.

Crystals → heating and cooling beside each other → tilts, labels, lattice constants → transitions; and runs at two
temperatures → damped oscillators. At the end: a table, what the map warns of, and pictures. Run it again and nothing is
computed twice.

    aiida-perovmlip setup --with nep
    verdi run examples/phase_ramp.py --potential nep.txt [--formula CsPbI3] [--output FOLDER] [--jobs N]
    verdi run examples/phase_ramp.py --potential nep.txt --protocol paper --dry-run

The potential is a file of NEP (GPUMD) that knows the elements. Cell and ramps are small and fast, so that all of it
takes minutes on a laptop; the map itself warns that its transitions are shifted by this. The protocol `paper` is that
of the published phase diagram of MA(1-x)FA(x)PbI3: the dry run lists its jobs with their GPU hours.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aiida_perovmlip.importing import import_potential
from aiida_perovmlip.launch import run_job
from aiida_perovmlip.query.codes import find_code
from aiida_perovmlip.report.phase_map import describe_map, write_damping, write_diagram, write_oscillations, write_ramps
from aiida_perovmlip.steps import run_study
from aiida_perovmlip.workflows.phase_map import PhaseMapWorkChain
from aiida_perovmlip.workflows.phase_map_plan import forecast, protocols

PICTURES = {
    'ramps.svg': write_ramps,
    'diagram.svg': write_diagram,
    'damping.svg': write_damping,
    'oscillations.svg': write_oscillations,
}


def study(arguments: argparse.Namespace) -> None:
    """Run the map and show it, or say what would be run."""
    arguments.output.mkdir(parents=True, exist_ok=True)
    builder = PhaseMapWorkChain.get_builder_from_protocol(
        find_code(None, 'nep'),
        import_potential(arguments.potential, 'nep'),
        protocol=arguments.protocol,
        settings={'compositions': [arguments.formula]} if arguments.formula else None,
        seed=1,
        max_concurrent=arguments.jobs,
    )
    builder.metadata.label = 'phases over temperature'
    if arguments.dry_run:
        published = protocols()[arguments.protocol].get('speed')
        where = 'as given' if arguments.speed else 'as published'
        print(forecast(builder, arguments.speed or published, where))
        return
    node = run_job(builder, 'Phases')
    print(describe_map(node))
    pictures = [write(node, arguments.output / name) for name, write in PICTURES.items()]
    print('\nPictures: ' + ', '.join(str(picture.resolve()) for picture in pictures))


def main() -> None:
    """Run the map, or say what it would run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--potential', type=Path, required=True, help='file of a NEP that knows the elements')
    parser.add_argument('--formula', help='such as CsPbI3; by default what the protocol says')
    parser.add_argument('--protocol', choices=list(protocols()), default='fast')
    parser.add_argument('--dry-run', action='store_true', help='list the jobs with their cost; run nothing')
    parser.add_argument('--speed', type=float, help='atom·steps/s of one job, for the cost')
    parser.add_argument('--output', type=Path, default=Path('phase-ramp'), help='folder of the pictures')
    parser.add_argument('--jobs', type=int, default=2, help='runs at a time, each on one core')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
