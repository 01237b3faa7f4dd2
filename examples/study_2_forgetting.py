"""Substitutional defects: what fine-tuning teaches a foundation potential, and what it forgets, in one table.

This reruns the study of MACE-MP on perovskites with neutral substitutional defects. Crystals → substituted and vacant
supercells → labels at a second level of theory; a parent that knows another level → fine-tuning with one head and with
several, the replayed frames being those farthest from each other → errors of all potentials on three test sets, Table 1
of the study; and the same structures at both levels → differences of forces by element, its Figures 1 and A1. Run it
again and nothing is computed twice.

    aiida-perovmlip setup --with mace --with tblite
    verdi run examples/study_2_forgetting.py [--output FOLDER] [--jobs N] [--cores N]
    verdi run examples/study_2_forgetting.py --protocol paper --dry-run

By default all is small: two methods of tight binding stand for the two programs of DFT, cells have 40 atoms, and the
parent is a MACE that is trained on the spot. What it shows is the pattern of Table 1; its numbers are of small
potentials.

With the protocol `paper` CP2K relaxes the defects as published (PBE, TZVP, 500 Ry, BFGS to 0.02 eV/Å), and MACE learns
at a rate of 1e-5 for 20 epochs with 10 000 replayed frames. It takes files that are yours to get:

    verdi run examples/study_2_forgetting.py --protocol paper --foundation mace-mp-0b3.model --sha256 HASH \
        --pretraining mptrj.xyz --third omat24.xyz --computer cluster --jobs 50 --options '{"gpus": 1}'

To label by VASP instead of CP2K, say so in `PROTOCOLS`: labeller `vasp`, one of its protocols, and `settings` with the
family of its POTCARs. The study drew its crystals from databases; name yours by `--crystals FILE`, an extended XYZ of
supercells whose `config_type` is their formula.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiida import orm

from aiida_perovmlip.calculations.functions.choose import choose_frames
from aiida_perovmlip.calculations.functions.dataset import join_datasets, select_frames, split_dataset
from aiida_perovmlip.calculations.functions.defects import make_defects
from aiida_perovmlip.calculations.functions.difference import label_difference
from aiida_perovmlip.calculations.functions.structures import build_frames, distort_frames
from aiida_perovmlip.calculations.functions.surfaces import build_atoms
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.importing import import_dataset, import_potential
from aiida_perovmlip.launch import table
from aiida_perovmlip.query import forgetting_matrix
from aiida_perovmlip.report.difference import write_differences, write_elements
from aiida_perovmlip.steps import (
    Planned,
    Workbench,
    describe_plan,
    heads_of_level,
    joined,
    planned_labels,
    run_study,
    study_parser,
)
from aiida_perovmlip.structures.perovskite import sites_of
from aiida_perovmlip.structures.recipes import frames_from_recipe
from aiida_perovmlip.workflows.training import settings_of_protocol

METALS = ['Sc', 'Ti', 'V', 'Cr', 'Mn', 'Fe', 'Co', 'Ni', 'Cu', 'Zn', 'Y', 'Zr', 'Nb', 'Mo', 'Ag', 'Cd', 'Hf', 'W']
GAP_OF_1_TO_3_EV = [
    *('CsPbI3', 'CsPbBr3', 'CsSnI3', 'CsSnBr3', 'MAPbI3', 'MAPbBr3', 'MASnI3', 'MASnBr3'),
    *('FAPbI3', 'FAPbBr3', 'FASnI3'),
]
MPTRJ = {'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '520 eV', 'details': {'dataset': 'MPtrj'}}
OMAT24 = {'labeller': 'vasp', 'functional': 'PBE', 'cutoff': '520 eV', 'details': {'dataset': 'OMat24'}}

PROTOCOLS: dict[str, dict[str, Any]] = {
    'fast': {
        'crystals': ['CsPbI3'],
        'substituents': {'A': ['Rb'], 'B': ['Sn']},
        'labels': ('tblite', 'balanced', {'method': 'GFN2-xTB'}),
        'parts': {'training': 0.7, 'validation': 0.15, 'test': 0.15},
        'around': {'count': 8, 'rattle': 0.08, 'strain': 0.01},
        'first_labels': ('tblite', 'balanced', {'method': 'GFN1-xTB'}),
        'first': [
            {'formula': 'CsPbI3', 'count': 20, 'strain': 0.02, 'rattle': 0.07},
            {'formula': 'RbPbI3', 'count': 12, 'strain': 0.02, 'rattle': 0.07, 'lattice_constant': 6.2},
        ],
        # Frames that are learned and never labelled again, since GFN2-xTB hardly converges for them.
        'also': [{'formula': 'CsSnI3', 'count': 8, 'strain': 0.02, 'rattle': 0.07}],
        'third': [{'formula': 'CsSnI3', 'count': 16, 'strain': 0.05, 'rattle': 0.18, 'group': 'far from rest'}],
        'n_test': 6,
        'n_again': 12,
        'n_replay': 20,
        'parent': {'hidden_irreps': '16x0e', 'r_max': 5.0, 'epochs': 40, 'batch_size': 2},
        'tuning': {'learning_rate': 0.002, 'epochs': 20, 'batch_size': 2},
        'mace': 'fast',
        'with_atoms': False,
    },
    'paper': {
        'crystals': GAP_OF_1_TO_3_EV,
        'substituents': {'A': [*METALS, 'N'], 'B': [*METALS, 'N']},
        'labels': ('cp2k', 'paper', {}),
        'parts': {'training': 0.8, 'validation': 0.1, 'test': 0.1},
        'around': None,  # the steps of the relaxations are the frames
        'n_test': 2000,
        'n_again': 2000,
        'n_replay': 10_000,
        'tuning': {'batch_size': 4},
        'mace': 'paper',
        'with_atoms': True,
    },
}
RELAXING = {'run': 'relax'}
"""What makes a labelling of the protocol `paper` a relaxation; single points are without it."""


# ---------------------------------------------------------------------- structures and labels


def supercells(how: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recipe of the supercells that defects are put into."""
    return [{'formula': formula, 'count': 1, 'repeat': [2, 2, 2]} for formula in how['crystals']]


