"""The base of all jobs that run a task beside the potential."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common.datastructures import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec
from aiida.plugins import ParserFactory

from aiida_perovmlip.calculations.resources import ResourcedCalculation
from aiida_perovmlip.calculations.sources import HARNESS, SOURCES, digest, host_sources, job_sources, pack, source_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.contract import LOG, PROGRESS, REQUEST, RESPONSE, Request, Response
from aiida_perovmlip.compute.settings import SettingsError, read_settings
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData

ENGINE = ('abc', 'aiida', 'builtins', 'plumpy', 'typing')
"""Where the classes come from that all jobs have; their version is not part of a result."""


class ComputeCalculation(ResourcedCalculation):
    """Run one task of `compute` with the Python of an environment; the sources travel with the job."""

    task: ClassVar[str]
    """Name of the entry point of the task."""

    retrieved: ClassVar[tuple[str, ...]] = ()
    """Further small files to keep with the job."""

    products: ClassVar[tuple[str, ...]] = ()
    """Files and folders that become nodes and are not kept as files."""

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define what all jobs have in common."""
        super().define(spec)
        spec.inputs['code'].required = True
        spec.inputs['code'].help = (
            'The Python of an environment with the package of the architecture or labeller, such as `mace@localhost`; '
            '`aiida-perovmlip setup` makes these.'
        )
        spec.input(
            'seed',
            valid_type=orm.Int,
            default=lambda: orm.Int(0),
            serializer=orm.to_aiida_type,
            help='Seed of every random number of the job.',
        )
        options = spec.inputs['metadata']['options']
        options['parser_name'].default = 'perovmlip.response'
        options['resources'].default = lambda: {'num_machines': 1, 'num_mpiprocs_per_machine': 1}
        options['withmpi'].default = False
        spec.input(
            'metadata.options.device',
            valid_type=str,
            default='auto',
            validator=_validate_device,
            help='`cpu`, `cuda`, or `auto` for a GPU where the job finds one.',
        )
        spec.output('results', valid_type=orm.Dict, required=False, help='What the job says that it did.')
        _define_exit_codes(spec)

    # ------------------------------------------------------------------ what a kind of job says of itself

    def plugins(self) -> dict[str, str]:
        """Return the `module:Class` of each plug-in by role."""
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return what the task is to do."""
        return {}

    def folders(self) -> dict[str, DatasetData | PotentialData]:
        """Return the nodes whose files the job reads, by the name of their folder."""
        raise NotImplementedError

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield the output nodes that can be made of a response (None: there is none) and the product files."""
        raise NotImplementedError

    # ------------------------------------------------------------------ submission

    @cached_property
    def CACHE_VERSION(self) -> int:  # noqa: N802
        """A digest of all sources that shape the outputs: an edited task is never served an old result."""
        return digest([*self._sources.values(), *host_sources(self._host_modules()).values()])

    def _host_modules(self) -> list[str]:
        """Return the modules of the AiiDA side that make the inputs and outputs: those of the class and the parser."""
        parser = ParserFactory(self.inputs.metadata.options.parser_name)
        classes = [each.__module__ for each in (*type(self).__mro__, *parser.__mro__)]
        return sorted({module for module in classes if module.partition('.')[0] not in ENGINE})

    @cached_property
    def _sources(self) -> dict[str, Path | None]:
        return job_sources(registry.reference('tasks', self.task), self.plugins().values())

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the request, take the sources along, and name the files to bring back."""
        pack(self._sources, Path(folder.abspath) / SOURCES)
        request = Request(
            task=registry.reference('tasks', self.task),
            plugins=self.plugins(),
            inputs={name: name for name in self.folders()},
            settings=self.settings(),
            seed=self.inputs.seed.value,
            cores=self._cores(),
            device=self.inputs.metadata.options.device,
            walltime=self.inputs.metadata.options.get('max_wallclock_seconds', None),
        )
        Path(folder.abspath, REQUEST).write_text(request.dump(), encoding='utf-8')
        code = CodeInfo()
        code.code_uuid = self.inputs.code.uuid
        code.cmdline_params = ['-m', HARNESS]
        code.stdout_name = LOG
        code.join_files = True
        info = CalcInfo()
        info.codes_info = [code]
        info.prepend_text = f'export PYTHONPATH="$PWD/{SOURCES}${{PYTHONPATH:+:$PYTHONPATH}}"\nunset PYTHONSAFEPATH'
        info.local_copy_list = [(node.uuid, '.', name) for name, node in self.folders().items()]
        info.retrieve_list = [RESPONSE, PROGRESS, LOG, *self.retrieved]
        info.retrieve_temporary_list = list(self.products)
        return info

    def _cores(self) -> int:
        """Return the number of cores that the resources give the job."""
        resources = self.inputs.metadata.options.resources
        for key in ('num_cores_per_mpiproc', 'num_cores_per_machine'):
            if resources.get(key):
                return int(resources[key])
        return 1


class PotentialCalculation(ComputeCalculation):
    """Base of the jobs that use a stored potential: they run where the package of its architecture is."""

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define the potential."""
        super().define(spec)
        spec.input('potential', valid_type=PotentialData, help='The potential to use.')

    def _build_process_label(self) -> str:
        """Return a label that says what is done with which architecture."""
        return f'{type(self).__name__.removesuffix("Calculation")}<{self.inputs.potential.architecture}>'

    def plugins(self) -> dict[str, str]:
        """Return the architecture of the potential."""
        return {'architecture': registry.reference('architectures', self.inputs.potential.architecture)}


