"""Barriers of pair potentials against those of the effective-medium theory that they were trained on."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.tools.archive import create_archive
from ase.build import bulk
from ase.calculators.emt import EMT

from aiida_perovmlip.calculations.neb import LabelBandCalculation
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.labellers.base import labeller_named
from aiida_perovmlip.query import barriers
from aiida_perovmlip.query.paths import barriers_records
from aiida_perovmlip.report.barriers import pictures_of, write_parity, write_profiles
from aiida_perovmlip.structures.hops import vacancy_hops
from aiida_perovmlip.structures.paths import linear
from aiida_perovmlip.workflows.label import LabelWorkChain
from aiida_perovmlip.workflows.neb_validation import NebValidationWorkChain


def dataset_of(images):
    return DatasetData.from_frames([Frame.from_atoms(image) for image in images])


@pytest.fixture
def labels(python_code):
    """Return a builder of labels by a labeller without frames."""

    def make(labeller='emt', **settings):
        builder = LabelWorkChain.get_builder()
        builder.labeller, builder.settings = labeller, settings
        builder.codes = {'here': python_code}
        return builder

    return make


@pytest.fixture
def validate(python_code, copper_potential):
    def run(potentials=None, **inputs):
        potentials = copper_potential() if potentials is None else potentials
        builder = NebValidationWorkChain.get_builder_from_protocol(potentials, python_code, **inputs)
        return run_get_node(builder)

    return run


@pytest.fixture
def two(validate, copper_potential, copper_hop, labels):
    """Return outputs and node of a validation of two potentials, which is run once for all tests."""
    if not KEPT:
        potentials = {'one': copper_potential(0), 'other': copper_potential(1)}
        outputs, node = validate(potentials, path=dataset_of(copper_hop), reference=labels())
        assert node.is_finished_ok, node.exit_message
        node.label = 'a hop'
        KEPT['two'] = outputs, node
    return KEPT['two']


KEPT = {}


def test_barriers_of_two_potentials_are_compared_with_the_reference_on_both_paths(two):
    outputs, _ = two
    assert set(outputs['paths']) == set(outputs['labels']) == {'one', 'other'}
    comparison = outputs['comparison'].get_dict()
    assert (comparison['formula'], comparison['charge']) == ('Cu31', 1)
    assert comparison['failed'] == {}
    assert comparison['distances']['one']['other'] < 0.1
    for name in ('one', 'other'):
        path, entry = outputs['paths'][name], comparison['paths'][name]
        # the reference, computed here, on the very images of the path
        energies, forces = [], []
        for frame in path:
            atoms = frame.to_atoms(labels=False)
            atoms.calc = EMT()
            energies.append(atoms.get_potential_energy())
            forces.append(atoms.get_forces())
        assert entry['reference']['forward'] == pytest.approx(max(energies) - energies[0], abs=1e-9)
        assert entry['reference']['reverse'] == pytest.approx(max(energies) - energies[-1], abs=1e-9)
        own = entry['potentials'][name]
        heights = path.frames.column('energy') - path.frames.column('energy')[0]
        assert own['profile']['forward'] == pytest.approx(heights.max())
        assert own['difference']['forward'] == pytest.approx(heights.max() - max(energies) + energies[0])
        for image, frame in enumerate(path):
            told = own['images'][image]
            assert told['energy'] == pytest.approx(heights[image] - energies[image] + energies[0])
            assert told['forces_rmse'] == pytest.approx(np.sqrt(np.mean((frame.forces - forces[image]) ** 2)))
        assert entry['reference_level']['functional'] == 'EMT'
        assert set(entry['potentials']) == {'one', 'other'}
        found = [each['profile']['forward'] for each in entry['potentials'].values()]
        assert entry['committee']['forward']['mean'] == pytest.approx(np.mean(found))
        assert entry['committee']['forward']['spread'] == pytest.approx(np.std(found, ddof=1))
    profiles = outputs['profiles']
    assert profiles.get_array('one__labels__energies').shape == (7,)
    assert profiles.get_array('one__other__curve').shape[0] == 2


def test_a_recipe_is_carried_out_in_the_chain_and_told(validate, copper):
    recipe = {'kind': 'vacancy', 'ion': 'Cu', 'max_distance': 3.0, 'n_images': 3, 'charge': 1}
    outputs, node = validate(recipe=recipe, structures=DatasetData.from_ase([copper]))
    assert node.is_finished_ok, node.exit_message
    comparison = outputs['comparison'].get_dict()
    assert comparison['recipe'] == recipe
    entry = comparison['paths']['reference']  # the architecture that the tests have
    assert (entry['n_images'], entry['reference'], entry['committee']) == (3, None, None)
    labels = {each.link_label for each in node.base.links.get_outgoing().all()}
    assert 'first_path' in labels
    (start, *_) = pictures_of(node)
    assert start.track[0, 0] == pytest.approx(start.positions[start.moves][0])


def test_energies_along_a_path_are_compared_without_relaxing_it(validate, copper_potential, copper_hop, labels):
    potentials = {'one': copper_potential(0), 'other': copper_potential(1)}
    first = dataset_of(copper_hop)
    outputs, node = validate(potentials, path=first, reference=labels(), relax=False)
    assert node.is_finished_ok, node.exit_message
    entry = outputs['comparison']['paths']['first']
    assert entry['relaxed_by'] is None
    assert set(entry['potentials']) == {'one', 'other'}
    assert 'paths' not in outputs
    assert np.allclose(outputs['labels']['first'].frames.column('positions'), first.frames.column('positions'))


def test_images_that_the_reference_cannot_label_are_named_and_leave_the_rest(validate, copper_hop, labels, tmp_path):
    hop = [image.copy() for image in copper_hop]
    path = DatasetData.from_frames(
        [Frame.from_atoms(image, group='raise' if number == 2 else 'well') for number, image in enumerate(hop)]
    )
    outputs, node = validate(path=path, reference=labels('unruly'), relax=False)
    assert node.exit_status == 581
    assert 'The images 2 of the path first have no label' in node.exit_message
    entry = outputs['comparison']['paths']['first']
    assert entry['unlabelled'] == [2]
    assert entry['reference'] is None
    (potential,) = entry['potentials'].values()
    assert 'difference' not in potential
    assert [image is None for image in potential['images']] == [number == 2 for number in range(7)]
    top = potential['profile']['top']
    start, middle, end = pictures_of(node)  # of the path itself, as there are fewer labels than images
    assert middle.title == f'top (image {top})'
    for picture, image in ((start, 0), (middle, top), (end, 6)):
        shifts = (picture.positions - path.frames[image].positions) @ np.linalg.inv(picture.cell)
        assert shifts == pytest.approx(np.round(shifts), abs=1e-9)  # atoms are drawn in the cell
        assert np.count_nonzero(picture.moves) == 1
    with pytest.raises(ValueError, match='of 1 paths the reference knows no barrier'):
        write_parity(barriers_records([node]), tmp_path / 'parity.svg')


def test_a_potential_that_fails_does_not_stop_the_others(
    validate, copper_potential, python_code, copper_hop, make_code
):
    broken = make_code('no-python', '/bin/false')
    builder = NebValidationWorkChain.get_builder_from_protocol(
        {'good': copper_potential(0), 'bad': copper_potential(1)},
        {'good': python_code, 'bad': broken},
        path=dataset_of(copper_hop[::2]),  # another path than elsewhere, whose predictions would be known
        max_iterations=1,
    )
    outputs, node = run_get_node(builder)
    assert node.exit_status == 581
    assert 'band_bad' in node.exit_message
    comparison = outputs['comparison'].get_dict()
    assert set(comparison['paths']) == {'good'}
    assert set(comparison['failed']) == {'band_bad', 'predict_good_by_bad'}


def test_a_step_that_runs_again_starts_nothing_twice(validate, copper_hop, labels, monkeypatch):
    """As where the daemon is killed behind a step: it runs again with the context of before."""

    def twice(self):
        before = deepcopy((self.ctx.tasks, self.ctx.failed))
        step(self)
        self.ctx.tasks, self.ctx.failed = before
        step(self)

    step = NebValidationWorkChain.go_on
    monkeypatch.setattr(NebValidationWorkChain, 'go_on', twice)
    outputs, node = validate(path=dataset_of(copper_hop), reference=labels(), reference_band={'fmax': 0.02})
    assert node.is_finished_ok, node.exit_message
    called = sorted(each.process_label for each in node.called if isinstance(each, orm.WorkChainNode))
    assert called == ['BandWorkChain', 'LabelWorkChain', 'LabelWorkChain']
    assert set(outputs['comparison']['paths']) == {'reference', 'labels'}


def test_each_path_that_is_none_has_its_own_exit_code(validate, copper_hop):
    overlapping = [image.copy() for image in copper_hop]
    overlapping[2].positions[0] = overlapping[2].positions[1] + 0.1
    _, node = validate(path=dataset_of(overlapping))
    assert (node.exit_status, 'image 2 of 0 to 6: Cu0 and Cu1 are' in node.exit_message) == (232, True)
    shorter = [*(image.copy() for image in copper_hop[:-1]), copper_hop[-1][:-1]]
    _, node = validate(path=dataset_of(shorter))
    assert (node.exit_status, 'image 6 of 0 to 6 has 30 atoms and not 31' in node.exit_message) == (231, True)
    _, node = validate(path=dataset_of([copper_hop[0]] * 4))
    assert (node.exit_status, 'both ends are the same structure' in node.exit_message) == (230, True)
    there_and_back = dataset_of([*copper_hop[:2], copper_hop[0]])
    _, node = validate(path=there_and_back)
    assert (node.exit_status, 'both ends are the same structure' in node.exit_message) == (230, True)
    outputs, node = validate(path=there_and_back, relax=False)  # a scan may come back
    assert node.is_finished_ok, node.exit_message
    assert outputs['comparison']['paths']['first']['potentials']['reference']['profile']['reaction'] == 0.0
    near = copper_hop[0].copy()
    near.positions[0] += 0.2
    _, node = validate(path=dataset_of(linear(copper_hop[0], near, 3)))
    assert (node.exit_status, 'both ends relax into one structure' in node.exit_message) == (570, True)


def test_a_molecule_that_is_torn_apart_has_its_own_exit_code(validate, copper, monkeypatch):
    from aiida_perovmlip.structures.paths import BondBrokenError
    from aiida_perovmlip.workflows import neb_validation

    def torn(images, **limits):
        raise BondBrokenError('image 1 of 0 to 4: the bond C0–H1 is broken.')

    monkeypatch.setattr(neb_validation, 'check_path', torn)
    _, node = validate(path=DatasetData.from_ase([copper, copper, copper]))
    assert (node.exit_status, 'a molecule is torn apart' in node.exit_message.lower()) == (233, True)


def test_recipes_that_make_no_path_end_the_chain(validate, copper, tmp_path):
    recipe = {'kind': 'vacancy', 'ion': 'Cu', 'max_distance': 3.0, 'which': 7}
    _, node = validate(recipe=recipe, structures=DatasetData.from_ase([copper]))
    assert node.exit_status == 230
    assert 'there is no hop 7 of Cu' in node.exit_message
    assert barriers([node]).empty
    with pytest.raises(ValueError, match=r'there is nothing to draw, .* exit code 230: .*no hop 7 of Cu'):
        write_profiles(node, tmp_path / 'nothing.svg')


def test_what_cannot_be_started_is_refused(validate, copper_potential, python_code, copper_hop, copper, labels):
    path, host = dataset_of(copper_hop), DatasetData.from_ase([copper])
    with pytest.raises(ValueError, match='the first path is either `path`, or made of'):
        validate(path=path, recipe={'kind': 'vacancy'}, structures=host)
    with pytest.raises(ValueError, match='the first path is either `path`, or made of'):
        validate(recipe={'kind': 'vacancy'})
    with pytest.raises(ValueError, match="the kind of the path is 'hop'"):
        validate(recipe={'kind': 'hop'}, structures=host)
    with pytest.raises(ValueError, match='`heads` names nobody'):
        validate(path=path, heads={'nobody': 'default'})
    with pytest.raises(ValueError, match='a potential may not be called `first`'):
        validate({'first': copper_potential()}, path=path)
    with pytest.raises(ValueError, match='a potential is called `two__parts`, but its name has to be of letters'):
        validate({'two__parts': copper_potential()}, path=path)
    silver = host.frames[0].to_atoms()
    silver.symbols[:] = 'Ag'
    with pytest.raises(ValueError, match='but the potential `reference` knows only Cu'):
        validate({'reference': copper_potential()}, path=DatasetData.from_ase([silver] * 3))
    with pytest.raises(ValueError, match='there is no code for `reference`'):
        NebValidationWorkChain.get_builder_from_protocol(copper_potential(), {'mace': python_code}, path=path)
    with pytest.raises(ValueError, match='asap'):
        validate(path=path, reference=labels(asap='no'))
    with pytest.raises(ValueError, match='the reference moves the atoms'):
        validate(path=path, reference=labels('cp2k', run='relax'))


def test_the_table_of_barriers_is_asked_of_the_database_alone(two):
    outputs, node = two
    table = barriers([node])
    assert list(zip(table['path'], table['potential'], table['is_own'], strict=True)) == [
        ('one', 'one', True),
        ('one', 'other', False),
        ('other', 'one', False),
        ('other', 'other', True),
    ]
    entry = outputs['comparison']['paths']['one']
    row = table.iloc[0]
    assert (row['name'], row['formula'], row['charge'], row['architecture']) == ('a hop', 'Cu31', 1, 'reference')
    for name in ('forward', 'reverse', 'span', 'reaction'):
        own, reference, error = (row[f'{name}{what} [eV]'] for what in ('', '_reference', '_error'))
        assert own == entry['potentials']['one']['profile'][name]
        assert reference == entry['reference'][name]
        assert error == pytest.approx(own - reference)
    errors = table.attrs['errors']['one']['forward']  # of its own path alone
    assert (errors['n'], errors['mean']) == (1, pytest.approx(row['forward_error [eV]']))
    assert barriers([]).empty
    assert list(barriers([]).columns) == list(table.columns)


OF_ARCHIVE = """
from aiida_perovmlip.query import barriers
from aiida_perovmlip.query.paths import barriers_records
answer = [barriers_records(), barriers().attrs['errors']]
"""


def test_the_barriers_of_an_archive_are_those_of_its_profile(two, in_archive, tmp_path):
    _, node = two
    create_archive([node], filename=tmp_path / 'barriers.aiida')
    records, errors = in_archive(tmp_path / 'barriers.aiida', OF_ARCHIVE)
    expected = barriers_records([node])
    for record in (*records, *expected):
        del record['validation']  # the number of a node, which is another one there
    assert records == expected
    assert errors == barriers([node]).attrs['errors']


@pytest.mark.parametrize('kind', ['svg', 'pdf', 'png'])
def test_the_picture_shows_all_methods_and_names_its_nodes(two, tmp_path, kind):
    outputs, node = two
    path = write_profiles(node, tmp_path / f'profiles.{kind}')
    content = path.read_bytes()
    assert outputs['comparison'].uuid.encode() in content or kind == 'pdf'  # in a PDF it is compressed
    assert write_profiles(node, tmp_path / f'again.{kind}').read_bytes() == content
    if kind == 'svg':
        text = content.decode()
        wanted = ('> one, 0.', '> other, 0.', 'EMT (emt), on the path of one', 'top (image 3)', 'first end (eV)')
        assert [each for each in wanted if each not in text] == []


def test_a_picture_of_another_kind_is_refused(two, tmp_path):
    with pytest.raises(ValueError, match='a figure is written as svg, pdf, png'):
        write_profiles(two[1], tmp_path / 'profiles.bmp')


def test_the_parity_of_barriers_is_drawn_with_the_errors_of_each_potential(two, tmp_path):
    path = write_parity(barriers_records([two[1]]), tmp_path / 'parity.svg')
    text = path.read_text()
    assert 'one: MAE' in text
    assert 'n = 2' in text  # forward and reverse, on its own path


def test_the_reference_relaxes_a_path_of_its_own(validate, copper_hop, labels, tmp_path):
    outputs, node = validate(path=dataset_of(copper_hop), reference=labels(), reference_band={'fmax': 0.02})
    assert node.is_finished_ok, node.exit_message
    comparison = outputs['comparison'].get_dict()
    own, theirs = comparison['paths']['labels'], comparison['paths']['reference']
    assert own['relaxed_by'] == 'labels'
    path = outputs['paths']['labels']
    atoms = path.frames[3].to_atoms(labels=False)
    atoms.calc = EMT()
    assert path.frames[3].energy == pytest.approx(atoms.get_potential_energy())
    assert path.level.functional == 'EMT'
    # at the saddle of the reference the forces vanish; on the path of the potential they do not
    forces = [
        np.linalg.norm(frame.forces, axis=1).max() for frame in (path.frames[3], outputs['labels']['reference'][3])
    ]
    assert forces[0] < 0.02 < forces[1]
    assert own['reference']['forward'] == pytest.approx(own['reference']['reverse'], abs=2e-3)
    # energies at a saddle differ in second order only
    assert own['reference']['forward'] == pytest.approx(theirs['reference']['forward'], abs=0.01)
    assert own['potentials']['reference']['difference']['forces_rmse'] > 1e-3
    assert comparison['distances']['reference']['labels'] > 0
    text = write_profiles(node, tmp_path / 'own.svg').read_text()
    assert 'EMT (emt), its own path' in text


def test_a_band_of_the_reference_that_cannot_be_is_refused(validate, copper_hop, labels):
    path = dataset_of(copper_hop)
    with pytest.raises(ValueError, match='there is a `reference_band` but no `reference`'):
        validate(path=path, reference_band={})
    with pytest.raises(ValueError, match=r'emt: .*fmaks'):
        validate(path=path, reference=labels(), reference_band={'fmaks': 0.1})
    assert 'relax_ends' in labeller_named('vasp').problem_of_band({}, {})
    assert 'fmax_ends' in labeller_named('cp2k').problem_of_band({}, {'fmax_ends': 0.1})
    assert labeller_named('cp2k').problem_of_band({}, {'fmax': 0.1, 'climb': True}) is None


def test_a_band_of_a_labeller_that_cannot_do_the_atoms_says_so(python_code):
    crystal = bulk('NaCl', 'rocksalt', a=5.64) * (2, 2, 2)
    (hop, *_) = vacancy_hops(crystal, 'Cl', 4.5)
    builder = LabelBandCalculation.get_builder()
    builder.code, builder.labeller = python_code, 'emt'
    builder.path = dataset_of(linear(*hop.ends(crystal), 1))
    _, node = run_get_node(builder)
    assert node.exit_status == LabelBandCalculation.exit_codes.ERROR_FAILED.status
    assert 'emt gives no label for an image' in node.exit_message


@pytest.mark.browser
def test_the_page_of_a_validation_shows_profiles_barriers_and_images(two, check_page):
    _, node = two
    page = check_page(node, 'energy-profiles', 'parity', 'lineage')
    assert 'MAE' in page
    assert 'nudged elastic bands with a climbing image' in page
    assert 'Henkelman et al. (2000)' in page


@pytest.mark.browser
def test_the_page_of_several_validations_compares_their_barriers(
    two, validate, copper_potential, copper_hop, check_page
):
    _, node = two
    _, other = validate({'one': copper_potential(0)}, path=dataset_of(copper_hop))
    page = check_page([node, other], 'parity')
    assert 'Barriers of 2 validations' in page