def crystals_of(arguments: argparse.Namespace, how: dict[str, Any]) -> DatasetData:
    """Return the supercells that defects are put into."""
    if arguments.crystals is not None:
        return import_dataset(arguments.crystals)
    return build_frames(orm.Dict({'families': supercells(how)}), orm.Int(0))


def recipes_of(formula: str, substituents: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Return each substitution and each vacancy on the A and the B site of a crystal."""
    sites = sites_of(formula)
    recipes: list[dict[str, Any]] = []
    for ion, elements in ((sites.a_site, substituents['A']), (sites.b_site, substituents['B'])):
        recipes.append({'kind': 'vacancy', 'ion': ion})
        recipes += [{'kind': 'substitution', 'ion': ion, 'by': element} for element in elements if element != ion]
    return recipes


def defects_of(crystals: DatasetData, substituents: dict[str, list[str]]) -> DatasetData:
    """Return the crystals with their defects."""
    parts = []
    for number, crystal in enumerate(crystals):
        recipes = orm.List(recipes_of(crystal.group, substituents))
        parts.append(make_defects(select_frames(crystals, orm.List([number])), recipes))
    return joined(parts)


def label_defects(bench: Workbench, frames: DatasetData, how: dict[str, Any]) -> DatasetData:
    """Return labelled frames of the defects: distorted ones, or the steps of relaxations."""
    labeller, protocol, settings = how['labels']
    if how['around'] is None:
        return bench.label(frames, labeller, protocol, {**settings, **RELAXING}, 'Relaxing defects')
    around = distort_frames(frames, orm.Dict(how['around']), orm.Int(0))
    return bench.label(around, labeller, protocol, settings, 'Defects')


def atoms_of(bench: Workbench, elements: list[str], labels: tuple[str, str, dict[str, Any]]) -> DatasetData:
    """Return labelled single atoms, by which energies of two programs become comparable."""
    box = None if labels[0] == 'tblite' else orm.Float(12.0)
    return bench.label(build_atoms(orm.List(elements), box), *labels, 'Isolated atoms')


def parts_of(dataset: DatasetData, **counts: float) -> dict[str, DatasetData]:
    """Return parts of a dataset; relaxations stay whole, where there are some."""
    by = 'trajectory' if any(frame.trajectory for frame in dataset) else 'stratified'
    return split_dataset(dataset, orm.Dict(counts), orm.Str(by), orm.Int(1))


def first_of(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return what the parent was trained on (the part of MPtrj), in parts."""
    if arguments.pretraining is not None:
        known = import_dataset(arguments.pretraining, level=MPTRJ)
    else:
        frames = build_frames(orm.Dict({'families': how['first']}), orm.Int(1))
        known = bench.label(frames, *how['first_labels'], 'What the parent knows')
    n_test = how['n_test']
    counts = orm.Dict({'training': -1, 'validation': n_test, 'test': n_test})
    parts = dict(split_dataset(known, counts, orm.Str('random'), orm.Int(1)))
    counts = orm.Dict({'again': how['n_again'], 'rest': -1})
    parts['again'] = split_dataset(parts['training'], counts, orm.Str('random'), orm.Int(1))['again']
    if arguments.pretraining is None:
        frames = build_frames(orm.Dict({'families': how['also']}), orm.Int(3))
        more = bench.label(frames, *how['first_labels'], 'What the parent knows besides')
        parts['training'] = join_datasets(known=parts['training'], more=more)
    return parts


def third_of(bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any]) -> dict[str, DatasetData]:
    """Return a third set that neither the parent nor the defects are like (the part of OMat24), in parts."""
    if arguments.third is not None:
        known = import_dataset(arguments.third, level=OMAT24)
    else:
        frames = build_frames(orm.Dict({'families': how['third']}), orm.Int(2))
        known = bench.label(frames, *how['first_labels'], 'Third set')
    return parts_of(known, training=0.5, validation=0.2, test=0.3)


