"""Cations and anions migrate: barriers by a potential beside those of its labeller, then diffusion and its energies.

This reruns the study of cation and anion migration in MAPbI3. Crystal → point defects with their charges → labels → a
potential for all charged defects and one for each neutral one → errors near the defects; paths of the defects, relaxed
by the potential and labelled, Table 1; lattice constants, runs at several temperatures, displacements and Arrhenius
lines, Table 2. Run it again and nothing is computed twice.

    aiida-perovmlip setup --with nep --with tblite
    verdi run examples/study_4_migration.py [--output FOLDER] [--jobs N] [--cores N]
    verdi run examples/study_4_migration.py --protocol paper --dry-run [--speed N]

By default all is small: the vacancy and the interstitial of iodine in CsPbI3, cells of 40 atoms, tight binding, a NEP,
and one round in which the potential itself finds the frames that are labelled next. So it goes from nothing to both
tables; its numbers are those of tight binding in so small a cell, with wide error bars.

With the protocol `paper` the six defects of MAPbI3 are labelled by VASP (SCAN+rVV10, on-the-fly learning at 500, 625
and 750 K), Allegro learns them, and the runs are those of the study: 100 ps and 2 ns, five times at five temperatures,
2592 atoms.

    verdi run examples/study_4_migration.py --protocol paper --potcars PBE.54 --computer cluster --jobs 50 \
        --options '{"gpus": 1}'

To label by CP2K instead of VASP, say so in `PROTOCOLS`: `('cp2k', 'scan-rvv10', {'run': 'md'})`. A path whose ends you
have relaxed comes by `--ends V_I+=ends.xyz`, an extended XYZ of both; those of the interstitial cations have to.
Diffusion is done by the engine that `--engine` names: `lammps` and `gpumd` want an environment of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.functions.dataset import join_datasets, name_group, split_dataset, state_cell
from aiida_perovmlip.calculations.functions.defects import make_defect
from aiida_perovmlip.calculations.functions.paths import build_path
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.calculations.functions.surroundings import errors_near_defects
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.importing import import_dataset
from aiida_perovmlip.launch import JobFailed, run_job, table
from aiida_perovmlip.query.motion import diffusion_records
from aiida_perovmlip.query.paths import barriers_records
from aiida_perovmlip.report.barriers import write_profiles
from aiida_perovmlip.report.diffusion import write_arrhenius, write_msd
from aiida_perovmlip.steps import Planned, Workbench, describe_plan, joined, planned_labels, run_study, study_parser
from aiida_perovmlip.structures.recipes import frames_from_recipe
from aiida_perovmlip.workflows.diffusion import DiffusionWorkChain
from aiida_perovmlip.workflows.diffusion_plan import diffusion_runs, lattice_runs, read_diffusion_settings
from aiida_perovmlip.workflows.diffusion_plan import settings_of_protocol as settings_of_diffusion
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain
from aiida_perovmlip.workflows.training import settings_of_protocol

IODINE = {'sublattice': 'X', 'ions': ['I']}
CATION = {'sublattice': 'A', 'ions': ['MA']}


def defect(kind: str, ion: str, charge: int, potential: str) -> dict[str, Any]:
    """Return a defect: the potential that it is learned by, how it is made, and how it hops."""
    recipe = {'kind': kind, 'ion': ion, 'charge': charge}
    return {'potential': potential, 'recipe': recipe, 'hop': {**recipe, 'n_images': 3, 'max_distance': 6.5},
            'near': IODINE if ion == 'I' else CATION}  # fmt: skip


DEFECTS = {
    'I_i-': defect('interstitial', 'I', -1, 'charged'),
    'V_I+': defect('vacancy', 'I', 1, 'charged'),
    'V_MA0': defect('vacancy', 'MA', 0, 'neutral vacancy'),
    'V_MA-': defect('vacancy', 'MA', -1, 'charged'),
    'MA_i+': defect('interstitial', 'MA', 1, 'charged'),
    'MA_i0': defect('interstitial', 'MA', 0, 'neutral interstitial'),
}
"""The defects of the study, in the order of its Table 1."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    'fast': {
        'defects': ['I_i-', 'V_I+'],
        'crystal': {'formula': 'CsPbI3', 'glazer': ['a0a0c+'], 'tilt_degrees': 9.0},
        'hop': {'which': 1},  # of two hops of nearly one length, the one whose ends are alike
        'need_ends': [],
        # GFN2-xTB takes three times as long, and is needed for nitrogen alone.
        'labels': ('tblite', 'balanced', {'method': 'GFN1-xTB'}),
        'reference': ('tblite', 'balanced', {'method': 'GFN1-xTB'}),
        # Displacements as large as those of heat: a potential that has not seen them explodes at once.
        'around': {'count': 16, 'rattle': 0.16, 'strain': 0.02},
        'around_path': {'count': 2, 'rattle': 0.1},
        'rounds': [{'steps': 1500, 'timestep': 4.0, 'temperature': kelvin, 'frames_every': 150}
                   for kelvin in (600.0, 650.0, 700.0)],
        'temperatures': [None],
        'architecture': 'nep',
        'training': ('fast', {'steps': 1500}),
        'repeat': 2,
        'diffusion': ('fast', {'temperatures': [550.0, 600.0, 650.0], 'production': 50.0, 'timestep': 5.0,
                               'lattice': 15.0, 'lattice_temperatures': [500.0, 650.0], 'frames_every': 0.1}),
    },
    'paper': {
        'defects': list(DEFECTS),
        'crystal': {'formula': 'MAPbI3'},
        'hop': {'molecules_as_points': True},
        'need_ends': ['MA_i+', 'MA_i0'],  # between two cations there is no room for a third one as they stand
        'labels': ('vasp', 'scan-rvv10-500-on-the-fly', {}),
        'reference': ('vasp', 'scan-rvv10-500', {}),
        'around': None,  # the frames are those that VASP learns on the fly
        'rounds': [],
        'temperatures': [500.0, 625.0, 750.0],
        'architecture': 'allegro',
        'training': ('paper', {}),
        'repeat': 6,
        'diffusion': ('paper', {}),
    },
}  # fmt: skip
PARTS = {'training': 0.8, 'validation': 0.1, 'test': 0.1}


