"""Phases of a mixed perovskite: a potential that finds its own training frames, then heating, cooling and a map.

This reruns the study of the morphotropic phase boundary in MA(1-x)FA(x)PbI3. Strained and scaled crystals → labels → a
committee of NEPs on random splits → runs over temperatures and compositions → the frames that the committee disagrees
on most → labels → again; then one NEP of all frames → its errors by kind of structure, energies of tilted phases and of
turned molecules beside the labeller's → ramps of temperature, tilts, transitions, the boundary, and the motion of the
modes. Run it again and nothing is computed twice.

    aiida-perovmlip setup --with nep --with tblite
    verdi run examples/study_3_phases.py [--output FOLDER] [--jobs N] [--cores N]
    verdi run examples/study_3_phases.py --protocol paper --dry-run

By default all is small: tight binding, Cs(1-x)Rb(x)PbI3 in place of MA(1-x)FA(x)PbI3, three members, one round, and
ramps that are far too fast for their transitions to mean much; the map itself warns of that. Without hydrogen steps may
be ten times as long, and GFN1-xTB will do, which is three times as fast as GFN2-xTB but wrong for nitrogen in crystals.
So nothing turns by default: `--turning FAPbI3` adds the paths of FA and labels all by GFN2-xTB, which takes far longer.

With the protocol `paper` the settings are those of the study: VASP with SCAN+rVV10, five members, GPUMD for training
(1 000 000 generations) and for the ramps of 96 000 atoms; both need a GPU.

    verdi run examples/study_3_phases.py --protocol paper --potcars PBE.54 --computer cluster --jobs 50 \
        --options '{"gpus": 1}'

To label by CP2K instead of VASP, say so in `PROTOCOLS`: `('cp2k', 'scan-rvv10', {})`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.functions.choose import choose_by_spread
from aiida_perovmlip.calculations.functions.dataset import join_datasets, name_group, split_dataset
from aiida_perovmlip.calculations.functions.mixtures import build_mixture
from aiida_perovmlip.calculations.functions.paths import build_path
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.launch import JobFailed, run_job, table
from aiida_perovmlip.query.paths import barriers_records
from aiida_perovmlip.query.phase_results import phase_energies
from aiida_perovmlip.report.barriers import write_profiles
from aiida_perovmlip.report.phase_map import describe_map, write_damping, write_diagram, write_oscillations, write_ramps
from aiida_perovmlip.report.writing import write_report
from aiida_perovmlip.steps import Planned, Workbench, describe_plan, joined, planned_labels, run_study, study_parser
from aiida_perovmlip.structures.perovskite import GLAZER
from aiida_perovmlip.workflows.committee import CommitteeWorkChain
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain
from aiida_perovmlip.workflows.phase_map import PhaseMapWorkChain
from aiida_perovmlip.workflows.phase_map_plan import MapForecast, planned_runs, protocol_of, read_phase_map_settings
from aiida_perovmlip.workflows.phase_validation import PhaseValidationWorkChain
from aiida_perovmlip.workflows.training import settings_of_protocol

AXES = ('normal', 'C-H', 'N-N')
"""Axes about which FA turns, of the three paths of the study."""

PICTURES = {
    'ramps.svg': write_ramps,
    'diagram.svg': write_diagram,
    'damping.svg': write_damping,
    'oscillations.svg': write_oscillations,
}
RUBIDIUM = {'RbPbI3': 6.2}
TURNING: dict[str, Any] = {
    'labels': ('tblite', 'fast', {}),
    'turn': {'degrees': 90.0, 'n_images': 3},
    'around_turn': {'count': 1, 'rattle': 0.05, 'strain': 0.01},
    'relax_turn': False,
}
"""What is different by default where a molecule turns as well."""


PROTOCOLS: dict[str, dict[str, Any]] = {
    'fast': {
        'compositions': ['CsPbI3', 'Cs0.5Rb0.5PbI3', 'RbPbI3'],
        'lattice_constants': RUBIDIUM,
        'tilts': ['a0a0a0', 'a0a0c+', 'a-a-c+'],
        # Displacements as large as those of heat: a potential that has not seen them explodes at once.
        'around': {'count': 5, 'rattle': 0.16, 'strain': 0.03},
        'labels': ('tblite', 'fast', {'method': 'GFN1-xTB'}),
        'n_members': 3,
        'rounds': 2,
        'motion': {'ensemble': 'npt', 'cell': 'orthogonal', 'timestep': 4.0, 'steps': 1500, 'frames_every': 75},
        'temperatures': [300.0, 600.0],
        'pressures': [0.0],
        'n_chosen': 8,
        'training': ('fast', {'steps': 800}),
        'final': ('fast', {'steps': 1500}),
        'phases_of': 'CsPbI3',
        'turning': '',
        'engine': 'ase',
        'map': ('fast', {'compositions': ['CsPbI3', 'Cs0.5Rb0.5PbI3', 'RbPbI3'], 'repeat': [4, 4, 2], 'axis': 'Rb',
                         'lattice_constants': RUBIDIUM, 'rate': 8000.0, 'window': 40.0, 'modes': [500.0]}),
    },
    'paper': {
        'compositions': ['MAPbI3', 'MA0.75FA0.25PbI3', 'MA0.5FA0.5PbI3', 'MA0.25FA0.75PbI3', 'FAPbI3'],
        'lattice_constants': {},
        'tilts': list(GLAZER),
        'around': {'count': 10, 'rattle': 0.1, 'strain': 0.05},
        'labels': ('vasp', 'scan-rvv10', {}),
        'n_members': 5,
        'rounds': 4,
        'motion': {'ensemble': 'npt', 'cell': 'flexible', 'timestep': 0.5, 'steps': 200_000, 'frames_every': 2000},
        'temperatures': [50.0, 200.0, 350.0, 500.0],
        'pressures': [-0.5, 0.0, 0.5],
        'n_chosen': 196,  # with 200 to start from these make the 986 frames of the study
        'training': ('paper', {}),
        'final': ('paper', {}),
        'phases_of': 'FAPbI3',
        'turning': 'FAPbI3',
        'turn': {'degrees': 180.0, 'n_images': 7},
        'around_turn': {'count': 1, 'rattle': 0.05},
        'relax_turn': True,
        'engine': 'gpumd',
        'map': ('paper', {}),
    },
}  # fmt: skip


# ---------------------------------------------------------------------- structures


def start_of(how: dict[str, Any]) -> DatasetData:
    """Return crystals of all compositions and tilts, strained, scaled and rattled; and the molecule that turns."""
    found = []
    for number, formula in enumerate(how['compositions']):
        crystals = joined(mixture(how, formula, glazer) for glazer in how['tilts'])
        found.append(distort_frames(crystals, orm.Dict(how['around']), orm.Int(number)))
    if how['turning']:
        around = distort_frames(joined(turns_of(how).values()), orm.Dict(how['around_turn']), orm.Int(99))
        found.append(name_group(around, orm.Str(f'{how["turning"]} turned')))
    return joined(found)


def mixture(how: dict[str, Any], formula: str, glazer: str) -> DatasetData:
    """Return one crystal of a composition and a tilt."""
    recipe = {'formula': formula, 'glazer': glazer, 'tilt_degrees': 0.0 if glazer == 'a0a0a0' else 8.0,
              'lattice_constants': how['lattice_constants']}  # fmt: skip
    return build_mixture(orm.Dict(recipe), orm.Int(1))


def turns_of(how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return a path for each axis about which one molecule turns in its crystal."""
    family = {'formula': how['turning'], 'count': 1, 'repeat': [2, 2, 2]}
    crystal = build_frames(orm.Dict({'families': [family]}), orm.Int(0))
    recipes = {axis: {'kind': 'turn', 'axis': axis, **how['turn']} for axis in AXES}
    return {axis.replace('-', '_'): build_path(orm.Dict(recipe), crystal) for axis, recipe in recipes.items()}