# ---------------------------------------------------------------------- potentials


def parent_of(
    bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any], first: dict[str, DatasetData]
) -> PotentialData:
    """Return the foundation potential: the one that was given, or a small one that is trained here."""
    if arguments.foundation is None:
        return bench.train('mace', first, 'Parent', settings=how['parent'])
    return import_potential(arguments.foundation, 'mace', {'default': MPTRJ}, sha256=arguments.sha256)


def replay_of(bench: Workbench, how: dict[str, Any], parent: PotentialData, first: DatasetData) -> DatasetData:
    """Return frames that the parent knows, those that are the farthest from each other."""
    descriptors = bench.describe(parent, first, 'Replay')
    return choose_frames(first, descriptors, orm.Int(how['n_replay']), orm.Int(0))


def tuned(
    bench: Workbench,
    how: dict[str, Any],
    parts: dict[str, DatasetData],
    parent: PotentialData,
    replay: DatasetData | None,
    what: str,
) -> PotentialData:
    """Return the parent fine-tuned: with one head, or where there are frames to replay with several."""
    given = {'strategy': 'naive'} if replay is None else {'strategy': 'multihead', 'replay': replay}
    return bench.train('mace', parts, what, settings=how['tuning'], protocol=how['mace'], parent=parent, **given)


def with_atoms(parts: dict[str, DatasetData], atoms: DatasetData | None) -> dict[str, DatasetData]:
    """Return the parts with single atoms among the training frames."""
    if atoms is None:
        return parts
    return {**parts, 'training': join_datasets(frames=parts['training'], atoms=atoms)}


# ---------------------------------------------------------------------- the study


