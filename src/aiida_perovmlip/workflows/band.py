"""Relax one path to the end: as many jobs as it takes, and as many bands as it has barriers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, ProcessSpec, while_

from aiida_perovmlip.calculations.functions.paths import cut_path, finish_path
from aiida_perovmlip.calculations.neb import NebCalculation
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.workflows.pool import PoolWorkChain
from aiida_perovmlip.workflows.training import fill, given, how_it_ended, problem_of_legs

JOB = NebCalculation.exit_codes
LEGS = 4
"""Jobs of one band by default: the first one, and those that go on where it stopped."""

MOST_CUTS = 2
"""How often a piece of a path is cut again."""

PASSED_ON = ('code', 'potential', 'head', 'settings')
"""Inputs that are the same for every job."""

GOES_ON = (
    JOB.ERROR_NOT_CONVERGED,
    JOB.ERROR_OUT_OF_WALLTIME,
    JOB.ERROR_SCHEDULER_OUT_OF_WALLTIME,
    JOB.ERROR_SCHEDULER_NODE_FAILURE,
    JOB.ERROR_NO_RESPONSE,
)
"""Ends of a job after which another one goes on from the path that it left."""


class BandWorkChain(PoolWorkChain):
    """Relax a path with one potential.

    A job that ran out of steps or of time, or was killed, is followed by one that goes on from its path. Where a
    relaxed path has minima between its ends, it can be cut there, so that each barrier has a band of its own.
    """

    @classmethod
    def define(cls, spec: ProcessSpec) -> None:
        """Define what goes in, what is done, and what comes out."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.expose_inputs(NebCalculation, include=[*PASSED_ON, 'path'])
        spec.input(
            'options',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='`metadata.options` of every job: resources, wall time, queue.',
            **to_node,
        )
        spec.input(
            'split',
            valid_type=orm.Bool,
            default=lambda: orm.Bool(False),
            help='Whether a path with minima between its ends is cut there, and each piece relaxed as a band.',
            **to_node,
        )
        spec.input(
            'max_iterations',
            valid_type=orm.Int,
            default=lambda: orm.Int(LEGS),
            help='Largest number of jobs of one band.',
            **to_node,
        )
        spec.inputs.validator = _validate
        spec.outline(cls.setup, while_(cls.has_work)(cls.take_stock, cls.launch), cls.collect)
        spec.output(
            'path',
            valid_type=DatasetData,
            required=False,
            help='The relaxed path, with energies and forces of the potential; of a chain that failed, the path as far '
            'as it came.',
        )
        spec.output(
            'results',
            valid_type=orm.Dict,
            required=False,
            help='`bands` with their jobs, and in `profile` the barriers in eV; see the job.',
        )
        spec.default_output_node = 'results'
        define_job_codes(spec)

    # ------------------------------------------------------------------ the steps

    def setup(self) -> None:
        """Begin with one band, the whole path."""
        self.ctx.bands = {'band': _new_band(self.inputs.path.pk, 0)}

    def has_work(self) -> bool:
        """Whether there is a band to start or to wait for."""
        return any(band['state'] in ('waiting', 'running') for band in self.ctx.bands.values())

    def take_stock(self) -> None:
        """Enter what has ended."""
        for name, band in list(self.ctx.bands.items()):
            if band['state'] == 'running' and (node := orm.load_node(band['jobs'][-1])).is_terminated:
                self._enter(name, band, node)

    def launch(self) -> None:
        """Start the bands that wait, and await the first that ends."""
        for name, band in self.ctx.bands.items():
            if band['state'] == 'waiting':
                label = f'{name}_leg_{len(band["jobs"]) + 1:02d}'
                try:
                    node = self.start(label, self._builder(band))
                except ValueError as error:  # what AiiDA raises where inputs are refused
                    self._refuse(band, ' '.join(str(error).split()))
                    continue
                band |= {'state': 'running', 'jobs': [*band['jobs'], node.pk]}
        self.watch([band['jobs'][-1] for band in self.ctx.bands.values() if band['state'] == 'running'])

    def collect(self) -> ExitCode | None:
        """Return the path, joined where it was cut, and its barriers."""
        failed = next((band for band in self.ctx.bands.values() if band['state'] == 'failed'), None)
        if failed is not None:
            last = orm.load_node(self.ctx.bands['band']['path'])
            if last.pk != self.inputs.path.pk:
                self.out('path', last)
            return self._code_of(failed)
        done = {name: band for name, band in self.ctx.bands.items() if band['state'] == 'done'}
        jobs = {name: [orm.load_node(pk).uuid for pk in band['jobs']] for name, band in self.ctx.bands.items()}
        pieces = {name: orm.load_node(band['path']) for name, band in done.items()}
        self.out_many(finish_path(orm.Dict({'bands': jobs, 'n_bands': len(done)}), **pieces))
        return None

    # ------------------------------------------------------------------ what the steps are made of

    def _builder(self, band: Mapping[str, Any]) -> Any:
        """Return the builder of the next job of a band."""
        builder = fill(NebCalculation.get_builder(), given(self.inputs, *PASSED_ON))
        builder.path = orm.load_node(band['path'])
        builder.metadata.options.update(self.inputs.options.get_dict())
        return builder

    def _enter(self, name: str, band: dict[str, Any], node: orm.CalcJobNode) -> None:
        """Enter an ended job: its band is done, cut, goes on, or has failed."""
        if 'path' in node.outputs:
            band['path'] = node.outputs.path.pk
        if node.is_finished_ok:
            minima = node.outputs.results['profile']['minima']
            if minima and self.inputs.split.value and band['n_cuts'] < MOST_CUTS:
                self._cut(name, band, minima)
            else:
                band['state'] = 'done'
            return
        ended = how_it_ended(node)
        if node.exit_status in [code.status for code in GOES_ON] and len(band['jobs']) < self._most_legs:
            band['state'] = 'waiting'
            self.report(
                f'{ended} Another job goes on from {"its path" if "path" in node.outputs else "the same path"}.'
            )
            return
        message = f'{ended} {len(band["jobs"])} of {self._most_legs} jobs were run.'
        band |= {'state': 'failed', 'status': node.exit_status, 'message': message}

    def _refuse(self, band: dict[str, Any], why: str) -> None:
        """Give up a band that cannot go on: a path that a job has left may be none any more."""
        last = orm.load_node(band['jobs'][-1]) if band['jobs'] else None
        status, told = (last.exit_status, f'{how_it_ended(last)} Its path cannot go in again: ') if last else (210, '')
        band |= {'state': 'failed', 'status': status, 'message': f'{told}{why}'}

    def _cut(self, name: str, band: dict[str, Any], minima: list[int]) -> None:
        """Make a band of each piece between the minima of a relaxed path."""
        n_images = orm.Int(max(len(self.inputs.path) - 2, 1))
        pieces = cut_path(orm.load_node(band['path']), orm.List(minima), n_images)
        for piece, path in pieces.items():
            self.ctx.bands[f'{name}_{piece}'] = _new_band(path.pk, band['n_cuts'] + 1)
        band['state'] = 'cut'
        where = ', '.join(map(str, minima))
        self.report(f'{name} has minima at the images {where} of 0 to {len(self.inputs.path) - 1}: it is cut there.')

    @property
    def _most_legs(self) -> int:
        return int(self.inputs.max_iterations.value)

    def _code_of(self, band: Mapping[str, Any]) -> ExitCode:
        """Return the exit code for a band that failed: that of its job, where there is one."""
        known = {code.status: code for code in self.exit_codes.values()}
        return known.get(band['status'], self.exit_codes.ERROR_UNHANDLED_FAILURE).format(message=band['message'])


