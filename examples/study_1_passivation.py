"""A passivator on a perovskite surface: four strategies for a potential, by their errors and their adsorption energies.

This reruns the study of continual fine-tuning for molecular passivation. Four families of structures (crystalline,
defective, surface, disordered) → labels → a curated dataset; a slab with an amino-silane on it → labels → the target.
For each of two foundation potentials: the potential as it is (zero-shot), fine-tuned on the target, and fine-tuned on
the curated dataset first (continual); and one from scratch. At the end: errors by family, adsorption energies by all
potentials beside those of the labeller, and which atoms of the molecule touch which of the surface while it moves. Run
it again and nothing is computed twice.

    aiida-perovmlip setup --with mace --with tblite
    verdi run examples/study_1_passivation.py [--output FOLDER] [--jobs N] [--cores N]
    verdi run examples/study_1_passivation.py --protocol paper --dry-run

By default all is small: labels by tight binding, CsPbI3 in place of a hybrid perovskite, aminomethylsilane in place of
AEAPTMS, and two foundation potentials that are trained on the spot: `narrow` has seen crystals and molecules, `broad`
surfaces and a molecule on one as well. So the claim of the study can be looked at: that curated data help the first
more than the second.

With the protocol `paper` the molecule is AEAPTMS on MAPbI3, and the foundation potentials are files that are yours to
get. The study has told neither its level of theory nor its numbers of frames: those of `PROTOCOLS` are ours.

    verdi run examples/study_1_passivation.py --protocol paper --trust --foundation mp-0b3=mace-mp-0b3.model \
        --foundation mh-1=mace-mh-1.model:omat_pbe --computer cluster --jobs 50 --options '{"gpus": 1}'

Trainings of the protocol `paper` want a GPU: `--options '{"gpus": 1}'`. To label by VASP instead of CP2K, say so in
`PROTOCOLS`: labeller `vasp`, one of its protocols, and `settings` with the family of its POTCARs. Datasets that are
labelled already come by `--curated FILE` and `--target FILE`, extended XYZ with the families as `config_type`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from aiida import orm

from aiida_perovmlip.calculations.functions.dataset import join_datasets, name_group, split_dataset, state_cell
from aiida_perovmlip.calculations.functions.defects import make_defects
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.calculations.functions.surfaces import MOLECULE, SLAB, Surface, build_molecules, build_surface
from aiida_perovmlip.calculations.functions.trajectories import select_frames as frames_of_run
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.importing import import_dataset, import_potential
from aiida_perovmlip.launch import JobFailed, run_job, table
from aiida_perovmlip.report.writing import write_report
from aiida_perovmlip.steps import Planned, Workbench, describe_plan, joined, planned_labels, run_study, study_parser
from aiida_perovmlip.structures.perovskite import sites_of
from aiida_perovmlip.structures.recipes import frames_from_recipe
from aiida_perovmlip.structures.surfaces import TERMINATIONS, motifs
from aiida_perovmlip.workflows.continual import ContinualWorkChain
from aiida_perovmlip.workflows.md import MdWorkChain
from aiida_perovmlip.workflows.training import settings_of_protocol

LEVEL_OF_FILES = {'labeller': 'dft', 'functional': 'PBE', 'dispersion': 'D3'}
"""What is said of datasets that come labelled: change it to what they were computed by."""

TOUCHING = {('N', 'Pb'): 3.0, ('O', 'Pb'): 3.0, ('H', 'I'): 3.1, ('Si', 'I'): 4.2}
"""Pairs of the molecule and the surface that make a motif, and the largest distance in Å that counts."""

PROTOCOLS: dict[str, dict[str, Any]] = {
    'fast': {
        'formula': 'CsPbI3',
        'labels': ('tblite', 'fast', {}),
        'crystalline': {'count': 5, 'glazer': ['a0a0a0', 'a0a0c+', 'a-a-c+'], 'tilt_degrees': 8.0, 'rattle': 0.06,
                        'strain': 0.02},
        'disordered': {'count': 5, 'rattle': 0.18, 'strain': 0.03},
        'defects': [('vacancy', 'I'), ('vacancy', 'A'), ('interstitial', 'I')],
        'around_defects': {'count': 2, 'rattle': 0.06},
        'slab': {'repeat': [2, 2], 'planes': 3, 'vacuum': 12.0},
        'terminations': ['BX'],  # of the other one GFN2-xTB does not converge
        'around_slabs': {'count': 6, 'rattle': 0.06},
        'molecule': {'molecule': 'aminomethylsilane', 'box': 12.0, 'anchors': ['N'], 'heights': [2.5, 2.9]},
        'around_target': {'count': 6, 'rattle': 0.06},
        'seen': {'heights': [2.45, 2.6, 2.8, 3.3]},
        'foundations': {'narrow': False, 'broad': True},
        'foundation': {'hidden_irreps': '16x0e', 'r_max': 4.5, 'epochs': 45, 'batch_size': 2},
        'scratch': {'hidden_irreps': '16x0e', 'r_max': 4.5, 'epochs': 45, 'batch_size': 2},
        'tuning': {'learning_rate': 0.003, 'epochs': 20, 'batch_size': 2},
        'mace': 'fast',
        'motion': {'steps': 1000, 'timestep': 0.5, 'temperature': 300.0, 'frames_every': 20},
    },
    'paper': {
        'formula': 'MAPbI3',
        'labels': ('cp2k', 'pbe-d3', {}),
        'crystalline': {'count': 500, 'glazer': ['a0a0a0', 'a0a0c+', 'a0a0c-', 'a-a-c+'], 'tilt_degrees': 8.0,
                        'rattle': 0.1, 'strain': 0.03},
        'disordered': {'count': 500, 'rattle': 0.25, 'strain': 0.05},
        'defects': [('vacancy', 'I'), ('vacancy', 'A'), ('vacancy', 'B'), ('interstitial', 'I'), ('interstitial', 'A')],
        'around_defects': {'count': 100, 'rattle': 0.1},
        'slab': {'repeat': [3, 3], 'planes': 5, 'vacuum': 25.0},
        'terminations': list(TERMINATIONS),
        'around_slabs': {'count': 250, 'rattle': 0.1},
        'molecule': {'molecule': 'AEAPTMS', 'box': 22.0, 'anchors': ['N', 'O'], 'sites': ['Pb', 'I'],
                     'heights': [2.4, 2.7, 3.0, 3.5]},
        'around_target': {'count': 50, 'rattle': 0.1},
        'seen': {'heights': [2.5, 2.8, 3.2]},
        'scratch': {'hidden_irreps': '128x0e + 128x1o', 'epochs': 200},
        'tuning': {'learning_rate': 1e-4, 'epochs': 100},
        'mace': 'balanced',
        'motion': {'steps': 2_000_000, 'timestep': 0.5, 'temperature': 300.0, 'frames_every': 1000},
    },
}  # fmt: skip

PARTS = {'training': 0.7, 'validation': 0.15, 'test': 0.15}


class Foundation(NamedTuple):
    """A potential to start from.

    :param head: the one of its heads that is used, where it has several.
    """

    potential: PotentialData
    head: str | None = None


# ---------------------------------------------------------------------- structures


def defects_of(how: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recipes of the defects, with the ions of the formula in the place of `A` and `B`."""
    sites = sites_of(how['formula'])
    ions = {'A': sites.a_site, 'B': sites.b_site}
    return [{'kind': kind, 'ion': ions.get(ion, ion)} for kind, ion in how['defects']]