# ---------------------------------------------------------------------- structures and labels


def crystal_of(how: dict[str, Any], repeat: int) -> DatasetData:
    """Return the neutral crystal; atoms that are a little off their sites find the tilts of the octahedra sooner."""
    family = {**how['crystal'], 'count': 1, 'repeat': [repeat] * 3, 'rattle': 0.02}
    return state_cell(build_frames(orm.Dict({'families': [family]}), orm.Int(0)), orm.Dict({'charge': 0}))


def paths_of(arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return the first path of each defect: a hop of its ion in the ideal crystal, or between ends that were given."""
    ends = dict(given.split('=', 1) for given in arguments.ends if '=' in given)
    ideal = build_frames(orm.Dict({'families': [{**how['crystal'], 'count': 1, 'repeat': [2, 2, 2]}]}), orm.Int(0))
    found = {}
    for name in how['defects']:
        if name in ends:
            found[name] = build_path(orm.Dict({'kind': 'between', 'n_images': 3}), import_dataset(Path(ends[name])))
        elif DEFECTS[name]['recipe']['kind'] == 'vacancy':
            found[name] = build_path(orm.Dict({**DEFECTS[name]['hop'], **how['hop']}), ideal)
        else:
            start = make_defect(ideal, orm.Dict(DEFECTS[name]['recipe']))
            found[name] = build_path(orm.Dict(kick_out(start)), start)
    return found


def kick_out(start: DatasetData) -> dict[str, Any]:
    """Return how an interstitial atom, the last one, takes the place of its nearest like, which becomes interstitial.

    There is no room to pass it by: this is the way of iodine in the study.
    """
    atoms = next(start.iter_atoms())
    last = len(atoms) - 1
    alike = [index for index in range(last) if atoms.symbols[index] == atoms.symbols[last]]
    pushed = min(alike, key=lambda index: round(atoms.get_distance(last, index, mic=True), 6))
    way = atoms.get_distance(last, pushed, mic=True, vector=True)
    free = atoms.positions[last] + 2 * way
    return {'kind': 'exchange', 'chain': [last, pushed], 'last_place': [float(x) for x in free], 'n_images': 3}


def label_defects(
    bench: Workbench, how: dict[str, Any], starts: dict[str, DatasetData], paths: dict[str, DatasetData]
) -> dict[str, DatasetData]:
    """Return labelled frames of the crystal and of each defect."""
    found = {}
    for name, start in starts.items():
        if how['around'] is None:
            runs = [
                bench.label(start, *_at(how['labels'], kelvin), f'{name} at {kelvin:g} K')
                for kelvin in how['temperatures']
            ]
            known = joined(runs)
        else:
            around = {'start': distort_frames(start, orm.Dict(how['around']), orm.Int(0))}
            if name in paths:
                around['path'] = distort_frames(paths[name], orm.Dict(how['around_path']), orm.Int(1))
            known = bench.label(join_datasets(**around), *how['labels'], name)
        found[name] = name_group(known, orm.Str(name))
    return found


def _at(labels: tuple[str, str, dict[str, Any]], kelvin: float) -> tuple[str, str, dict[str, Any]]:
    """Return how frames are collected at a temperature."""
    return labels[0], labels[1], {**labels[2], 'temperature': kelvin}


def explored(
    bench: Workbench,
    how: dict[str, Any],
    motion: dict[str, Any],
    starts: dict[str, DatasetData],
    potentials: dict[str, PotentialData],
) -> dict[str, DatasetData]:
    """Return labelled frames of runs by the potentials: what they have to know where they go by themselves."""
    found = {}
    for name, start in starts.items():
        builder = MdWorkChain.get_builder_from_protocol(
            bench.code(how['architecture']), potential_for(name, potentials), start, settings=motion,
            options=bench.job_options,
        )  # fmt: skip
        frames = bench.explore(builder, f'{name}: frames by the potential')
        if frames is not None:
            found[name] = name_group(bench.label(frames, *how['reference'], f'{name}, explored'), orm.Str(name))
    return found


# ---------------------------------------------------------------------- potentials


def potential_for(name: str, potentials: dict[str, PotentialData]) -> PotentialData:
    """Return the potential of a defect; that of the crystal is the one of the charged defects."""
    return potentials[DEFECTS[name]['potential'] if name in DEFECTS else 'charged']


def train_all(
    bench: Workbench, how: dict[str, Any], known: dict[str, DatasetData], what: str
) -> tuple[dict[str, PotentialData], dict[str, DatasetData]]:
    """Return the potentials, each of all defects that share it, and the test frames of each defect."""
    parts = {name: split_dataset(frames, orm.Dict(PARTS), orm.Str('random'), orm.Int(1))
             for name, frames in known.items()}  # fmt: skip
    owners: dict[str, list[str]] = {}
    for name in known:
        owners.setdefault(DEFECTS[name]['potential'] if name in DEFECTS else 'charged', []).append(name)
    protocol, settings = how['training']
    potentials = {}
    for owner, names in owners.items():
        shared = {part: joined(parts[name][part] for name in names) for part in ('training', 'validation')}
        title = f'{what}, {owner} ({", ".join(names)})'
        potentials[owner] = bench.train(how['architecture'], shared, title, settings=settings, protocol=protocol)
    return potentials, {name: each['test'] for name, each in parts.items()}


def show_errors(bench: Workbench, tests: dict[str, DatasetData], potentials: dict[str, PotentialData]) -> None:
    """Print the errors of forces of all atoms and of those near each defect."""
    rows = []
    for name, test in tests.items():
        if name not in DEFECTS:
            continue
        evaluation = bench.evaluate(potential_for(name, potentials), test, name)
        metal = {'metal': 'Pb', **DEFECTS[name]['near']}
        found = errors_near_defects(test, evaluation.outputs.predictions, orm.Dict(metal))['forces']
        cells = [
            f'{1e3 * found[scope]["mae"]:.0f} ({1e3 * found[scope]["rmse"]:.0f})' if found[scope] else '–'
            for scope in ('all', 'near')
        ]
        rows.append((name, str(len(test)), *cells))
    print('\nMean absolute (root mean square) errors of forces in meV/Å, on frames that were not trained on:\n')
    print(table(('defect', 'frames', 'all atoms', 'near the defect'), rows))


# ---------------------------------------------------------------------- barriers and diffusion


def attempt(builder: Any, what: str) -> Any:
    """Run a chain and return its node; None, with its sentence, where it failed: the other defects go on."""
    try:
        return run_job(builder, what)
    except JobFailed as error:
        print(f'  {what}: {error}')
        return None


def barriers(
    bench: Workbench, how: dict[str, Any], paths: dict[str, DatasetData], potentials: dict[str, PotentialData]
) -> dict[str, Any]:
    """Return the validations of the paths of all defects."""
    found = {}
    for name, path in paths.items():
        builder = NebValidationWorkChain.get_builder_from_protocol(
            potential_for(name, potentials), bench.code(how['architecture']), path=path, settings={'fmax': 0.05},
            reference=bench.labelling(path, *how['reference']), options=bench.job_options,
        )  # fmt: skip
        builder.metadata.label = name
        found[name] = attempt(builder, f'{name}: barrier')
    return {name: node for name, node in found.items() if node is not None}


def show_barriers(validations: dict[str, Any], output: Path) -> None:
    """Print Table 1 and draw the paths."""
    rows = []
    for name, node in validations.items():
        for record in barriers_records([node]):
            told = ('forward_reference', 'forward', 'reverse_reference', 'reverse', 'forces_rmse')
            rows.append((name, *('–' if record[each] is None else f'{record[each]:.2f}' for each in told)))
    head = ('defect', 'labeller', 'potential', 'back, labeller', 'back, potential', 'forces (eV/Å)')
    print(f'\nTable 1, barriers in eV along the path that the potential has relaxed:\n\n{table(head, rows)}')
    pictures = [write_profiles(node, output / f'barrier_{name}.svg') for name, node in validations.items()]
    if pictures:
        print('\nPictures: ' + ', '.join(str(picture.resolve()) for picture in pictures))


def diffusion(
    bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any], potentials: dict[str, PotentialData]
) -> dict[str, Any]:
    """Return the studies of diffusion of all defects."""
    protocol, settings = how['diffusion']
    crystal, found = crystal_of(how, how['repeat']), {}
    for number, name in enumerate(how['defects']):
        builder = DiffusionWorkChain.get_builder_from_protocol(
            bench.code(how['architecture'] if arguments.engine == 'ase' else arguments.engine),
            potential_for(name, potentials),
            make_defect(crystal, orm.Dict(DEFECTS[name]['recipe'])),
            crystal=crystal,
            lattice_potential=potentials['charged'],
            protocol=protocol,
            engine=arguments.engine,
            settings={**settings, 'followed': [DEFECTS[name]['recipe']['ion']]},
            seed=1 + 1000 * number,
            max_concurrent=bench.jobs,
            options=bench.job_options,
        )
        builder.metadata.label = name
        found[name] = attempt(builder, f'{name}: diffusion')
    return {name: node for name, node in found.items() if node is not None}


def show_diffusion(studies: dict[str, Any], output: Path) -> None:
    """Print Table 2 and draw the Arrhenius lines."""
    rows = []
    for name, node in studies.items():
        for record in diffusion_records([node]):
            rows.append((name, *_cells(record)))
        for note in node.outputs.diffusion['species'][DEFECTS[name]['recipe']['ion']]['notes']:
            print(f'  {name}: {note}')
    head = ('defect', 'E_a (eV)', 'D0 (1e-4 cm²/s)', 'D(300 K) (1e-7 cm²/s)', 'hops')
    print(f'\nTable 2, diffusion of all ions of the kind together:\n\n{table(head, rows)}')
    pictures = [
        write(node, output / f'{what}_{name}.svg')
        for name, node in studies.items()
        for what, write in (('arrhenius', write_arrhenius), ('msd', write_msd))
    ]
    if pictures:
        print('\nPictures: ' + ', '.join(str(picture.resolve()) for picture in pictures))


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    """Return what is known of one species, and what stands in the way of the rest."""
    hops = '?' if record['n_hops'] is None else str(record['n_hops'])
    if record['activation_energy'] is None:
        bound = '' if record['lower_bound'] is None else f'> {record["lower_bound"]:.2f}: none moved'
        return bound or f'unknown: {record["lack"]}', '–', '–', hops
    return (
        f'{record["activation_energy"]:.2f} ± {_told(record["activation_energy_error"], 1):.2f}',
        f'{1e4 * record["prefactor"]:.2f} ± {_told(record["prefactor_error"], 1e4):.2f}',
        f'{1e7 * record["at_room_temperature"]:.2f} ×/÷ {_told(record["at_room_temperature_factor"], 1):.1f}',
        hops,
    )


def _told(value: float | None, factor: float) -> float:
    return float('nan') if value is None else factor * value


# ---------------------------------------------------------------------- the study


def study(arguments: argparse.Namespace) -> None:
    """Run all and print the tables."""
    how, bench = with_potcars(PROTOCOLS[arguments.protocol], arguments.potcars), Workbench.of(arguments)
    if arguments.dry_run:
        print(describe_plan(f'Study 4, protocol {arguments.protocol}:', plan(arguments, how)))
        return
    unknown = sorted({given.partition('=')[0] for given in arguments.ends} - set(how['defects']))
    if unknown:
        raise ValueError(f'--ends names {", ".join(unknown)}, but the defects are {", ".join(how["defects"])}.')
    lacking = [name for name in how['need_ends'] if not any(given.startswith(f'{name}=') for given in arguments.ends)]
    if lacking:
        words = ' '.join(f'--ends {name}=ends.xyz' for name in lacking)
        raise ValueError(f'the paths of {" and ".join(lacking)} start from ends that you have relaxed: {words}.')
    bench.code(how['architecture'])  # its absence is to be told before hours of labels
    arguments.output.mkdir(parents=True, exist_ok=True)
    paths, crystal = paths_of(arguments, how), crystal_of(how, 2)
    starts = {name: make_defect(crystal, orm.Dict(DEFECTS[name]['recipe'])) for name in how['defects']}
    starts = {'crystal': crystal, **starts}
    known = label_defects(bench, how, starts, paths)
    potentials, tests = train_all(bench, how, known, 'First potential')
    for number, motion in enumerate(how['rounds'], start=2):
        new = explored(bench, how, motion, starts, potentials)
        known = {name: join_datasets(known=each, new=new[name]) if name in new else each
                 for name, each in known.items()}  # fmt: skip
        potentials, tests = train_all(bench, how, known, f'Potential of round {number}')
    show_errors(bench, tests, potentials)
    hops = barriers(bench, how, paths, potentials)
    show_barriers(hops, arguments.output)
    moving = diffusion(bench, arguments, how, potentials)
    show_diffusion(moving, arguments.output)
    missing = [f'{what} of {name}' for what, found in (('barrier', hops), ('diffusion', moving))
               for name in how['defects'] if name not in found]  # fmt: skip
    if missing:
        raise ValueError(f'the tables lack {", ".join(missing)}; the reasons stand above.')


def with_potcars(how: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the settings of a protocol with the family of POTCARs where VASP labels."""
    if how['labels'][0] != 'vasp':
        return how
    return {**how, **{key: (*how[key][:2], {**how[key][2], 'potential_family': family})
                      for key in ('labels', 'reference')}}  # fmt: skip


def plan(arguments: argparse.Namespace, how: dict[str, Any]) -> Iterator[Planned]:
    """Yield what would be run."""
    names, architecture = how['defects'], how['architecture']
    family = {**how['crystal'], 'count': 1}
    cell, large = (len(next(frames_from_recipe({'families': [{**family, 'repeat': [repeat] * 3}]}, 0)))
                   for repeat in (2, how['repeat']))  # fmt: skip
    if how['around'] is None:
        for kelvin in how['temperatures']:
            about = f'{", ".join(("crystal", *names))}; each collects frames on the fly (published: 1328 to 1818 each)'
            yield planned_labels(f'the defects at {kelvin:g} K', _at(how['labels'], kelvin), [cell] * (1 + len(names)),
                                 about)  # fmt: skip
    else:
        count = how['around']['count'] * (1 + len(names)) + how['around_path']['count'] * 5 * len(names)
        yield planned_labels('the defects', how['labels'], [cell] * count, ', '.join(('crystal', *names)))
    owners = sorted({DEFECTS[name]['potential'] for name in names})
    protocol, settings = how['training']
    yield Planned(f'train {architecture}: {", ".join(owners)}', len(owners),
                  settings_of_protocol(architecture, protocol, settings))  # fmt: skip
    for motion in how['rounds']:
        n_frames = motion['steps'] // motion['frames_every'] + 1
        yield Planned('run the crystal and the defects by the potential', 1 + len(names), motion)
        yield planned_labels('these frames', how['reference'], [cell] * n_frames * (1 + len(names)))
        yield Planned(f'train {architecture} again', len(owners))
    yield Planned('evaluate the potentials near each defect', len(names))
    yield Planned('relax the paths by the potentials', len(names), {'n_images': 3, 'spring': 5.0}, 'Table 1')
    yield planned_labels('the paths', how['reference'], [cell] * 5 * len(names))
    yield from planned_diffusion(arguments, how, large)


def planned_diffusion(arguments: argparse.Namespace, how: dict[str, Any], atoms: int) -> Iterator[Planned]:
    """Yield the runs of diffusion, those of one defect for all, with the hours that they take."""
    told = settings_of_diffusion(*how['diffusion'])
    settings, names = read_diffusion_settings(told), how['defects']
    runs = [*lattice_runs(settings, 0)]
    runs += [run for pair in diffusion_runs(settings, 0) for run in pair if run is not None]
    steps = sum(run.steps for run in runs)
    cost = 'hours: unknown; give the atom·steps/s of a job by --speed.'
    if arguments.speed:
        hours = len(names) * steps * atoms / arguments.speed / 3600
        cost = f'hours: about {hours:.3g} of jobs at {arguments.speed:.3g} atom·steps/s.'
    about = f'Table 2: {len(runs)} runs for each of {", ".join(names)}, {atoms} atoms, {steps} steps; {cost}'
    yield Planned('run the diffusion', len(runs) * len(names), told, about)


def main() -> None:
    """Run the study, or say what it would run."""
    parser = study_parser(__doc__, 'study-4')
    parser.add_argument('--potcars', default='PBE.54', help='family of POTCARs in AiiDA, where VASP labels')
    parser.add_argument('--ends', action='append', default=[], metavar='DEFECT=FILE', help='relaxed ends of a path')
    parser.add_argument('--engine', default='ase', help='engine of the runs of diffusion')
    parser.add_argument('--speed', type=float, help='atom·steps/s of one job, for the cost')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
