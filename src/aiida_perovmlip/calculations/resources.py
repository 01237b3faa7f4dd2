"""What a job needs of a computer, in the same few words for all schedulers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from aiida import orm
from aiida.common.exceptions import InputValidationError
from aiida.engine import CalcJob

if TYPE_CHECKING:
    from aiida.engine import CalcJobProcessSpec

OF_CODE = 'perovmlip_resources'
"""Extra of a code with what its jobs need where they do not say otherwise."""

OF_NODE = 'perovmlip_node'
"""Property of a computer with what one of its nodes has."""

GPU_LINES = {
    'core.slurm': '#SBATCH --gres=gpu:{gpus}',
    'core.sge': '#$ -l gpu={gpus}',
    'core.lsf': '#BSUB -gpu "num={gpus}"',
    'core.torque': '#PBS -l gpus={gpus}',
}
"""How a scheduler is asked for GPUs of one node; AiiDA itself has no word for them."""

GPUS_BY_OTHER_MEANS = {
    'core.direct': 'jobs see all GPUs of the computer; say which by `environment_variables`.',
    'core.pbspro': 'AiiDA writes the `select` line itself; ask for GPUs by a queue or by `custom_scheduler_commands`.',
}
"""Schedulers that cannot be asked for GPUs by a line, and what to do there."""

PARALLEL_ENVIRONMENTS = ('core.sge', 'core.lsf')
"""Schedulers whose resources AiiDA describes by a parallel environment."""

TIMES = {'s': 1, 'min': 60, 'h': 3600, 'd': 86400}
SIZES = {'MB': 1, 'GB': 1000, 'TB': 1_000_000}


@dataclass(frozen=True)
class Resources:
    """What a job needs; None is what scheduler and code do by themselves.

    :param gpus: GPUs on one node.
    :param tasks: processes that are started together, for programs with MPI.
    :param cores: cores of each of these; as many threads run.
    :param memory: of the job, in MB.
    :param walltime: in s.
    """

    gpus: int | None = None
    tasks: int | None = None
    cores: int | None = None
    memory: int | None = None
    walltime: int | None = None

    @classmethod
    def read(cls, words: Mapping[str, Any]) -> Resources:
        """Read numbers, and texts such as `32 GB` and `12 h`; raises a ValueError that names the word."""
        unknown = sorted(set(words) - set(NAMES))
        if unknown:
            raise ValueError(f'`{unknown[0]}` is no resource; there are {", ".join(NAMES)}.')
        found: dict[str, int] = {}
        for name, value in words.items():
            if value is None:
                continue
            found[name] = READERS[name](name, value)
        return cls(**found)

    def given(self) -> dict[str, int]:
        """Return what is not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def lack(self, node: Mapping[str, Any]) -> str | None:
        """Return a sentence where no node of a computer could ever start such a job.

        :param node: what one node has, as `Resources.given` writes it; `walltime` is the longest of all queues.
        """
        cores = (self.tasks or 1) * (self.cores or 1)
        wanted = {'gpus': self.gpus, 'cores': cores, 'memory': self.memory, 'walltime': self.walltime}
        units = {'memory': ' MB', 'walltime': ' s'}
        for name, value in wanted.items():
            most = node.get(name)
            if value is not None and most is not None and value > most:
                unit = units.get(name, '')
                return f'the job asks for {value}{unit} of `{name}`, but a node has {most}{unit}: ask for less.'
        return None

    def options(self, scheduler: str) -> dict[str, Any]:
        """Return `metadata.options` that ask a scheduler for these resources.

        :param scheduler: entry point of the plug-in, such as `core.slurm`.
        """
        found: dict[str, Any] = {}
        if self.tasks is not None or self.cores is not None:
            if scheduler in PARALLEL_ENVIRONMENTS:
                raise ValueError(
                    f'`tasks` and `cores` cannot be translated for the scheduler {scheduler}, whose parallel '
                    'environments have names that each site gives: say `resources` with `parallel_env` and '
                    '`tot_num_mpiprocs`.'
                )
            found['resources'] = {
                'num_machines': 1,
                'num_mpiprocs_per_machine': self.tasks or 1,
                'num_cores_per_mpiproc': self.cores or 1,
            }
            found['withmpi'] = (self.tasks or 1) > 1
        if self.memory is not None:
            found['max_memory_kb'] = 1000 * self.memory
        if self.walltime is not None:
            found['max_wallclock_seconds'] = self.walltime
        environment = {}
        if self.cores is not None:
            environment = {'OMP_NUM_THREADS': str(self.cores), 'OMP_WAIT_POLICY': 'PASSIVE'}
        if self.gpus == 0:
            environment['CUDA_VISIBLE_DEVICES'] = ''
        if environment:
            found['environment_variables'] = environment
        if self.gpus:
            if scheduler not in GPU_LINES:
                how = GPUS_BY_OTHER_MEANS.get(scheduler, 'ask by `custom_scheduler_commands`.')
                raise ValueError(f'`gpus` cannot be translated for the scheduler {scheduler}: {how}')
            found['custom_scheduler_commands'] = GPU_LINES[scheduler].format(gpus=self.gpus)
        return found


