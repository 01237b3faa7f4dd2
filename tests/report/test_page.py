from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from aiida_perovmlip.report.contents import Curve, EvaluationSection
from aiida_perovmlip.report.kinds.potential import choose_headline, describe_limits, potential_page, select_tiles
from aiida_perovmlip.report.page import render as render_page

SECTIONS = ('summary', 'potential', 'datasets', 'accuracy', 'training', 'provenance', 'software')
FIGURES = ('parity-energy', 'parity-forces', 'parity-stress', 'training-curve', 'lineage')
NAMESPACES = {
    'http://www.w3.org/2000/svg',
    'http://www.w3.org/1999/xlink',
    'http://purl.org/dc/elements/1.1/',
    'http://creativecommons.org/ns#',
    'http://www.w3.org/1999/02/22-rdf-syntax-ns#',
}
HOSTILE = '<script>alert("x")</script>\'"&{{ 7 * 7 }}<img src=x onerror=alert(1)>'


def render(report):
    return render_page(potential_page(report))


class Elements(HTMLParser):
    """All start tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def ids(page):
    return [attributes['id'] for _, attributes in Elements(page).found if 'id' in attributes]


@pytest.fixture(scope='module')
def page(make_report):
    return render(make_report())


def test_every_section_and_every_figure_is_there_once(page):
    counts = Counter(ids(page))
    assert all(counts[name] == 1 for name in (*SECTIONS, *FIGURES))
    assert not [name for name, count in counts.items() if count > 1]
    figures = {attributes['id'] for tag, attributes in Elements(page).found if tag == 'figure'}
    assert figures >= {*FIGURES, 'parity-energy-2'}
    assert all(attributes['class'].split()[0] == 'plot' for tag, attributes in Elements(page).found if tag == 'figure')


def test_every_link_within_the_page_leads_somewhere(page):
    targets = {attributes.get('href', '') for tag, attributes in Elements(page).found if tag == 'a'}
    assert targets
    assert {target.removeprefix('#') for target in targets} <= set(ids(page))


def test_nothing_is_loaded_from_anywhere(page):
    assert set(re.findall(r'https?://[^\s"\'<>)]+', page)) <= NAMESPACES
    loading = {'src', 'srcset', 'action', 'poster', 'data'}
    assert not [tag for tag, attributes in Elements(page).found if loading & set(attributes)]
    assert '@import' not in page
    assert not re.findall(r'url\((?!#)', page)


def test_the_policy_forbids_the_network(page):
    policies = [attributes['content'] for _, attributes in Elements(page).found if 'http-equiv' in attributes]
    assert len(policies) == 1
    assert policies[0].startswith(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )


def test_equal_reports_give_equal_pages(make_report, page):
    assert render(make_report()) == page


def test_headings_do_not_skip_a_level(page):
    levels = [int(tag[1]) for tag, _ in Elements(page).found if re.fullmatch(r'h[1-6]', tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(second - first <= 1 for first, second in pairwise(levels))


def test_every_column_of_errors_has_a_unit(page):
    table = page[page.index('id="table-groups"') :]
    heads = re.findall(r'<th scope.*?</th>', table[: table.index('</thead>')], re.S)
    assert all('<span class="unit">meV/' in head for head in heads[2:])


def test_hostile_names_are_shown_and_never_run(make_report):
    report = make_report((12, 12, 12))
    evaluation = report.evaluations[0]
    dataset = replace(evaluation.dataset, label=HOSTILE, groups={HOSTILE: 3})
    group = {HOSTILE: next(iter(evaluation.metrics['per_group'].values()))}
    parities = tuple(replace(parity, categories=(HOSTILE,) * 6 + ('a',) * 6) for parity in evaluation.parities)
    lineage = report.lineage
    marks = tuple(replace(mark, label=HOSTILE, type_name=HOSTILE, detail=HOSTILE) for mark in lineage.nodes)
    edges = tuple(replace(edge, label=HOSTILE) for edge in lineage.edges)
    page = render(
        replace(
            report,
            title=HOSTILE,
            created=HOSTILE,
            potential=replace(report.potential, architecture=HOSTILE, label=HOSTILE, settings={HOSTILE: HOSTILE}),
            datasets=(dataset,),
            evaluations=(EvaluationSection(dataset, {**evaluation.metrics, 'per_group': group}, parities, HOSTILE, 1),),
            lineage=replace(lineage, nodes=marks, edges=edges),
            training=replace(report.training, label=HOSTILE, strategy=HOSTILE),
            versions={HOSTILE: HOSTILE},
        )
    )
    elements = Elements(page).found
    assert [attributes for tag, attributes in elements if tag == 'script' and 'type' not in attributes] == [{}]
    assert 'img' not in {tag for tag, _ in elements}
    assert not [name for _, attributes in elements for name in attributes if name.startswith('on')]
    assert page.count('&lt;script&gt;') > 20
    assert '49' not in re.findall(r'<h1>(.*?)</h1>', page)[0]


def test_a_report_with_nothing_but_a_potential_says_what_is_missing(make_report):
    page = render(make_report(datasets=(), evaluations=(), curve=Curve(), lineage=None, training=None, versions={}))
    assert set(SECTIONS) <= set(ids(page))
    for sentence in (
        'The potential has not been evaluated yet.',
        'No training curve was recorded.',
        'The provenance of this potential was not collected.',
        'No dataset is known',
        'No version was recorded.',
    ):
        assert sentence in page


def test_the_headline_is_the_first_dataset_that_training_did_not_see(make_report):
    report = make_report((5, 5, 5))
    turned = replace(report, evaluations=report.evaluations[::-1])
    assert choose_headline(turned).dataset.label == 'test'
    seen = replace(report, evaluations=report.evaluations[1:])
    assert choose_headline(seen).dataset.label == 'validation'


def test_an_evaluation_on_frames_of_the_training_is_marked_even_where_the_node_is_another(make_report):
    report = make_report((5, 5, 5))
    copy = replace(report.datasets[0], uuid='another', role='')
    assert 'trained on these frames' in describe_limits(report, EvaluationSection(copy, {}))[0]
    assert not describe_limits(report, report.evaluations[0])


def test_predictions_that_are_not_finite_are_told_at_the_top_and_beside(make_report):
    report = make_report((5, 5, 5))
    block = {'n': 5, 'n_not_finite': 2, 'unit': 'eV/Å'}
    metrics = {**report.evaluations[0].metrics, 'state': 'not_finite', 'forces': block}
    broken = replace(report, evaluations=(replace(report.evaluations[0], metrics=metrics),))
    assert ('Forces RMSE', 'not finite') in [(tile.title, tile.value) for tile in select_tiles(broken)]
    assert 'values that are not finite for some of these frames' in render(broken)


def test_the_page_of_many_points_stays_small(make_report):
    assert len(render(make_report((4000, 20_000, 20_000)))) < 2_000_000