def _new_band(path: int, n_cuts: int) -> dict[str, Any]:
    return {'state': 'waiting', 'path': path, 'jobs': [], 'n_cuts': n_cuts, 'status': None, 'message': ''}


def define_job_codes(spec: ProcessSpec) -> None:
    """Define the exit codes of a band; where a cause has one in the job, it has the same number here."""
    spec.exit_code(210, 'ERROR_BAD_INPUT', message='{message}')
    spec.exit_code(310, 'ERROR_NO_RESPONSE', message='{message}')
    spec.exit_code(320, 'ERROR_MISSING_PACKAGE', message='{message}')
    spec.exit_code(400, 'ERROR_OUT_OF_WALLTIME', message='{message} Go on from the output `path`.')
    spec.exit_code(402, 'ERROR_UNHANDLED_FAILURE', message='{message}')
    spec.exit_code(410, 'ERROR_OUT_OF_MEMORY', message='{message}')
    spec.exit_code(500, 'ERROR_NOT_CONVERGED', message='{message}')
    spec.exit_code(530, 'ERROR_NOT_FINITE', message='{message}')
    spec.exit_code(570, 'ERROR_ENDS_MEET', message='{message}')


def _validate(inputs: Mapping[str, Any], _: Any) -> str | None:
    return problem_of_legs(inputs, NebCalculation)
