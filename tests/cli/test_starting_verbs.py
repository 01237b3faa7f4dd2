"""The verbs that start chains: `train`, `label`, `neb`."""

from __future__ import annotations

import json

import pytest
from aiida import orm

from aiida_perovmlip.cli.start import show_submitted
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.starting import check, inputs_of, label_builder, named_potentials, neb_builder, train_builder


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(6, seed=91).store()


@pytest.fixture
def train(dataset, python_code):
    """Return the words of a training, in which the code is not that of the architecture."""
    return ('train', dataset.pk, '--architecture', 'reference', '--code', python_code.full_label)


def nodes() -> int:
    return orm.QueryBuilder().append(orm.Node).count()


def test_a_training_runs_here_and_says_what_it_left(ask, train, dataset):
    told = ask(*train, '--settings', 'cutoff=4.5', '--seed', 3, '--label', 'short of sight')
    assert (told['process'], told['exit_status']) == ('TrainWorkChain', 0)
    potential = orm.load_node(told['outputs']['potential']['pk'])
    assert (potential.cutoff, potential.label) == (4.5, 'short of sight')
    chain = orm.load_node(told['pk'])
    assert (chain.inputs.training.pk, chain.inputs.seed.value) == (dataset.pk, 3)


def test_a_dry_run_says_the_settings_of_the_protocol_and_stores_nothing(ask, call, train, python_code):
    before = nodes()
    told = ask(*train, '--dry-run', '--settings', 'cutoff=4.5', '--option', 'resources={"num_machines": 1}')
    assert told['process'] == 'TrainWorkChain'
    assert told['inputs']['settings'] == {'cutoff': 4.5}
    assert told['inputs']['options'] == {'resources': {'num_machines': 1}}
    assert told['inputs']['code'] == python_code.full_label
    shown = call(*train, '--dry-run').output.splitlines()
    assert shown[0] == 'TrainWorkChain would run with'
    assert nodes() == before


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--protocol', 'slow'], 'reference has no protocol `slow`; there are fast.'),
        (['--settings', 'cutof=4'], "reference: unknown setting 'cutof'; known are"),
        (['--settings', 'cutoff=high'], "`cutoff` is 'high' but has to be of type float"),
        (['--settings', 'cutoff'], '`cutoff` is not `key=value`'),
        (['--strategy', 'naive'], 'the strategy `naive` needs a `parent`.'),
        (['--option', 'colour=red'], "jobs have no option 'colour'."),
        (['--parent', '99999999'], 'there is no potential `99999999`; give its PK'),
    ],
)
def test_what_no_training_could_do_is_the_sentence_of_the_chain(refused, train, words, told):
    before = nodes()
    for how in (['--dry-run'], [], ['--submit']):
        assert told in refused(*train, *words, *how)
    assert nodes() == before


@pytest.mark.usefixtures('without_codes')
def test_an_architecture_or_code_that_is_not_there_is_a_sentence(refused, dataset):
    words = ('train', dataset.pk, '--architecture')
    assert 'there is no architecture `magic`; installed are' in refused(*words, 'magic')
    assert 'there is no code `springs`. Make one: `aiida-perovmlip setup --with springs`' in refused(*words, 'springs')


def test_a_training_that_fails_is_the_message_of_the_chain(refused, dataset, python_code):
    words = ('train', dataset.pk, '--architecture', 'unruly', '--code', python_code.full_label)
    told = refused(*words, '--settings', 'way=raise', '--settings', 'steps=1')
    assert 'ended with exit code 402' in told


def test_a_training_that_nobody_could_start_is_not_submitted(refused, train):
    before = nodes()
    assert '`verdi daemon start`' in refused(*train, '--submit')
    assert nodes() == before


def test_a_submitted_process_is_a_pk_to_watch(capsys):
    process = {'pk': 17, 'uuid': 'u', 'process': 'TrainWorkChain', 'daemon': False}
    show_submitted(process, as_json=False)
    out, error = capsys.readouterr()
    assert out == 'TrainWorkChain (PK 17) is submitted; see it work: `aiida-perovmlip watch 17`\n'
    assert error == 'No daemon runs that could start it: `verdi daemon start`.\n'
    show_submitted(process, as_json=True)
    assert json.loads(capsys.readouterr().out) == process


def test_frames_are_labelled_here(ask, python_code, make_frames, tmp_path):
    from ase.build import bulk

    frames = DatasetData.from_ase([bulk('Cu', cubic=True)]).store()
    words = ('label', frames.pk, '--labeller', 'emt', '--code', python_code.full_label)
    forecast = ask(*words, '--protocol', 'fast', '--dry-run') if 'fast' in protocols('emt') else None
    told = ask(*words, '--protocol', protocols('emt')[0])
    assert told['exit_status'] == 0
    assert orm.load_node(told['outputs']['dataset']['pk']).labels == ['energy', 'forces', 'stress']
    assert forecast is None or forecast['forecast']['n_todo'] == 1


def protocols(labeller: str) -> list[str]:
    from aiida_perovmlip.labellers.base import labeller_named

    return list(labeller_named(labeller).protocols())


def test_a_dry_run_of_a_labelling_says_how_many_jobs(ask, call, python_code, dataset):
    words = ('label', dataset.pk, '--labeller', 'emt', '--code', python_code.full_label, '--protocol')
    words = (*words, protocols('emt')[0], '--batch-size', 4, '--dry-run')
    told = ask(*words)
    assert told['inputs']['batch_size'] == 4
    assert told['forecast']['n_frames'] == 6
    assert f'6 frames at {told["forecast"]["level"]}:' in call(*words).output


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--labeller', 'magic'], 'there is no labeller `magic`'),
        (['--labeller', 'emt', '--protocol', 'slow'], 'emt has no protocol `slow`'),
        (['--labeller', 'emt', '--max-concurrent', '0'], 'at least 1'),
    ],
)
def test_what_no_labelling_could_do_is_a_sentence(refused, python_code, dataset, words, told):
    before = nodes()
    protocol = [] if '--protocol' in words else ['--protocol', protocols('emt')[0]]
    assert told in refused('label', dataset.pk, *words, *protocol, '--code', python_code.full_label, '--dry-run')
    assert nodes() == before