def families_of(how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return the structures of the four families of the curated dataset."""
    formula = how['formula']
    plain = {name: {'formula': formula, 'repeat': [2, 2, 2], **how[name]} for name in ('crystalline', 'disordered')}
    found = {name: build_frames(orm.Dict({'families': [family]}), orm.Int(0)) for name, family in plain.items()}
    crystal = build_frames(orm.Dict({'families': [{'formula': formula, 'count': 1}]}), orm.Int(0))
    defects = make_defects(crystal, orm.List(defects_of(how)))
    found['defective'] = distort_frames(defects, orm.Dict(how['around_defects']), orm.Int(0))
    found['surface'] = distort_frames(slabs_of(how), orm.Dict(how['around_slabs']), orm.Int(0))
    for name in ('crystalline', 'disordered', 'surface'):  # a defect may leave a spin; all else is known to have none
        found[name] = state_cell(found[name], orm.Dict({'spin': 1}))
    return {name: name_group(frames, orm.Str(name)) for name, frames in found.items()}


def slabs_of(how: dict[str, Any]) -> DatasetData:
    """Return bare slabs."""
    recipes = [{'formula': how['formula'], **how['slab'], 'termination': kind} for kind in how['terminations']]
    return joined(build_surface(orm.Dict(recipe), orm.Int(0)) for recipe in recipes)


def target_of(how: dict[str, Any], **changes: Any) -> DatasetData:
    """Return the slab, the molecule, and both together at several heights."""
    recipe = {'formula': how['formula'], **how['slab'], **how['molecule'], **changes}
    return build_surface(orm.Dict(recipe), orm.Int(0))


def foundation_frames(how: dict[str, Any], is_broad: bool) -> DatasetData:
    """Return what a small foundation potential knows: crystals and molecules, and surfaces where it is broad."""
    crystals = build_frames(orm.Dict({'families': [{'formula': how['formula'], 'repeat': [2, 2, 2], 'count': 8,
                                                    'strain': 0.02, 'rattle': 0.08}]}), orm.Int(7))  # fmt: skip
    gas = build_molecules(orm.List(['CN', 'C[SiH3]', 'N[SiH3]']), orm.Float(12.0))
    parts = {'crystals': crystals, 'gas': distort_frames(gas, orm.Dict({'count': 5, 'rattle': 0.1}), orm.Int(7))}
    if is_broad:
        on_surface = target_of(how, molecule='CN', heights=[2.5, 3.0])
        parts['surfaces'] = distort_frames(on_surface, orm.Dict({'count': 3, 'rattle': 0.06}), orm.Int(8))
        parts['slabs'] = distort_frames(slabs_of(how), orm.Dict({'count': 2, 'rattle': 0.06}), orm.Int(9))
    return join_datasets(**parts)


# ---------------------------------------------------------------------- datasets and potentials


def parts_of(dataset: DatasetData) -> dict[str, DatasetData]:
    """Return the parts of a labelled dataset, each with frames of all groups."""
    return split_dataset(dataset, orm.Dict(PARTS), orm.Str('stratified'), orm.Int(1))


def curated_of(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return the curated dataset in parts."""
    if arguments.curated is not None:
        return parts_of(import_dataset(arguments.curated, level=LEVEL_OF_FILES))
    return parts_of(bench.label(join_datasets(**families_of(how)), *how['labels'], 'Curated dataset'))


def passivated_of(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return the target dataset in parts."""
    if arguments.target is not None:
        return parts_of(import_dataset(arguments.target, level=LEVEL_OF_FILES))
    around = distort_frames(target_of(how), orm.Dict(how['around_target']), orm.Int(3))
    return parts_of(bench.label(around, *how['labels'], 'Passivated surface'))


def foundations_of(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, Foundation]:
    """Return the foundation potentials: those that were given, or small ones that are trained here."""
    found = {}
    for given in arguments.foundation:
        name, _, place = given.partition('=')
        file, _, head = place.partition(':')
        potential = import_potential(Path(file), 'mace', trust=arguments.trust)
        if len(potential.heads) > 1 and head not in potential.heads:
            heads = ', '.join(potential.heads)
            raise ValueError(f'{file} has several heads, {heads}: name one by `--foundation {name}={file}:HEAD`.')
        found[name] = Foundation(potential, head or None)
    if found:
        return found
    for name, is_broad in how.get('foundations', {}).items():
        frames = bench.label(foundation_frames(how, is_broad), *how['labels'], f'Foundation `{name}`')
        parts = split_dataset(frames, orm.Dict({'training': 0.85, 'validation': 0.15}), orm.Str('stratified'),
                              orm.Int(0))  # fmt: skip
        found[name] = Foundation(bench.train('mace', parts, f'Foundation `{name}`', settings=how['foundation']))
    if not found:
        raise ValueError('name the foundation potentials: `--foundation mp-0b3=mace-mp-0b3.model`, twice for two.')
    return found


def potentials_of(
    bench: Workbench,
    how: dict[str, Any],
    foundations: dict[str, Foundation],
    curated: dict[str, DatasetData],
    target: dict[str, DatasetData],
) -> dict[str, tuple[PotentialData, str | None]]:
    """Return the potentials of all strategies by name, each with the head that is used."""
    scratch = bench.train('mace', target, 'From scratch', settings=how['scratch'], protocol=how['mace'])
    found: dict[str, tuple[PotentialData, str | None]] = {'scratch': (scratch, None)}
    for name, foundation in foundations.items():
        found[f'{name}, zero-shot'] = (foundation.potential, foundation.head)
        tuning = {**how['tuning'], **({'parent_head': foundation.head} if foundation.head else {})}
        tuned = bench.train(
            'mace', target, f'{name}, fine-tuned', settings=tuning, protocol=how['mace'], strategy='naive',
            parent=foundation.potential,
        )  # fmt: skip
        found[f'{name}, fine-tuned'] = (tuned, None)
        found[f'{name}, continual'] = (continual(bench, how, foundation, tuning, curated, target, name), None)
    return found


def continual(
    bench: Workbench,
    how: dict[str, Any],
    foundation: Foundation,
    tuning: dict[str, Any],
    curated: dict[str, DatasetData],
    target: dict[str, DatasetData],
    name: str,
) -> PotentialData:
    """Return a foundation potential that was trained on the curated dataset first, and then on the target."""
    shared = {part: curated[part] for part in ('training', 'validation')}
    own = {part: target[part] for part in ('training', 'validation')}
    builder = ContinualWorkChain.get_builder_from_protocol(
        'mace',
        bench.code('mace'),
        [
            {**shared, 'name': 'curated', 'strategy': 'naive', 'settings': tuning},
            {**own, 'name': 'target', 'strategy': 'naive', 'settings': how['tuning']},
        ],
        protocol=how['mace'],
        parent=foundation.potential,
        seed=1,
        options={**bench.job_options, **bench.options},
    )
    return run_job(builder, f'{name}, continual: training on curated and target frames').outputs.potential


# ---------------------------------------------------------------------- what is compared


def show_errors(bench: Workbench, potentials: dict[str, Any], tests: dict[str, DatasetData]) -> None:
    """Print the errors of all potentials, family by family."""
    rows = []
    groups = {name: list(dataset.base.attributes.get('groups')) for name, dataset in tests.items()}
    for name, (potential, head) in potentials.items():
        cells = []
        for test, dataset in tests.items():
            metrics = bench.evaluate(potential, dataset, f'{name} on the {test} frames', head).outputs.metrics
            blocks = [metrics['per_group'][group] for group in groups[test]] if test == 'curated' else [metrics]
            cells += [f'{1e3 * block["forces"]["rmse"]:.0f}' for block in blocks]
            if test == 'target':
                cells.append(f'{1e3 * metrics["energy_per_atom"]["rmse"]:.1f}')
        rows.append((name, *cells))
    head = ('potential', *groups['curated'], 'target', 'target, energy')
    print(f'\nErrors, root mean square, of forces in meV/Å and of energies in meV/atom:\n\n{table(head, rows)}')


def show_adsorption(bench: Workbench, how: dict[str, Any], potentials: dict[str, Any]) -> DatasetData:
    """Print the adsorption energies by all potentials beside those of the labeller; return the labelled structures."""
    known = bench.label(target_of(how, **how['seen']), *how['labels'], 'Adsorption energies')
    energies = {'labeller': known.frames.column('energy')}
    for name, (potential, head) in potentials.items():
        evaluation = bench.evaluate(potential, known, f'{name}, adsorption', head)
        energies[name] = evaluation.outputs.predictions.get_array('energy')
    groups = [frame.group for frame in known]
    if not {SLAB, MOLECULE} <= set(groups):
        raise ValueError('the slab or the molecule alone has no label, and without these nothing is adsorbed.')
    bare, alone = groups.index(SLAB), groups.index(MOLECULE)
    together = [index for index in range(len(groups)) if index not in (bare, alone)]
    per_way = len(how['seen']['heights'])
    titles = [
        f'{groups[index]} {how["seen"]["heights"][place % per_way]:.2f} Å' for place, index in enumerate(together)
    ]
    found = {name: [all_of[index] - all_of[bare] - all_of[alone] for index in together]
             for name, all_of in energies.items()}  # fmt: skip
    rows = []
    for name, values in found.items():
        error = sum(abs(one - other) for one, other in zip(values, found['labeller'], strict=True)) / len(values)
        rows.append((name, *(f'{value:.3f}' for value in values), '' if name == 'labeller' else f'{error:.3f}'))
    print(f'\nAdsorption energies in eV:\n\n{table(("by", *titles, "mean error"), rows)}')
    return known


def height_of(frame: Any, n_slab: int) -> float:
    """Return how far in Å a molecule is above the slab, whose atoms come first."""
    heights = frame.positions[:, 2]
    return float(heights[n_slab:].min() - heights[:n_slab].max())


def show_motion(bench: Workbench, how: dict[str, Any], potential: PotentialData, known: DatasetData) -> None:
    """Let the molecule move on the surface and print which of its atoms touch which atoms of the surface."""
    groups = [frame.group for frame in known]
    start = next(index for index, group in enumerate(groups) if group not in (SLAB, MOLECULE))
    n_guest = len(known[groups.index(MOLECULE)])
    builder = MdWorkChain.get_builder_from_protocol(
        bench.code('mace'), potential, known.select([start]).store(), settings=how['motion'],
        options=bench.job_options,
    )  # fmt: skip
    try:
        run = run_job(builder, 'Motion of the passivated surface')
    except JobFailed as error:
        print(f'\nThere are no motifs, as the potential does not hold the surface together: {error}')
        return
    frames = frames_of_run(run.outputs.trajectory, orm.Int(1))
    counts = [motifs(atoms, range(len(atoms) - n_guest, len(atoms)), TOUCHING) for atoms in frames.iter_atoms()]
    rows = [
        (pair, f'{sum(count[pair] > 0 for count in counts) / len(counts):.0%}',
         f'{sum(count[pair] for count in counts) / len(counts):.2f}')
        for pair in counts[0]
    ]  # fmt: skip
    length = how['motion']['steps'] * how['motion']['timestep'] / 1000
    print(f'\nMotifs over {length:g} ps at {how["motion"]["temperature"]:g} K, by the last continual potential:\n')
    print(table(('atoms', 'of the time', 'atoms that touch'), rows))


# ---------------------------------------------------------------------- the study


def study(arguments: argparse.Namespace) -> None:
    """Run all and print the tables."""
    how, bench = dict(PROTOCOLS[arguments.protocol]), Workbench.of(arguments)
    how |= {'formula': arguments.formula} if arguments.formula else {}
    if arguments.dry_run:
        print(describe_plan(f'Study 1, protocol {arguments.protocol}:', plan(arguments, how)))
        return
    foundations = foundations_of(bench, arguments, how)
    curated, target = curated_of(bench, arguments, how), passivated_of(bench, arguments, how)
    for name, parts in (('curated', curated), ('target', target)):
        parts['test'].label = f'study 1: {name}'
    potentials = potentials_of(bench, how, foundations, curated, target)
    show_errors(bench, potentials, {'curated': curated['test'], 'target': target['test']})
    known = show_adsorption(bench, how, potentials)
    last = list(potentials.values())[-1][0]
    show_motion(bench, how, last, known)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print(f'\nReport: {write_report(last, arguments.output / "report.html").resolve()}')


def plan(arguments: argparse.Namespace, how: dict[str, Any]) -> Iterator[Planned]:
    """Yield what would be run."""
    names = [each.partition('=')[0] for each in arguments.foundation]
    if not names and 'foundations' in how:
        names = list(how['foundations'])
        yield Planned(
            f'label what the foundations know by {how["labels"][0]}', None, about='crystals, molecules, slabs'
        )
        yield Planned('train the foundations', len(names), settings_of_protocol('mace', 'fast', how['foundation']))
    names = names or ['MACE-MP-0b3', 'MACE-MH-1']
    yield Planned('look into the foundations', len(names), about=', '.join(names))
    counts = counts_of(how)
    about = ', '.join(f'{len(sizes)} {name}' for name, sizes in counts.items())
    if arguments.curated is None:
        yield planned_labels('the curated dataset', how['labels'], [*chain(*counts.values())], about)
    if arguments.target is None:
        sizes = target_sizes(how) * how['around_target']['count']
        yield planned_labels('the passivated surface', how['labels'], sizes, f'with {how["molecule"]["molecule"]}')
    yield Planned('train from scratch', 1, settings_of_protocol('mace', how['mace'], how['scratch']))
    tuning = settings_of_protocol('mace', how['mace'], how['tuning'], has_parent=True)
    yield Planned('fine-tune each foundation on the target', len(names), tuning)
    yield Planned('fine-tune each foundation on the curated dataset, then on the target', 2 * len(names), tuning)
    n_potentials = 1 + 3 * len(names)
    yield Planned(f'evaluate {n_potentials} potentials on both test sets', 2 * n_potentials)
    yield planned_labels('adsorption energies', how['labels'], target_sizes(how, **how['seen']))
    yield Planned(f'predict adsorption energies by {n_potentials} potentials', n_potentials)
    yield Planned('let the passivated surface move', 1, how['motion'])


def counts_of(how: dict[str, Any]) -> dict[str, list[int]]:
    """Return the number of atoms of each frame of the four families."""
    family = {'formula': how['formula'], 'repeat': [2, 2, 2], 'count': 1}
    (crystal,) = frames_from_recipe({'families': [family]}, 0)
    slabs = [target_sizes(how, molecule='', termination=kind)[0] for kind in how['terminations']]
    return {
        'crystalline': [len(crystal)] * how['crystalline']['count'],
        'disordered': [len(crystal)] * how['disordered']['count'],
        'defective': [len(crystal)] * len(how['defects']) * how['around_defects']['count'],
        'surface': slabs * how['around_slabs']['count'],
    }


def target_sizes(how: dict[str, Any], **changes: Any) -> list[int]:
    """Return the number of atoms of the slab, the molecule, and both together."""
    surface = Surface(**{'formula': how['formula'], **how['slab'], **how['molecule'], **changes})
    return [len(atoms) for atoms in surface.parts(np.random.default_rng(0))]


def main() -> None:
    """Run the study, or say what it would run."""
    parser = study_parser(__doc__, 'study-1')
    parser.add_argument('--foundation', action='append', default=[], metavar='NAME=FILE[:HEAD]',
                        help='file of a MACE; by default small ones are trained')  # fmt: skip
    parser.add_argument('--trust', action='store_true', help='vouch for the foundations, which are pickles')
    parser.add_argument('--formula', help='the perovskite, such as MAPbI3; by default what the protocol says')
    parser.add_argument('--curated', type=Path, help='labelled frames of the curated dataset, extended XYZ')
    parser.add_argument('--target', type=Path, help='labelled frames of the passivated surface, extended XYZ')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