def study(arguments: argparse.Namespace) -> None:
    """Run all and print the tables."""
    how, bench = PROTOCOLS[arguments.protocol], Workbench.of(arguments)
    if arguments.dry_run:
        print(describe_plan(f'Study 2, protocol {arguments.protocol}:', plan(arguments, how)))
        return
    refuse_missing_files(arguments)
    arguments.output.mkdir(parents=True, exist_ok=True)
    first, third = first_of(bench, arguments, how), third_of(bench, arguments, how)
    defects = parts_of(
        label_defects(bench, defects_of(crystals_of(arguments, how), how['substituents']), how), **how['parts']
    )  # fmt: skip
    again = bench.label(first['again'], *how['labels'], 'Known frames, other level')
    tests = {'known': first['test'], 'defects': defects['test'], 'third': third['test']}
    for name, dataset in tests.items():
        dataset.label = f'study 2: {name}'
    potentials = potentials_of(bench, arguments, how, first, {'defects': defects, 'third': third, 'again': again})
    print(f'\nTable 1, mean absolute errors of forces in meV/Å:\n\n{errors_table(bench, potentials, tests)}')
    multihead = potentials['parent → defects, multihead']
    print('\nWhat each stage of the multihead potential knows, forces in eV/Å:\n')
    print(forgetting_matrix(multihead, 'forces', 'mae', list(tests.values())).to_string(float_format='%.4f'))
    show_shift(bench, arguments, how, potentials['parent'], first['test'])


def potentials_of(
    bench: Workbench,
    arguments: argparse.Namespace,
    how: dict[str, Any],
    first: dict[str, DatasetData],
    new: dict[str, Any],
) -> dict[str, PotentialData]:
    """Return the potentials of all rows of Table 1."""
    parent = parent_of(bench, arguments, how, first)
    replay = replay_of(bench, how, parent, first['training'])
    again = parts_of(new['again'], training=0.85, validation=0.15)
    atoms = None
    if how['with_atoms']:
        atoms = atoms_of(bench, sorted({*new['defects']['training'].elements, *new['again'].elements}), how['labels'])
    defects, again = with_atoms(new['defects'], atoms), with_atoms(again, atoms)
    tuning = {} if how['with_atoms'] is False else {'atomic_energies': 'parent'}
    # The third set has the level of the parent, so that its energies need no other zero.
    of_third = {**how, 'tuning': {**how['tuning'], **tuning}}
    return {
        'parent': parent,
        'parent → defects, one head': tuned(bench, how, defects, parent, None, 'Defects, one head'),
        'parent → defects, multihead': tuned(bench, how, defects, parent, replay, 'Defects, multihead'),
        'parent → known at the other level, one head': tuned(bench, how, again, parent, None, 'Other level, one head'),
        'parent → third, multihead': tuned(bench, of_third, new['third'], parent, replay, 'Third set, multihead'),
    }


def errors_table(bench: Workbench, potentials: dict[str, PotentialData], tests: dict[str, DatasetData]) -> str:
    """Return the errors of all potentials on all test sets."""
    rows = []
    for name, potential in potentials.items():
        cells = []
        for test, dataset in tests.items():
            # Of two heads of one level that of the replayed frames is the first.
            head = heads_of_level(potential, dataset)[0 if test == 'known' else -1]
            metrics = bench.evaluate(potential, dataset, f'{name} on {test}', head).outputs.metrics
            cells.append(f'{1e3 * metrics["forces"]["mae"]:.1f}')
        rows.append((name, *cells))
    return table(('potential', *tests), rows)


def show_shift(
    bench: Workbench, arguments: argparse.Namespace, how: dict[str, Any], parent: PotentialData, known: DatasetData
) -> None:
    """Print and draw how the forces of two levels, and of the parent, differ on the same structures."""
    other = bench.label(known, *how['labels'], 'Test frames, other level')
    predicted = bench.predict(parent, known, 'Parent')
    pairs = {
        'other − first level': (other, known),
        'parent − first level': (predicted, known),
        'parent − other level': (predicted, other),
    }
    found = {name: label_difference(one, second) for name, (one, second) in pairs.items()}
    elements = {name: each['summary']['forces_per_element'] for name, each in found.items()}
    symbols = list(next(iter(elements.values())))
    rows = [
        (symbol, *(f'{1e3 * elements[name][symbol]["mean_norm"]:.0f}' if symbol in elements[name] else '–'
                   for name in elements))
        for symbol in symbols
    ]  # fmt: skip
    print(f'\nMean length of differences of forces in meV/Å:\n\n{table(("element", *elements), rows)}')
    pictures = [write_differences(found, arguments.output / 'shift.svg'),
                write_elements(found['other − first level'], arguments.output / 'elements.svg')]  # fmt: skip
    print('\nPictures: ' + ', '.join(str(picture.resolve()) for picture in pictures))