def test_a_potential_labels(copper_potential, dataset, python_code):
    potential = copper_potential()
    code = python_code.full_label
    builder = label_builder(
        str(dataset.pk), 'potential', protocol=protocols('potential')[0], settings={}, codes=[code],
        potential=potential.uuid,
    )  # fmt: skip
    assert builder.job['potential'].pk == potential.pk


@pytest.fixture
def path(copper_hop):
    return DatasetData.from_ase(copper_hop).store()


def test_barriers_of_potentials_are_compared_on_a_path(ask, call, copper_potential, path, python_code):
    potential = copper_potential()
    words = ('neb', f'tuned={potential.pk}', '--path', path.pk, '--code', python_code.full_label, '--no-relax')
    told = ask(*words, '--dry-run')
    assert told['inputs']['potentials.tuned'] == f'PotentialData (PK {potential.pk})'
    assert told['inputs']['relax'] is False
    ended = ask(*words)
    assert ended['exit_status'] == 0
    comparison = orm.load_node(ended['outputs']['comparison']['pk'])
    (entry,) = comparison['paths'].values()
    assert 'tuned' in entry['potentials']


def test_a_reference_labels_the_path(ask, copper_potential, path, python_code):
    potential, code = copper_potential(), python_code.full_label
    words = ('neb', potential.pk, '--path', path.pk, '--code', code, '--reference', 'emt', '--reference-code', code)
    told = ask(*words, '--protocol', protocols('emt')[0], '--settings', 'max_steps=3', '--dry-run')
    assert told['inputs']['reference.labeller'] == 'emt'
    assert told['inputs']['settings'] == {'max_steps': 3}
    assert 'potentials.reference' in told['inputs']  # by the name of its architecture


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        ([], 'a band needs a first path: either --path, or --recipe with --structures.'),
        (['--path', '{path}', '--code', 'a', '--code', 'b'], 'say which code is for what'),
        (['--path', '{path}', '--code', 'mace=a'], 'there is a code for mace, but no such potential or architecture.'),
        (['--recipe', 'nowhere.json'], '`nowhere.json` is neither `key=value` nor a JSON file.'),
        (['--path', '{path}', '--settings', 'speed=9', '--code', '{code}'], "unknown setting 'speed'"),
    ],
)
def test_what_is_no_band_is_a_sentence(refused, copper_potential, path, python_code, words, told):
    potential = copper_potential()
    filled = [word.format(path=path.pk, code=python_code.full_label) for word in words]
    if '--recipe' in filled:
        filled += ['--code', python_code.full_label]
    assert told in refused('neb', potential.pk, *filled, '--dry-run')


def test_potentials_of_one_architecture_have_names_of_their_own(copper_potential):
    one, other = copper_potential(), copper_potential(1)
    assert set(named_potentials([str(one.pk), str(other.pk)])) == {f'reference_{one.pk}', f'reference_{other.pk}'}
    assert set(named_potentials([f'old={one.pk}', str(other.pk)])) == {'old', f'reference_{other.pk}'}
    for words, told in (
        (['a-b={}'], 'is no name for a potential'),
        (['a={}', 'a={}'], 'two potentials are called `a`'),
    ):
        with pytest.raises(ValueError, match=told):
            named_potentials([word.format(one.pk) for word in words])


def test_a_recipe_is_read_from_a_file(copper_potential, python_code, make_dataset, tmp_path):
    (tmp_path / 'recipe.json').write_text(json.dumps({'kind': 'given'}))
    builder = neb_builder(
        [str(copper_potential().pk)],
        recipe=str(tmp_path / 'recipe.json'),
        structures=str(make_dataset(2, seed=92).store().pk),
        settings={},
        codes=[python_code.full_label],
    )
    assert inputs_of(builder)['recipe'] == {'kind': 'given'}


def test_a_good_builder_passes_the_check(dataset, python_code):
    check(train_builder(str(dataset.pk), 'reference', protocol='fast', settings={}, code=python_code.full_label))


def test_molecular_dynamics_runs_here(ask, copper_potential, copper, python_code):
    frame = DatasetData.from_ase([copper]).store()
    words = ('md', copper_potential().pk, '--start', frame.pk, '--code', python_code.full_label, '--seed', 7)
    words = (
        *words,
        '--settings',
        'ensemble=nve',
        '--settings',
        'steps=10',
        '--settings',
        'frames_every=5',
        '--settings',
        'thermo_every=5',
    )
    told = ask(*words, '--dry-run')
    assert (told['inputs']['engine'], told['inputs']['settings']['steps']) == ('ase', 10)
    ended = ask(*words)
    assert ended['exit_status'] == 0, ended
    assert 'trajectory' in ended['outputs']


@pytest.mark.parametrize(
    ('words', 'told'),
    [
        (['--protocol', 'slow'], 'slow'),
        (['--settings', 'sped=9'], "unknown setting 'sped'"),
        (['--engine', 'magic'], 'there is no engine `magic`'),
    ],
)
def test_what_no_simulation_could_do_is_a_sentence(refused, copper_potential, copper, python_code, words, told):
    frame = DatasetData.from_ase([copper]).store()
    code = ('--code', python_code.full_label)
    assert told in refused('md', copper_potential().pk, '--start', frame.pk, *code, *words, '--dry-run')