NAMES = tuple(field.name for field in fields(Resources))


def _count(name: str, value: Any) -> int:
    least = 0 if name == 'gpus' else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f'`{name}` is {value!r}, but has to be a whole number, at least {least}.')
    return value


def _amount(units: Mapping[str, int], example: str) -> Any:
    """Return what reads a number with a unit; a number alone has the first unit."""

    def read(name: str, value: Any) -> int:
        match = re.fullmatch(r'\s*([0-9.]+)\s*([A-Za-z]*)\s*', str(value))
        unit = (match[2] or next(iter(units))) if match else ''
        try:
            number = float(match[1]) if match else 0.0
        except ValueError:
            number = 0.0
        if unit not in units or round(number * units[unit]) < 1:
            raise ValueError(f'`{name}` is {value!r}, but has to be such as `{example}`; units are {", ".join(units)}.')
        return round(number * units[unit])

    return read


READERS: dict[str, Any] = {
    'gpus': _count,
    'tasks': _count,
    'cores': _count,
    'memory': _amount(SIZES, '32 GB'),
    'walltime': _amount(TIMES, '12 h'),
}


class ResourcedCalculation(CalcJob):
    """A job that can be told what it needs in words that do not depend on the scheduler.

    What the job does not say is as its code says (`setup --computer` writes that); a plain option of AiiDA goes before
    both.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Translate the words into options before these are checked."""
        if kwargs.get('inputs') is not None:
            kwargs['inputs'] = translated(kwargs['inputs'])
        super().__init__(*args, **kwargs)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define the words."""
        super().define(spec)
        for name in ('gpus', 'tasks', 'cores'):
            spec.input(f'metadata.options.{name}', valid_type=int, required=False, help=HELP[name])
        for name in ('memory', 'walltime'):
            spec.input(f'metadata.options.{name}', valid_type=(str, int, float), required=False, help=HELP[name])


HELP = {
    'gpus': 'GPUs on one node.',
    'tasks': 'Processes that are started together.',
    'cores': 'Cores of each process; as many threads run.',
    'memory': 'Memory of the job, such as `32 GB`; a number is in MB.',
    'walltime': 'Longest time, such as `12 h`; a number is in s.',
}


def translated(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return inputs of a job with the options of the scheduler in place of words; refuse what no node could start."""
    metadata = dict(inputs.get('metadata') or {})
    options = dict(metadata.get('options') or {})
    code = inputs.get('code')
    computer = metadata.get('computer') or getattr(code, 'computer', None)
    if computer is None:
        return dict(inputs)
    asked = {name: options[name] for name in NAMES if options.get(name) is not None}
    known = code.base.extras.get(OF_CODE, {}) if isinstance(code, orm.AbstractCode) and code.is_stored else {}
    options = {**{name: value for name, value in known.items() if name not in NAMES}, **options}
    words = {**{name: known[name] for name in NAMES if known.get(name) is not None}, **asked}
    if not words:
        return {**inputs, 'metadata': {**metadata, 'options': options}} if known else dict(inputs)
    found = _asked_of(computer, words)
    if 'resources' in options and not {'tasks', 'cores'} & set(asked):
        found.pop('resources', None)
    return {**inputs, 'metadata': {**metadata, 'options': {**_joined(found, options), **words}}}


def _asked_of(computer: orm.Computer, words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options by which a computer is asked for resources; refuse what none of its nodes has."""
    try:
        resources = Resources.read(words)
        found = resources.options(computer.scheduler_type)
    except ValueError as error:
        raise InputValidationError(str(error)) from error
    if lack := resources.lack(computer.get_property(OF_NODE, {})):
        raise InputValidationError(f'{computer.label}: {lack}')
    return found


def _joined(found: dict[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with those that words became: `resources` are of these, lines and variables are of both."""
    joined = {**found, **options, **({'resources': found['resources']} if 'resources' in found else {})}
    lines = [each['custom_scheduler_commands'] for each in (found, options) if each.get('custom_scheduler_commands')]
    if lines:
        joined['custom_scheduler_commands'] = '\n'.join(lines)
    variables = {**found.get('environment_variables', {}), **options.get('environment_variables', {})}
    if variables:
        joined['environment_variables'] = variables
    return joined
