"""A pool of jobs: goes on with the first that ends, and adopts what an earlier attempt at the same step has started."""

from __future__ import annotations

import time

import pytest
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import run_get_node
from aiida.plugins import CalculationFactory

from aiida_perovmlip.workflows.pool import PoolWorkChain


class Two(PoolWorkChain):
    """Runs two jobs, one quick and one slow, and notes how many had ended at each of its steps."""

    @classmethod
    def define(cls, spec):
        super().define(spec)
        spec.input('code', valid_type=orm.AbstractCode)
        spec.input('orphan', valid_type=orm.Bool, required=False)
        spec.outline(cls.begin, cls.note, cls.note, cls.finish)
        spec.output('counts', valid_type=orm.List)

    def add(self, label, sleep):
        builder = CalculationFactory('core.arithmetic.add').get_builder()
        builder.code, builder.x, builder.y = self.inputs.code, orm.Int(1), orm.Int(2)
        builder.metadata.options.sleep = sleep
        return self.start(label, builder)

    def begin(self):
        if 'orphan' in self.inputs:
            orphan = orm.CalcJobNode(computer=self.inputs.code.computer)
            orphan.base.links.add_incoming(self.node, LinkType.CALL_CALC, 'quick')
            orphan.store()
        jobs = [self.add('quick', 0), self.add('slow', 6)]
        self.ctx.pks, self.ctx.counts = [job.pk for job in jobs], []
        self.watch(self.ctx.pks)

    def note(self):
        self.ctx.counts.append(sum(orm.load_node(pk).is_terminated for pk in self.ctx.pks))
        self.watch([pk for pk in self.ctx.pks if not orm.load_node(pk).is_terminated])

    def finish(self):
        again = self.add('quick', 0)
        assert again.pk == self.ctx.pks[0]
        self.out('counts', orm.List(self.ctx.counts).store())


@pytest.fixture
def bash(localhost):
    return orm.InstalledCode(label='bash', computer=localhost, filepath_executable='/bin/bash').store()


def test_it_goes_on_when_the_first_job_has_ended_and_starts_none_twice(bash):
    started = time.monotonic()
    outputs, node = run_get_node(Two, code=bash)
    assert node.is_finished_ok, node.exception
    assert outputs['counts'].get_list() == [1, 2]
    assert len(node.called) == 2
    assert time.monotonic() - started < 60


def test_a_job_that_died_before_it_lived_is_started_anew(bash):
    outputs, node = run_get_node(Two, code=bash, orphan=orm.Bool(True))
    assert node.is_finished_ok, node.exception
    assert outputs['counts'].get_list() == [1, 2]
    assert len(node.called) == 3
    assert sum(child.is_terminated for child in node.called) == 2