def phases_of(how: dict[str, Any]) -> DatasetData:
    """Return one crystal in all tilts, each a group."""
    family = {'formula': how['phases_of'], 'count': 1, 'repeat': [2, 2, 2]}
    families = [{**family, 'glazer': glazer, 'group': glazer, 'tilt_degrees': 0.0 if glazer == 'a0a0a0' else 8.0}
                for glazer in GLAZER]  # fmt: skip
    return build_frames(orm.Dict({'families': families}), orm.Int(0))


# ---------------------------------------------------------------------- the committee and what it asks for


def committee_of(bench: Workbench, how: dict[str, Any], known: DatasetData, what: str) -> dict[str, PotentialData]:
    """Return potentials that were trained on other random splits of the same frames."""
    protocol, settings = how['training']
    builder = CommitteeWorkChain.get_builder_from_protocol(
        'nep', bench.code('nep'), known, n_members=how['n_members'], by='split', max_concurrent=bench.jobs,
        protocol=protocol, settings=settings, seed=1, options={**bench.job_options, **bench.options},
    )  # fmt: skip
    outputs = run_job(builder, f'{what}: {how["n_members"]} members on {len(known)} frames').outputs
    return dict(outputs.potentials)


def explored(bench: Workbench, how: dict[str, Any], members: dict[str, PotentialData]) -> list[DatasetData]:
    """Return frames of runs by the first member, over compositions, temperatures and pressures."""
    first, found = next(iter(members.values())), []
    for formula in how['compositions']:
        start = mixture(how, formula, 'a0a0a0')
        for kelvin in how['temperatures']:
            for pressure in how['pressures']:
                settings = {**how['motion'], 'temperature': kelvin, 'pressure': pressure}
                builder = MdWorkChain.get_builder_from_protocol(
                    bench.code(how['engine'] if how['engine'] != 'ase' else 'nep'), first, start,
                    engine=how['engine'], settings=settings, options=bench.job_options,
                )  # fmt: skip
                found.append(bench.explore(builder, f'{formula} at {kelvin:g} K and {pressure:g} GPa'))
    return [frames for frames in found if frames is not None]


