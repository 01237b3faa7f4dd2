from __future__ import annotations

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_perovmlip.calculations.evaluate import EvaluateCalculation
from aiida_perovmlip.calculations.functions.dataset import split_dataset
from aiida_perovmlip.calculations.train import TrainCalculation
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.report import collect
from aiida_perovmlip.report.card import card_of
from aiida_perovmlip.report.collect import choose_points, potential_report
from aiida_perovmlip.report.quantities import write_number
from aiida_perovmlip.report.writing import page_of, write_report


def run(process, code, **inputs):
    builder = process.get_builder()
    builder.code = code
    for name, value in inputs.items():
        setattr(builder, name, value)
    return run_get_node(builder)


@pytest.fixture
def story(python_code, make_dataset):
    """Return a dataset that was split, a potential trained on one part, and its evaluation on another."""
    parts = {'training': 8, 'validation': 2, 'test': 4}
    split = split_dataset(make_dataset(14).store(), orm.Dict(parts), orm.Str('random'), orm.Int(0))
    chosen = {'training': split['training'], 'validation': split['validation']}
    trained, training = run(TrainCalculation, python_code, architecture='reference', seed=3, **chosen)
    potential = trained['potential']
    _, evaluation = run(EvaluateCalculation, python_code, potential=potential, dataset=split['test'])
    assert evaluation.is_finished_ok
    return {'potential': potential, 'process': training, 'evaluation': evaluation}


@pytest.fixture
def report(story):
    return potential_report(story['potential'], '2025-01-01T00:00:00+00:00')


def test_the_report_tells_the_story_of_the_potential(report, story):
    assert report.potential.uuid == story['potential'].uuid
    assert [card.uuid for card in report.datasets] == [
        story['process'].inputs[name].uuid for name in ('training', 'validation')
    ]
    assert [card.role for card in report.datasets] == ['training', 'validation']
    assert report.training.seed == 3
    assert report.training.seconds['total'] > 0
    assert report.potential.settings == story['process'].outputs.results['effective']
    assert {'python', 'numpy'} <= set(report.versions)


def test_the_points_have_the_errors_that_the_evaluation_stored(report):
    section = report.evaluations[0]
    for parity in section.parities:
        key = {'energy': 'energy_per_atom'}.get(parity.quantity, parity.quantity)
        error = parity.predicted - parity.reference
        assert np.sqrt((error**2).mean()) == pytest.approx(section.metrics[key]['rmse'], rel=1e-9)
        assert len(error) == section.metrics[key]['n']


def test_each_force_component_belongs_to_the_element_of_its_atom(report):
    section = report.evaluations[0]
    forces = next(parity for parity in section.parities if parity.quantity == 'forces')
    for symbol, blocks in section.metrics['per_element'].items():
        own = np.array(forces.categories) == symbol
        error = (forces.predicted - forces.reference)[own]
        assert np.abs(error).mean() == pytest.approx(blocks['forces']['mae'], rel=1e-9)


def test_fewer_points_are_drawn_of_many_and_the_number_of_all_is_kept(story, monkeypatch):
    monkeypatch.setattr(collect, 'MOST_POINTS', 50)
    parities = {parity.quantity: parity for parity in potential_report(story['potential']).evaluations[0].parities}
    assert len(parities['forces'].reference) == 50
    assert parities['forces'].n_total == 4 * 40 * 3
    assert set(parities['forces'].categories) == {'Cs', 'I', 'Pb'}


def test_points_are_chosen_the_same_way_each_time_and_from_everywhere():
    chosen = choose_points(100_000, 1000)
    assert (chosen == choose_points(100_000, 1000)).all()
    assert len(np.unique(chosen)) == 1000
    assert (np.bincount(chosen % 3) > 250).all()  # all components, and not one in three
    assert choose_points(7, 10).tolist() == list(range(7))


def test_the_curve_has_the_columns_that_were_stored(report, story):
    node = story['process'].outputs.curve
    assert len(report.curve.steps) == len(node.get_array('step'))
    assert report.curve.steps[-1]['step'] == node.get_array('step')[-1]


def test_the_lineage_leads_from_the_first_dataset_to_the_metrics(report, story):
    uuids = {mark.uuid for mark in report.lineage.nodes}
    split = story['process'].inputs.training.creator
    expected = (split, split.inputs.dataset, story['process'], story['potential'], story['evaluation'])
    assert {node.uuid for node in (*expected, story['evaluation'].outputs.metrics)} <= uuids
    links = {(edge.source_uuid, edge.target_uuid, edge.label) for edge in report.lineage.edges}
    test = story['evaluation'].inputs.dataset
    assert (split.uuid, test.uuid, 'test') in links
    assert (test.uuid, story['evaluation'].uuid, 'dataset') in links
    assert (story['potential'].uuid, story['evaluation'].uuid, 'potential') in links
    assert report.lineage.is_complete