def results_of(response: Response, **more: Any) -> orm.Dict:
    """Return what a job says that it did, with what it took to do it."""
    about = {'seconds': response.seconds, 'versions': response.versions, 'device': response.device}
    return orm.Dict({**response.results, **about, 'peak_memory_mb': response.peak_memory_mb, **more})


def _define_exit_codes(spec: CalcJobProcessSpec) -> None:
    """Define the exit codes: 2xx inputs, 3xx files, 4xx the run stopped, 5xx the science did not work out."""
    spec.exit_code(210, 'ERROR_BAD_INPUT', invalidates_cache=True, message='The job refused its inputs: {message}')
    spec.exit_code(
        310,
        'ERROR_NO_RESPONSE',
        invalidates_cache=True,
        message='The job left no response: it was killed, or it never started. {message}',
    )
    spec.exit_code(
        311, 'ERROR_RESPONSE_UNREADABLE', invalidates_cache=True, message='The response cannot be read: {message}'
    )
    spec.exit_code(
        312,
        'ERROR_PRODUCT_UNREADABLE',
        invalidates_cache=True,
        message='The job says that it succeeded, but its products are missing or wrong: {message}',
    )
    spec.exit_code(
        320, 'ERROR_MISSING_PACKAGE', invalidates_cache=True, message='The environment lacks a package: {message}'
    )
    spec.exit_code(400, 'ERROR_OUT_OF_WALLTIME', invalidates_cache=True, message='The wall time ran out: {message}')
    spec.exit_code(410, 'ERROR_OUT_OF_MEMORY', invalidates_cache=True, message='The memory ran out: {message}')
    spec.exit_code(420, 'ERROR_FAILED', invalidates_cache=True, message='The task failed: {message}')
    spec.exit_code(500, 'ERROR_NOT_CONVERGED', message='The task did not converge: {message}')
    spec.exit_code(510, 'ERROR_DIVERGED', message='The training diverged: {message}')
    spec.exit_code(
        520, 'ERROR_SETTINGS_IGNORED', invalidates_cache=True, message='The trainer ignored settings: {message}'
    )
    spec.exit_code(530, 'ERROR_NOT_FINITE', message='The potential predicts values that are not finite: {message}')
    spec.exit_code(535, 'ERROR_EXPLODED', message='{message}')
    spec.exit_code(570, 'ERROR_ENDS_MEET', message='There is no path: {message}')


def _validate_device(value: str, _: Any) -> str | None:
    return None if value in ('auto', 'cpu', 'cuda') else f'`device` is {value!r} but has to be auto, cpu or cuda.'


def check_plugin(group: registry.Group, name: str, settings: dict[str, Any]) -> str | None:
    """Return a sentence where there is no such plug-in or where it refuses the settings."""
    try:
        read_settings(registry.load(group, name).Settings, settings)
        source_of(registry.reference(group, name).partition(':')[0])
    except registry.UnknownPlugin as error:
        return str(error)
    except (SettingsError, ValueError) as error:
        return f'{name}: {error}'
    return None