def chosen(bench: Workbench, how: dict[str, Any], members: dict[str, PotentialData], what: str) -> DatasetData | None:
    """Return labelled frames that the committee is least sure of; None where no run has left a frame."""
    runs = explored(bench, how, members)
    if not runs:
        return None
    frames = joined(runs)
    predicted = {name: bench.predict(member, frames, f'{what}, {name}') for name, member in members.items()}
    uncertain = choose_by_spread(frames, orm.Int(min(how['n_chosen'], len(frames))), **predicted)
    return bench.label(uncertain, *how['labels'], f'{what}, what the members disagree on')


# ---------------------------------------------------------------------- what the potential is worth


def show_errors(bench: Workbench, potential: PotentialData, test: DatasetData) -> None:
    """Print the errors by kind of structure."""
    metrics = bench.evaluate(potential, test, 'Final potential').outputs.metrics.get_dict()
    blocks = {'all': metrics, **metrics['per_group']}
    rows = [
        (name, f'{1e3 * block["energy_per_atom"]["rmse"]:.1f}', f'{1e3 * block["forces"]["rmse"]:.0f}',
         _r2(block['energy_per_atom']), _r2(block['forces']))
        for name, block in blocks.items()
    ]  # fmt: skip
    print(f'\nErrors on {len(test)} frames that were not trained on, root mean square:\n')
    print(table(('structures', 'energy (meV/atom)', 'forces (meV/Å)', 'R² energy', 'R² forces'), rows))


def _r2(block: dict[str, Any]) -> str:
    return '–' if block.get('r2') is None else f'{block["r2"]:.4f}'


def show_phases(bench: Workbench, how: dict[str, Any], potential: PotentialData) -> None:
    """Print the energies of tilted phases by the potential and by the labeller."""
    structures = phases_of(how)
    builder = PhaseValidationWorkChain.get_builder_from_protocol(
        {'nep': potential}, bench.code('nep'), structures, 'a0a0a0',
        reference=bench.labelling(structures, *how['labels']), options=bench.job_options,
    )  # fmt: skip
    builder.metadata.label = f'tilts of {how["phases_of"]}'
    node = run_job(builder, f'Energies of {len(structures)} tilts')
    print(f'\nEnergies of the tilts of {how["phases_of"]}:\n')
    print(phase_energies([node]).dropna(axis=1, how='all').to_string(index=False))


def show_turns(bench: Workbench, how: dict[str, Any], potential: PotentialData, output: Any) -> None:
    """Print and draw the energies of a molecule that turns, by the potential and by the labeller."""
    rows = []
    for axis, path in turns_of(how).items():
        builder = NebValidationWorkChain.get_builder_from_protocol(
            {'nep': potential}, bench.code('nep'), path=path, relax=orm.Bool(how['relax_turn']),
            reference=bench.labelling(path, *how['labels']), options=bench.job_options,
        )  # fmt: skip
        builder.metadata.label = f'{how["turning"]} about {axis}'
        try:
            node = run_job(builder, f'Turn about {axis}')
        except JobFailed as error:
            print(f'  The turn about {axis} is not compared: {error}')
            continue
        for record in barriers_records([node]):
            told = ('span_reference', 'span', 'forces_rmse')
            rows.append((axis, *('–' if record[each] is None else f'{record[each]:.3f}' for each in told)))
        write_profiles(node, output / f'turn_{axis}.svg')
    print('\nHighest less lowest energy in eV, one molecule of FA turning as a rigid body:\n')
    print(table(('axis', 'labeller', 'potential', 'forces (eV/Å)'), rows))


# ---------------------------------------------------------------------- the study