# ---------------------------------------------------------------------- what would be run


def refuse_missing_files(arguments: argparse.Namespace) -> None:
    """Refuse the protocol `paper` without the files that it starts from."""
    wanted = {'--foundation': arguments.foundation, '--pretraining': arguments.pretraining, '--third': arguments.third}
    missing = [name for name, value in wanted.items() if value is None]
    if arguments.protocol == 'paper' and missing:
        raise ValueError(
            f'the protocol `paper` needs {", ".join(missing)}: MACE-MP-0b3, and extended XYZ files of MPtrj and OMat24.'
        )


def plan(arguments: argparse.Namespace, how: dict[str, Any]) -> Iterator[Planned]:
    """Yield what would be run."""
    defects = list(defects_to_be(arguments, how))
    labeller, protocol, settings = how['labels']
    about = f'{len(defects)} defective cells (published: 438, with more than 20 000 frames)'
    if how['around'] is None:
        yield planned_labels(
            'defects', (labeller, protocol, {**settings, **RELAXING}), defects, f'{about}: relaxations'
        )
    else:
        yield planned_labels('defects', how['labels'], defects * how['around']['count'], about)
    if how['with_atoms']:
        yield Planned(f'label single atoms by {labeller}', None, about='one of each element')
    about = f'{how["n_again"]} known frames to train on, {how["n_test"]} to test on'
    yield Planned(f'label again by {labeller} what the parent knows', None, about=about)
    if arguments.foundation is None and 'parent' in how:
        yield planned_labels('what the parent knows', how['first_labels'], sizes_of([*how['first'], *how['also']]))
        yield Planned('train the parent', settings=settings_of_protocol('mace', 'fast', how['parent']))
    else:
        yield Planned('look into the foundation potential, MACE-MP-0b3')
    yield Planned('describe what the parent knows, to choose frames to replay', about=f'{how["n_replay"]} farthest')
    tuning = settings_of_protocol('mace', how['mace'], how['tuning'], has_parent=True)
    yield Planned('fine-tune with one head: on the defects; on known frames at the other level', 2, tuning)
    yield Planned('fine-tune with several heads: on the defects; on the third set', 2, tuning)
    yield Planned('evaluate 5 potentials on 3 test sets', 15, about='Table 1')
    yield Planned('predict the test frames by the parent', about='Figures 1 and A1')


def defects_to_be(arguments: argparse.Namespace, how: dict[str, Any]) -> Iterator[int]:
    """Yield the number of atoms of the crystal of each defect."""
    if arguments.crystals is not None:
        crystals = DatasetData.from_extxyz(arguments.crystals)
    else:
        crystals = DatasetData.from_ase(frames_from_recipe({'families': supercells(how)}, 0))
    for crystal in crystals:
        yield from [len(crystal)] * len(recipes_of(crystal.group, how['substituents']))


def sizes_of(families: list[dict[str, Any]]) -> list[int]:
    """Return the number of atoms of each frame of some families."""
    return [len(atoms) for atoms in frames_from_recipe({'families': families}, 0)]


def main() -> None:
    """Run the study, or say what it would run."""
    parser = study_parser(__doc__, 'study-2')
    parser.add_argument('--foundation', type=Path, help='file of a MACE; by default a small one is trained')
    parser.add_argument('--sha256', help='the hash that the authors of the foundation potential have published')
    parser.add_argument('--pretraining', type=Path, help='frames that it was trained on, extended XYZ')
    parser.add_argument('--third', type=Path, help='labelled frames of a third kind, extended XYZ')
    parser.add_argument('--crystals', type=Path, help='supercells for the defects, extended XYZ')
    arguments = parser.parse_args()
    run_study(lambda: study(arguments))


if __name__ == '__main__':
    main()
