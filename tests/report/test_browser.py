from __future__ import annotations

import pytest

from aiida_perovmlip.report.kinds.potential import potential_page
from aiida_perovmlip.report.page import render

FIGURES = ('parity-energy', 'parity-forces', 'parity-stress', 'training-curve', 'lineage')
MEASURE = """<script>
window.addEventListener('load', () => {
  const boxes = {};
  for (const figure of document.querySelectorAll('figure.plot')) {
    const box = figure.querySelector('svg').getBoundingClientRect();
    boxes[figure.id] = [box.width, box.height];
  }
  const groups = document.getElementById('table-groups');
  const order = () => Array.from(groups.tBodies[0].rows, (row) => row.cells[0].textContent);
  const orders = [order()];
  for (const press of [0, 1]) {
    groups.querySelectorAll('thead button')[3].click();
    orders.push(order());
  }
  document.querySelector('.show-labels').click();
  const label = getComputedStyle(document.querySelector('.edge-label')).display;
  const page = [document.documentElement.scrollWidth, innerWidth];
  document.body.dataset.seen = JSON.stringify({ boxes, failures: window.failures, orders, label, page });
});
</script>"""


@pytest.fixture(scope='module')
def seen(visit, make_report, tmp_path_factory):
    """Return what a browser says of the page, and what it wrote to its console."""
    return visit(render(potential_page(make_report())), tmp_path_factory.mktemp('browser'), MEASURE)


@pytest.mark.browser
def test_every_plot_is_shown_and_has_a_size(seen):
    boxes = seen[0]['boxes']
    assert set(FIGURES) <= set(boxes)
    assert all(width > 200 and height > 100 for width, height in boxes.values())


@pytest.mark.browser
def test_the_page_raises_no_error_and_breaks_no_policy(seen):
    assert seen[0]['failures'] == []
    assert seen[1] == []


@pytest.mark.browser
def test_the_page_is_not_wider_than_the_window(seen):
    width, window = seen[0]['page']
    assert width <= window


@pytest.mark.browser
def test_tables_sort_up_and_down_by_a_press_on_a_head(seen):
    first, up, down = seen[0]['orders']
    assert sorted(first) == sorted(up)
    assert up == down[::-1]
    assert up[0] == 'cubic'
    assert down[0] == 'surface CsI'


@pytest.mark.browser
def test_names_of_links_can_be_hidden(seen):
    assert seen[0]['label'] == 'none'


@pytest.mark.browser
def test_this_test_would_notice_an_error_and_a_request(visit, tmp_path):
    policy = "default-src 'none'; script-src 'unsafe-inline'"
    page = (
        f'<html><head><meta http-equiv="Content-Security-Policy" content="{policy}"></head>'
        '<body><script>missing();</script><img src="https://example.org/x.png"></body></html>'
    )
    wait = '<script>setTimeout(() => { document.body.dataset.seen = JSON.stringify(window.failures); }, 500);</script>'
    failures, console = visit(page, tmp_path, wait)
    assert any('missing' in failure for failure in failures)
    assert 'img-src' in failures
    assert len(console) >= 2
