"""A chain of tasks: what follows from what, how many at a time, and what is told of those that fail."""

from __future__ import annotations

import pytest
from aiida import orm
from aiida.engine import calcfunction, run_get_node, while_
from aiida.plugins import CalculationFactory

from aiida_perovmlip.workflows.tasks import TaskWorkChain


@calcfunction
def doubled(number):
    """Double a number; 13 is refused."""
    if number.value == 13:
        raise ValueError('thirteen is not doubled.')
    return orm.Int(2 * number.value)


class Sums(TaskWorkChain):
    """Adds three pairs of numbers, and then their sums; a pair of which one is negative cannot be submitted."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('code', valid_type=orm.AbstractCode)
        spec.input('numbers', valid_type=orm.List)
        spec.outline(cls.setup, while_(cls.has_work)(cls.go_on), cls.collect)
        spec.output('total', valid_type=orm.Int, required=False)
        spec.output('told', valid_type=orm.Dict)
        spec.output('most', valid_type=orm.Int)

    def setup(self):
        self.begin()
        self.ctx.most = 0

    def _add(self, one, other):
        if other < 0:
            raise ValueError('it is negative.')
        builder = CalculationFactory('core.arithmetic.add').get_builder()
        builder.code, builder.x, builder.y = self.inputs.code, orm.Int(one), orm.Int(other)
        return builder

    def _wanted(self):
        numbers = self.inputs.numbers.get_list()
        labels = [f'pair_{at}' for at in range(len(numbers))]
        for at, label in enumerate(labels):
            yield label, self._add, (at, numbers[at])
        sums = [self._ended(label) for label in labels]
        if all(map(self._is_over, labels)) and all(sums):
            yield 'all', self._add, tuple(node.outputs.sum.value for node in sums[:2])

    def go_on(self):
        super().go_on()
        self.ctx.most = max(self.ctx.most, len(self._running()))

    def collect(self):
        self._enter_failures()
        last = self._ended('all')
        if last is not None:
            found = self._recorded('double', doubled, last.outputs.sum)
            if found is not None:
                self.ctx.made = {}  # as if the daemon had been killed before it was remembered
                again = self._recorded('double', doubled, last.outputs.sum)
                assert again['result'].pk == found['result'].pk
                self.out('total', found['result'])
        self._recorded('thirteen', doubled, orm.Int(13))
        assert self._recorded('thirteen', doubled, orm.Int(14)) is None  # it has been said
        self.out('told', orm.Dict(self.ctx.failed).store())
        self.out('most', orm.Int(self.ctx.most).store())


@pytest.fixture
def bash(localhost):
    return orm.InstalledCode(label='bash', computer=localhost, filepath_executable='/bin/bash').store()


def test_tasks_follow_from_each_other_and_functions_run_once(bash):
    outputs, node = run_get_node(Sums, code=bash, numbers=orm.List([10, 20, 30]), max_concurrent=orm.Int(2))
    assert node.is_finished_ok, node.exception
    assert outputs['total'].value == 2 * (10 + 21)
    assert outputs['most'].value == 2
    assert outputs['told'].get_dict() == {'thirteen': 'thirteen is not doubled.'}
    assert sum(child.process_label == 'doubled' and child.is_finished_ok for child in node.called) == 1


def test_what_cannot_be_submitted_is_told_and_what_follows_from_it_left_out(bash):
    outputs, node = run_get_node(Sums, code=bash, numbers=orm.List([10, -1]))
    assert node.is_finished_ok, node.exception
    assert outputs['told']['pair_1'] == 'it could not be submitted: it is negative.'
    assert 'total' not in outputs
