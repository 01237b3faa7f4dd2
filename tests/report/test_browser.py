from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from aiida_perovmlip.report.page import render

FIGURES = ('parity-energy', 'parity-forces', 'parity-stress', 'training-curve', 'lineage')
FLAGS = (
    *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'),
    *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
    *('--enable-logging=stderr', '--v=0', '--virtual-time-budget=5000', '--window-size=1280,900'),
)

LISTEN = """<script>
window.failures = [];
window.addEventListener('error', (event) => window.failures.push(event.message));
document.addEventListener('securitypolicyviolation', (event) => window.failures.push(event.violatedDirective));
</script>"""

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
  document.getElementById('show-labels').click();
  const label = getComputedStyle(document.querySelector('.edge-label')).display;
  const page = [document.documentElement.scrollWidth, innerWidth];
  document.body.dataset.seen = JSON.stringify({ boxes, failures: window.failures, orders, label, page });
});
</script>"""


@pytest.fixture(scope='module')
def chromium() -> str:
    """Return the browser."""
    path = shutil.which('chromium')
    if path is None:
        pytest.skip('there is no `chromium` on the PATH; `apt-get install chromium` brings it.')
    return path


@pytest.fixture(scope='module')
def seen(chromium, make_report, tmp_path_factory):
    """Return what a browser says of the page, and what it wrote to its console."""
    folder = tmp_path_factory.mktemp('browser')
    page = render(make_report()).replace('<head>', f'<head>{LISTEN}', 1).replace('</body>', f'{MEASURE}</body>', 1)
    return visit(chromium, page, folder)


def visit(chromium: str, page: str, folder: Path) -> tuple[dict, list[str]]:
    (folder / 'page.html').write_text(page, encoding='utf-8')
    command = [chromium, *FLAGS, f'--user-data-dir={folder / "profile"}', '--dump-dom', (folder / 'page.html').as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    match = re.search(r'data-seen="([^"]*)"', done.stdout)
    assert match, f'the page was not shown (exit status {done.returncode}): {done.stderr[-2000:]}'
    return json.loads(unescape(match.group(1))), [line for line in done.stderr.splitlines() if 'CONSOLE' in line]


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
def test_this_test_would_notice_an_error_and_a_request(chromium, tmp_path):
    broken = '<script>missing();</script><img src="https://example.org/x.png">'
    page = (
        f'<html><head>{LISTEN}<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"script-src 'unsafe-inline'\"></head><body>{broken}<script>setTimeout(() => "
        'document.body.dataset.seen = JSON.stringify(window.failures), 500);</script></body></html>'
    )
    failures, console = visit(chromium, page, tmp_path)
    assert any('missing' in failure for failure in failures)
    assert 'img-src' in failures
    assert len(console) >= 2
