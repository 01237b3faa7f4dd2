"""Bands that VASP relaxes by itself, by a stand-in that is not VASP, and against records of VASP with VTST."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read
from ase.mep import NEB

from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.labellers.vasp.neb import problem_of_resources
from aiida_perovmlip.labellers.vasp.outcar import Outcar
from aiida_perovmlip.structures.paths import linear

N_IMAGES = 3
SETTINGS = {'potential_family': 'no-real-potcars', 'incar': {'system': 'wells'}}
BAND = {'relax_ends': False, 'fmax': 0.02, 'max_steps': 80}


def wish(words):
    return {'incar': {'system': f'wells {words}'}}


@pytest.fixture(scope='module')
def frames():
    """Return a path of iodine that hops into a vacancy of CsI: not straight, and not in the cell at the origin."""
    start = bulk('CsI', 'cesiumchloride', a=4.57) * (3, 2, 2)
    end = start.copy()
    end.positions[9] -= start.positions[9] - start.positions[1]
    path = linear(*(atoms[[index for index in range(24) if index != 1]] for atoms in (start, end)), N_IMAGES)
    rng = np.random.default_rng(4)
    for image in path:
        image.positions += image.cell[0]
    for image in path[1:-1]:
        image.positions += rng.normal(0, 0.05, image.positions.shape)
    return [Frame.from_atoms(atoms, charge=1) for atoms in path]


@pytest.fixture(scope='module')
def labelled(frames):
    """Return a function that labels frames by the two wells of the stand-in."""
    path = Path(__file__).resolve().parents[2] / 'stand_ins' / 'vasp_stand_in.py'
    spec = importlib.util.spec_from_file_location('vasp_stand_in', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    wells = module.Wells(frames[0].to_atoms(), frames[-1].to_atoms())

    def label(frame):
        atoms = frame.to_atoms(labels=False)
        atoms.calc = wells
        return replace(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())

    return label


@pytest.fixture
def ends(frames, labelled, family):
    """Return a function that gives both ends with labels of the level of some settings."""

    def make(**settings):
        level = labeller_named('vasp').level_of({**SETTINGS, **settings}, {})
        return DatasetData.from_frames([labelled(frames[0]), labelled(frames[-1])], level)

    return make


@pytest.fixture
def relax(vasp_code, family, frames, ends):
    """Return a function that relaxes a path by the calculation and returns outputs and node."""

    def run(path=None, band=None, code=None, words='', repair='', processes=N_IMAGES, **more):
        labeller, nodes = labeller_named('vasp'), more.pop('nodes', {})
        settings = {**SETTINGS, **more}
        builder = labeller.band.get_builder()
        builder.code, builder.path = code or vasp_code, path or DatasetData.from_frames(frames)
        builder.band = {**BAND, **(band or {})}
        given = {**labeller.inputs(orm.Dict(settings), repair), 'ends': ends(**more), **nodes}
        for name, value in given.items():
            if value is not None:
                builder[name] = value
        options = builder.metadata.options
        options.resources = {'num_machines': 1, 'num_mpiprocs_per_machine': processes}
        options.withmpi = False  # the stand-in shares nothing out
        options.environment_variables = {'STAND_IN_WORDS': words}
        return run_get_node(builder)

    return run


# ---------------------------------------------------------------------- a band


def test_a_band_is_relaxed_and_labelled_in_the_order_and_place_of_the_path(relax, frames, labelled):
    outputs, node = relax()
    assert node.is_finished_ok, node.exit_message
    path, results = list(outputs['path']), outputs['results'].get_dict()
    for image, frame in zip(path, frames, strict=True):
        assert np.array_equal(image.numbers, frame.numbers)
        assert np.array_equal(image.cell, frame.cell)
        assert np.abs(image.positions - frame.positions).max() < 1.0  # VASP wraps atoms into the cell, we do not
        assert (image.source, image.charge) == (node.uuid, 1)
    for image, expected in zip(path, map(labelled, path), strict=True):
        assert image.energy == pytest.approx(expected.energy, abs=1e-5)
        assert np.allclose(image.forces, expected.forces, atol=1e-4)
    assert all(np.array_equal(path[end].positions, frames[end].positions) for end in (0, -1))
    assert results['profile']['forward'] == pytest.approx(0.4, abs=1e-3)
    assert results['profile']['reverse'] == pytest.approx(0.4, abs=1e-3)
    assert results['profile']['top'] == 2
    told = ('n_images', 'is_converged', 'is_climbing', 'unchecked')
    assert [results[name] for name in told] == [N_IMAGES, True, True, []]
    assert results['versions'] == {'vasp': '0.0.0-stand-in', 'vtst': '0.0'}
    assert results['forces_of_ends'] == pytest.approx([0, 0], abs=1e-6)
    level = labeller_named('vasp').level_of(node.inputs.settings.get_dict(), {})
    assert outputs['path'].level == level == Level.from_dict(results['level'])
    # the residual is what ASE makes of the forces on the path that comes back
    assert 0 < results['residual'] <= BAND['fmax']
    assert residual_of(path) == pytest.approx(results['residual'], abs=2e-4)


def residual_of(path):
    """Return the largest force on an atom of a climbing band of labelled images."""
    atoms = [image.to_atoms(labels=False) for image in path]
    for each, image in zip(atoms, path, strict=True):
        each.calc = SinglePointCalculator(each, energy=image.energy, forces=image.forces)
    forces = NEB(atoms, k=5.0, climb=True, method='improvedtangent').get_forces().reshape(-1, 3)
    return float(np.linalg.norm(forces, axis=1).max())


def test_vasp_is_given_a_folder_of_each_image_and_the_tags_of_vtst(relax, frames, ends):
    outputs, node = relax(band={'climb': False, 'spring': 3.0, 'max_steps': 2}, repair='algo_all')
    files = node.base.repository
    assert {'00', '01', '02', '03', '04', 'INCAR'} <= set(files.list_object_names())
    incar = dict(re.findall(r'^(\w+) = (.*)$', files.get_object_content('INCAR'), flags=re.MULTILINE))
    wanted = {'IMAGES': '3', 'ICHAIN': '0', 'SPRING': '-3', 'IOPT': '1', 'IBRION': '3', 'POTIM': '0', 'NSW': '2'}
    assert {tag: incar[tag] for tag in wanted} == wanted
    assert incar['NELECT'] == '184'  # 12 × 9 of Cs, 11 × 7 of I, less one
    assert (incar['ALGO'], incar['NELM'], outputs['path'].level) == ('All', '300', ends().level)
    assert (incar['LCLIMB'], incar['ISYM'], incar['ISIF']) == ('.FALSE.', '0', '2')
    assert float(incar['EDIFFG']) == -0.02
    assert float(incar['EFIRST']) == pytest.approx(ends()[0].energy, abs=1e-6)
    assert 'POTCAR' not in files.list_object_names()
    assert 'OUTCAR' not in node.outputs.retrieved.base.repository.list_object_names('02')


# ---------------------------------------------------------------------- bands that go on, and those that fail


def test_a_band_that_ran_out_of_steps_goes_on_from_its_path(relax, frames):
    outputs, node = relax(band={'max_steps': 3})
    assert node.exit_status == 500
    assert 'after 3 steps the largest force on the band is' in node.exit_message
    assert outputs['results']['is_converged'] is False
    assert outputs['results']['residual'] > BAND['fmax']
    again, node = relax(outputs['path'], nodes={'ends': None})  # the path has the labels of its ends
    assert node.is_finished_ok, node.exit_message
    assert again['path'][0].energy == outputs['path'][0].energy


def test_an_image_whose_scf_cycle_did_not_converge_is_named(relax):
    outputs, node = relax(band={'max_steps': 4}, **wish('unconverged:4 image:2'))
    assert node.exit_status == 500
    assert 'image 2, step 4: the SCF cycle took all of its 100 steps (NELM).' in node.exit_message
    assert outputs['results']['n_steps'] == 3  # of which all images have labels
    assert outputs['results']['is_converged'] is False
    outputs, node = relax(band={'max_steps': 1}, **wish('unconverged:1 image:3'))
    assert node.exit_status == 500
    assert 'path' not in outputs


def test_an_image_that_vasp_itself_doubts_is_named(relax):
    _, node = relax(band={'max_steps': 2}, **wish('doubt:2 image:2'))
    assert node.exit_status == 520
    assert 'image 2, step 2: VASP warns: "BRMIX: very serious problems".' in node.exit_message


def test_vasp_without_vtst_is_noticed(relax):
    outputs, node = relax(**wish('vanilla'))
    assert node.exit_status == 520
    assert 'built without VTST' in node.exit_message
    assert 'path' not in outputs


def test_a_band_at_other_settings_is_none(relax):
    wrong = {
        'images': '4',
        'lclimb': 'F',
        'spring': '-1.0',
        'iopt': '7',
        'efirst': '0.0',
        'isym': '2',
        'enmax': '400.0',
    }
    words = ' '.join(f'wrong:{tag}={value}' for tag, value in wrong.items())
    outputs, node = relax(band={'max_steps': 1}, **wish(f'{words} shift image:2'))
    assert node.exit_status == 520
    assert 'path' not in outputs
    told = node.exit_message.partition('asked: ')[2].rstrip('.').split('; ')
    assert told == [
        'ENCUT is 400.0 instead of 520',
        'ISYM is 2 instead of 0',
        'IMAGES is 4 instead of 3',
        'IOPT is other instead of LBFGS',
        'SPRING is -1.000000 instead of -5',
        'LCLIMB is F instead of True',
        'EFIRST is 0.000000 instead of -100',
        'image 2: it computed another structure: an atom is 0.17 Å away',
    ]


def test_a_band_of_another_number_of_images_lacks_one(relax):
    _, node = relax(band={'max_steps': 1}, **wish('lose:3'))
    assert node.exit_status == 310
    assert 'There is no 03/OUTCAR.' in node.exit_message


def test_a_vasprun_that_all_images_wrote_at_once_is_believed_up_to_the_first_step(relax):
    outputs, node = relax(band={'max_steps': 1}, **wish('together'))
    assert node.exit_status == 500  # of one step
    assert outputs['results']['versions']['vasp'] == '0.0.0-stand-in'


def test_steps_before_a_crash_are_kept(relax):
    outputs, node = relax(words='oom-kill event', **wish('stop:4'))
    assert node.exit_status == 410
    assert outputs['results']['n_steps'] == 3
    assert 'after 3 steps' in node.exit_message
    assert len(outputs['path']) == N_IMAGES + 2
    assert not node.base.caching.is_valid_cache
    outputs, node = relax(**wish('stop:1'))
    assert node.exit_status == 420
    assert 'path' not in outputs


def test_a_force_that_did_not_fit_is_no_label(relax):
    outputs, node = relax(band={'max_steps': 1}, **wish('stars'))
    assert node.exit_status == 500
    assert 'cannot be read' in node.exit_message
    assert 'path' not in outputs


def test_an_energy_that_no_cell_has_is_not_stored(relax):
    _, node = relax(band={'max_steps': 1}, **wish('huge'))
    assert node.exit_status == 312


def test_wall_time_leaves_the_path(relax, tmp_path):
    """The scheduler of this machine says nothing, so its word is put in before the output is read again."""
    from aiida_perovmlip.labellers.vasp.band_parser import VaspBandParser

    _, done = relax(nodes={}, **wish('stop:3'))
    node = orm.CalcJobNode(computer=done.computer, process_type=done.process_type)
    for entry in done.base.links.get_incoming(link_type=LinkType.INPUT_CALC):
        node.base.links.add_incoming(entry.node, LinkType.INPUT_CALC, entry.link_label)
    node.set_option('resources', {'num_machines': 1})
    node.set_exit_status(120)
    node.store()
    retrieved = orm.FolderData()
    retrieved.base.links.add_incoming(node, LinkType.CREATE, 'retrieved')
    retrieved.store()
    parser = VaspBandParser(node)
    remote = Path(done.outputs.remote_folder.get_remote_path())
    code = parser.parse(retrieved_temporary_folder=str(remote))
    assert code.status == 400
    assert 'after 2 steps' in code.message
    assert len(parser.outputs['path']) == N_IMAGES + 2


# ---------------------------------------------------------------------- what is refused before there is a job


def test_ends_of_another_level_are_refused(relax, ends):
    with pytest.raises(ValueError, match=r'both ends are labelled by vasp PBE 400 eV .* but the images will be by'):
        relax(nodes={'ends': ends(cutoff=400.0)})


def test_ends_without_labels_are_refused(relax):
    with pytest.raises(ValueError, match='there are no labels of both ends, which VASP does not compute'):
        relax(nodes={'ends': None})


def test_other_ends_than_those_of_the_path_are_refused(relax, ends):
    level, both = ends().level, list(ends())
    with pytest.raises(ValueError, match='the first frame of `ends` is not that of the path'):
        relax(nodes={'ends': DatasetData.from_frames(both[::-1], level)})
    with pytest.raises(ValueError, match='`ends` has 1 frames, but a path has two ends'):
        relax(nodes={'ends': DatasetData.from_frames(both[:1], level)})
    moved = replace(both[1], positions=both[1].positions + both[1].cell[1])  # another periodic image is no other end
    outputs, _ = relax(nodes={'ends': DatasetData.from_frames([both[0], moved], level)}, band={'max_steps': 1})
    assert 'path' in outputs


def test_processes_that_cannot_be_shared_out_are_refused(relax):
    with pytest.raises(ValueError, match='the job has 4 MPI processes, but VASP shares them out evenly among 3 images'):
        relax(processes=4)
    assert problem_of_resources({'tot_num_mpiprocs': 6}, 3) is None
    assert problem_of_resources({'parallel_env': 'mpi'}, 3) is None


def test_structures_of_several_charges_are_refused(relax, frames):
    mixed = [replace(frames[0], charge=0), *frames[1:]]
    with pytest.raises(ValueError, match='differ in charge or multiplicity'):
        relax(DatasetData.from_frames(mixed))


@pytest.mark.parametrize(
    ('settings', 'band', 'told'),
    [
        ({}, {}, '`relax_ends` is on'),
        ({}, {'relax_ends': False, 'fmax_before_climb': 0.1}, 'climbs from the first step on'),
        ({}, {'relax_ends': False, 'spring': 0.0}, '`spring` is 0'),
        ({}, {'relax_ends': False, 'fmaks': 0.1}, 'fmaks'),
        ({'run': 'md'}, BAND, '`run` is'),
        ({'incar': {'ibrion': 1}}, BAND, "`incar` has 'ibrion'"),
        ({'incar': {'isym': 2}}, BAND, 'turns the symmetry on'),
        ({'functional': 'B3LYP'}, BAND, 'B3LYP'),
    ],
)
def test_what_vasp_cannot_do_is_refused_in_a_sentence(settings, band, told):
    problem = labeller_named('vasp').problem_of_band(settings, band)
    assert problem.startswith('vasp: ')
    assert told in problem


@pytest.mark.parametrize('band', [BAND, {'relax_ends': False, 'climb': False, 'fmax_before_climb': 0.1}])
def test_what_vasp_can_do_is_not_refused(band):
    assert labeller_named('vasp').problem_of_band(SETTINGS, band) is None


# ---------------------------------------------------------------------- records of VASP with VTST


@pytest.fixture
def ammonia(records):
    """Return the record of a band of ammonia, and its path."""
    folder = records / 'neb'
    path = [Frame.from_atoms(read(folder / f'{index:02d}' / 'POSCAR', format='vasp')) for index in range(5)]
    for index in range(1, 4):  # the run that is recorded did not start from all of these files
        first = next(Outcar(folder / f'{index:02d}' / 'OUTCAR').steps())
        path[index] = replace(path[index], positions=first.fractions @ first.cell)
    return folder, path


def test_forces_of_a_real_image_are_those_of_the_surface_and_the_residual_is_that_of_the_band(ammonia):
    folder, _ = ammonia
    text = (folder / '01' / 'OUTCAR').read_text()
    tangents = re.findall(r'NEB: Tangent\n -+\n(.*?)\n\n', text, flags=re.DOTALL)
    real = re.findall(r'projections on to tangent \(spring, REAL\)\s+(\S+)\s+(\S+)', text)
    springs = re.findall(r'forces: par spring, perp REAL, dneb\s+(\S+)', text)
    outcar = Outcar(folder / '01' / 'OUTCAR')
    steps = list(outcar.steps())
    assert len(steps) == len(tangents) == 23
    for step, rows, (_, projection), spring in zip(steps, tangents, real, springs, strict=True):
        tangent = np.array([[float(part) for part in row.split()] for row in rows.splitlines()])
        along = float((step.forces * tangent).sum())
        assert along == pytest.approx(float(projection), abs=1e-4)
        band = np.linalg.norm(step.forces - (along - float(spring)) * tangent, axis=1).max()
        # the sign of the spring is not told, so the larger of both
        other = np.linalg.norm(step.forces - (along + float(spring)) * tangent, axis=1).max()
        assert min(abs(band - step.residual), abs(other - step.residual)) < 1e-4
    assert outcar.is_finished
    assert (outcar.told['vtst'], outcar.told['iopt'], outcar.told['spring']) == ('3.2', 'LBFGS', '-5.000000')
    assert (steps[-1].energy, steps[-1].residual, steps[-1].n_scf) == (-19.49164066, 0.010712, 11)


def test_aiida_vasp_reads_the_same_of_a_real_image_and_of_one_of_the_stand_in(relax, ammonia):
    from aiida_vasp.parsers.content_parsers.outcar import VtstNebOutcarParser

    _, node = relax(band={'max_steps': 2})
    remote = Path(node.outputs.remote_folder.get_remote_path())
    for path in (ammonia[0] / '02' / 'OUTCAR', remote / '02' / 'OUTCAR'):
        *_, ours = Outcar(path).steps()
        with path.open() as handle:
            theirs = VtstNebOutcarParser(handler=handle)
        assert theirs.neb_data['force_max_atom'] == ours.residual
        assert theirs.total_energies['energy_free'] == ours.energy
        assert np.array_equal(theirs.forces, ours.forces)


AS_RECORDED = {
    'cutoff': 400.0,
    'precision': 'Normal',
    'aspherical': False,
    'incar': {'ismear': 1, 'sigma': 0.2, 'gga': None},
}


def copies(make_code, tmp_path, folder, label, *lines):
    """Return the code of a script that hands out a record."""
    script = tmp_path / label
    each = f'for i in 01 02 03; do cp {folder}/$i/OUTCAR {folder}/$i/stdout $i/ 2>/dev/null; done'
    script.write_text('\n'.join(['#!/bin/sh', each, f'cp {folder}/vasprun.xml .', f'cat {folder}/stdout', *lines, '']))
    script.chmod(0o755)
    return make_code(label, script)


def relax_record(relax, ammonia, code, energies):
    """Relax the path of the record with ends of these energies."""
    _, frames = ammonia
    level = labeller_named('vasp').level_of({**SETTINGS, **AS_RECORDED}, {})
    still = np.zeros((4, 3))
    both = [replace(frames[end], energy=energies[end], forces=still) for end in (0, -1)]
    nodes = {'ends': DatasetData.from_frames(both, level)}
    band = {'fmax': 0.03, 'max_steps': 50}
    return relax(DatasetData.from_frames(frames), band=band, code=code, nodes=nodes, **AS_RECORDED)


def test_what_a_real_band_did_otherwise_than_asked_is_told(relax, ammonia, make_code, tmp_path):
    """The record was made with symmetry and without the energies of the ends: that, and nothing else, differs."""
    code = copies(make_code, tmp_path, ammonia[0], 'neb-record')
    _, node = relax_record(relax, ammonia, code, {0: -19.5, -1: -19.5})
    assert node.exit_status == 520
    told = node.exit_message.partition('asked: ')[2].rstrip('.').split('; ')
    assert told == [
        'ISYM is 2 instead of 0',
        'EFIRST is 0.000000 instead of -19.5',
        'ELAST is 0.000000 instead of -19.5',
    ]


def test_the_path_of_a_real_band_is_read(relax, ammonia, make_code, tmp_path):
    """The record again, by ends whose energies are those that VTST was given, which is zero, and with ISYM mended."""
    mend = r"""sed -i 's/name="ISYM">     2</name="ISYM">     0</' vasprun.xml"""
    code = copies(make_code, tmp_path, ammonia[0], 'neb-record-mended', mend)
    outputs, node = relax_record(relax, ammonia, code, {0: 0.0, -1: 0.0})
    assert node.is_finished_ok, node.exit_message
    path, results = list(outputs['path']), outputs['results']
    assert [image.energy for image in path[1:-1]] == [-19.49164066, -19.27591934, -19.49164203]
    assert (results['n_steps'], results['residual'], results['is_converged']) == (23, 0.010712, True)
    assert results['versions'] == {'vasp': '5.4.4.18Apr17-6-g9f103f2a35', 'vtst': '3.2'}
    for number, image in enumerate(path[1:-1], 1):
        final = read(ammonia[0] / f'{number:02d}' / 'CONTCAR', format='vasp')
        assert np.abs(image.positions - final.positions).max() < 1e-5


def test_the_stand_in_writes_what_is_read_of_vasp_as_vasp_does(relax, ammonia):
    """Lines of the stand-in that are read, numbers aside, are lines of the record."""
    _, node = relax(band={'max_steps': 2})
    remote = Path(node.outputs.remote_folder.get_remote_path())
    ours, real = (shapes((folder / '01' / 'OUTCAR').read_text()) for folder in (remote, ammonia[0]))
    assert ours
    assert ours <= real


READ = re.compile(
    r'VTST: version|OPT: Using|OPT: LBFGS, IMAGES|Read ICHAIN|NEB:  +[A-Z]|Iteration|TOTEN|TOTAL-FORCE|FORCES:|General'
)


def shapes(text):
    """Return the lines that are read, without their numbers, their spaces, and what is of a version."""
    lines = (line.partition('version')[0] for line in text.splitlines() if READ.search(line))
    return {re.sub(r'\s+', ' ', re.sub(r'[-+]?\d[\d.]*|\b[TF]$', '#', line)).strip() for line in lines}