def test_codes_are_named_in_the_process_and_drawn_nowhere(report, python_code):
    assert python_code.uuid not in {mark.uuid for mark in report.lineage.nodes}
    details = [mark.detail for mark in report.lineage.nodes if mark.kind == 'process']
    assert f'ran {python_code.full_label}' in details


def test_a_long_history_is_cut_and_said_to_be(story, monkeypatch):
    monkeypatch.setattr(collect, 'MOST_NODES', 8)
    lineage = potential_report(story['potential']).lineage
    assert len(lineage.nodes) <= 8
    assert not lineage.is_complete


def test_a_potential_that_was_imported_has_a_report_too(tmp_path, level):
    from aiida_perovmlip.compute.level import Level

    (tmp_path / 'weights').write_bytes(b'\x80\x04not to be opened')
    potential = PotentialData(
        tmp_path, architecture='mace', elements=['Cs', 'Pb'], cutoff=5.0, levels={'default': Level.from_dict(level)}
    ).store()
    report = potential_report(potential)
    assert report.training is None
    assert report.potential.level['labeller'] == 'test'
    assert [mark.uuid for mark in report.lineage.nodes] == [potential.uuid]
    assert 'was not trained here' in write_report(potential, tmp_path / 'page.html').read_text(encoding='utf-8')


def test_the_page_is_written_with_all_its_figures(story, tmp_path):
    path = write_report(story['potential'], tmp_path / 'page.html')
    page = path.read_text(encoding='utf-8')
    for name in ('parity-energy', 'parity-forces', 'parity-stress', 'training-curve', 'lineage'):
        assert f'<figure id="{name}"' in page
    assert story['potential'].uuid in page


@pytest.mark.browser
def test_the_page_of_a_potential_is_shown_with_its_methods(story, check_page):
    page = check_page(story['potential'], 'parity-energy', 'training-curve', 'lineage')
    assert 'A reference potential with a cutoff of' in page
    assert 'Huber et al. (2020)' in page


@pytest.mark.browser
def test_several_potentials_are_shown_side_by_side(story, python_code, check_page):
    inputs = {name: story['process'].inputs[name] for name in ('training', 'validation')}
    trained, _ = run(TrainCalculation, python_code, architecture='reference', seed=4, **inputs)
    other, test = trained['potential'], story['evaluation'].inputs.dataset
    run(EvaluateCalculation, python_code, potential=other, dataset=test)
    page = check_page([story['potential'], other], 'errors')
    assert '2 potentials side by side' in page
    assert page.count('<tr>') >= 5


@pytest.mark.browser
def test_the_page_of_a_dataset_shows_its_labels_structures_and_uses(story, check_page):
    dataset = story['process'].inputs.training
    page = check_page(dataset, 'distribution-energy', 'distribution-forces', 'lineage')
    assert 'Processes that took this dataset' in page
    assert story['process'].uuid in page


def test_nodes_of_two_kinds_are_not_compared_and_others_have_no_page(story):
    with pytest.raises(ValueError, match='one page compares nodes of one kind'):
        page_of([story['potential'], story['process'].inputs.training])
    with pytest.raises(ValueError, match=r'is a Train<reference>; a page is made of a potential, a dataset'):
        page_of(story['process'])
    with pytest.raises(ValueError, match='a page of several nodes is not made of a dataset'):
        page_of([story['process'].inputs.training, story['process'].inputs.validation])


def test_the_card_of_a_potential_says_what_its_user_has_to_know(story):
    card = card_of(story['potential'])
    training, test = story['process'].inputs.training, story['evaluation'].inputs.dataset
    assert story['potential'].content_hash in card
    assert training.content_hash[:16] in card
    assert f"orm.load_node('{story['process'].uuid}').get_builder_restart()" in card
    assert f'| Dataset {test.pk} | test | Forces |' in card
    assert 'It knows the elements Cs, I, Pb and no others.' in card
    assert 'No force that it has learned is larger than' in card
    assert 'was not evaluated on frames' not in card
    rmse = 1e3 * story['evaluation'].outputs.metrics['forces']['rmse']
    assert f'| {write_number(rmse)} |' in card


def test_the_training_of_a_card_starts_again_with_the_same_inputs(story):
    builder = orm.load_node(story['process'].uuid).get_builder_restart()
    inputs = builder._inputs(prune=True)
    assert inputs['training'].uuid == story['process'].inputs.training.uuid
    assert inputs['seed'].value == 3
