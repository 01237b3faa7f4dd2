"""The model card of made-up potentials."""

from __future__ import annotations

from dataclasses import replace

from aiida_perovmlip.report.card import limits_of, write_card
from aiida_perovmlip.report.contents import Curve


def test_a_card_has_all_its_parts_and_is_always_the_same(make_report):
    card = write_card(make_report((5, 5, 5)))
    heads = [line for line in card.splitlines() if line.startswith('#')]
    expected = ['Identity', 'Data', 'Training', 'Errors', 'Known limits', 'To run it again']
    assert heads == ['# MACE potential of CsPbI₃', *(f'## {name}' for name in expected)]
    assert card == write_card(make_report((5, 5, 5)))


def test_the_worst_families_and_the_errors_that_are_too_good_are_named(make_report):
    report = make_report((5, 5, 5))
    limits = limits_of(report)
    worst = next(limit for limit in limits if 'its forces are worst for' in limit)
    assert worst.startswith('On test its forces are worst for surface CsI (')
    assert any('chosen by these frames' in limit for limit in limits)
    seen = replace(report, evaluations=report.evaluations[1:])
    assert any('how good it is, is not known' in limit for limit in limits_of(seen))


def test_what_users_call_things_is_text_in_the_card(make_report):
    report = make_report((5, 5, 5))
    title = 'a|b <img src=x> *c* `d`'
    card = write_card(replace(report, title=title, potential=replace(report.potential, settings={'a|b': '`x|y`'})))
    assert card.splitlines()[0] == r'# a\|b &lt;img src=x> \*c\* \`d\`'
    assert '| `a/b` | `x/y` |' in card


def test_an_imported_potential_has_a_card_that_says_so(make_report):
    card = write_card(make_report(datasets=(), evaluations=(), curve=Curve(), lineage=None, training=None, versions={}))
    assert 'The potential was imported.' in card
    assert 'There is nothing to run' in card