def study(arguments: argparse.Namespace) -> None:
    """Run all and print the tables."""
    how, bench = with_potcars(with_turns(arguments), arguments.potcars), Workbench.of(arguments)
    if arguments.dry_run:
        print(describe_plan(f'Study 3, protocol {arguments.protocol}:', plan(arguments, how)))
        return
    bench.code('nep')  # its absence is to be told before hours of labels
    arguments.output.mkdir(parents=True, exist_ok=True)
    known = bench.label(start_of(how), *how['labels'], 'Start')
    for number in range(1, how['rounds'] + 1):
        members = committee_of(bench, how, known, f'Round {number}')
        new = chosen(bench, how, members, f'Round {number}')
        known = known if new is None else join_datasets(known=known, new=new)
    parts = split_dataset(known, orm.Dict({'training': 0.8, 'validation': 0.1, 'test': 0.1}), orm.Str('stratified'),
                          orm.Int(1))  # fmt: skip
    protocol, settings = how['final']
    potential = bench.train('nep', parts, 'Final potential', settings=settings, protocol=protocol)
    show_errors(bench, potential, parts['test'])
    show_phases(bench, how, potential)
    if how['turning']:
        show_turns(bench, how, potential, arguments.output)
    print(f'\nReport: {write_report(potential, arguments.output / "report.html").resolve()}')
    show_map(bench, arguments, how, potential)


def show_map(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any], potential: PotentialData) -> None:
    """Heat and cool the compositions, and print and draw their phases."""
    protocol, settings = how['map']
    builder = PhaseMapWorkChain.get_builder_from_protocol(
        bench.code('nep' if how['engine'] == 'ase' else how['engine']), potential, protocol=protocol,
        settings=settings, seed=1, max_concurrent=bench.jobs, options=bench.job_options,
    )  # fmt: skip
    builder.metadata.label = 'study 3'
    node = run_job(builder, 'Phases over temperature and composition')
    print(describe_map(node))
    pictures = [write(node, arguments.output / name) for name, write in PICTURES.items()]
    print('\nPictures: ' + ', '.join(str(picture.resolve()) for picture in pictures))


def with_turns(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the protocol, with a molecule that turns where one is named."""
    how = PROTOCOLS[arguments.protocol]
    if not arguments.turning:
        return how
    small = TURNING if arguments.protocol == 'fast' else {}
    return {**how, **small, 'turning': arguments.turning}


def with_potcars(how: dict[str, Any], family: str) -> dict[str, Any]:
    """Return the settings of a protocol with the family of POTCARs where VASP labels."""
    labeller, protocol, settings = how['labels']
    return (
        how if labeller != 'vasp' else {**how, 'labels': (labeller, protocol, {**settings, 'potential_family': family})}
    )


def plan(arguments: argparse.Namespace, how: dict[str, Any]) -> Iterator[Planned]:
    """Yield what would be run."""
    protocol, told = how['map']
    settings = read_phase_map_settings({**protocol_of(protocol)['settings'], **told})
    smaller = read_phase_map_settings({**protocol_of(protocol)['settings'], **told, 'repeat': [2, 2, 2],
                                       'compositions': how['compositions']})  # fmt: skip
    cells = {formula: smaller.n_atoms(formula) for formula in how['compositions']}
    per_formula = len(how['tilts']) * how['around']['count']
    n_turned = len(AXES) * (how['turn']['n_images'] + 2) if how['turning'] else 0
    sizes = [size for size in cells.values() for _ in range(per_formula)] + [96] * n_turned
    yield planned_labels('the start', how['labels'], sizes, ', '.join(how['compositions']))
    rounds, n_runs = how['rounds'], len(cells) * len(how['temperatures']) * len(how['pressures'])
    trained = settings_of_protocol('nep', *how['training'])
    yield Planned(f'train {how["n_members"]} members, {rounds} times', rounds * how['n_members'], trained)
    about = f'{how["temperatures"]} K, {how["pressures"]} GPa, {len(cells)} compositions'
    yield Planned('run the potential to find frames', rounds * n_runs, how['motion'], about)
    yield planned_labels(
        'what the members disagree on', how['labels'], [max(cells.values())] * rounds * how['n_chosen']
    )
    yield Planned('train the final potential', 1, settings_of_protocol('nep', *how['final']))
    yield Planned('evaluate it', 1)
    yield planned_labels(
        'tilts and turns', how['labels'], [cells.get(how['phases_of'], 96)] * len(GLAZER) + [96] * n_turned
    )
    runs = tuple((run, settings.n_atoms(run.formula)) for run in planned_runs(settings, 0))
    published = protocol_of(protocol).get('speed')
    where = 'as given' if arguments.speed else 'as published'
    cost = MapForecast(runs, settings.timestep, how['engine'], arguments.speed or published, where)
    yield Planned('heat and cool', len(runs), about=str(cost))


def main() -> None:
    """Run the study, or say what it would run."""
    parser = study_parser(__doc__, 'study-3')
    parser.add_argument('--potcars', default='PBE.54', help='family of POTCARs in AiiDA, where VASP labels')
    parser.add_argument('--turning', help='crystal whose molecules turn, such as FAPbI3')
    parser.add_argument('--speed', type=float, help='atom·steps/s of one job of the map, for the cost')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
