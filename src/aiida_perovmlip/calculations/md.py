"""Simulate molecular dynamics with a potential, as long as one job lasts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.datastructures import CalcInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJobProcessSpec

from aiida_perovmlip.calculations.base import PotentialCalculation, results_of
from aiida_perovmlip.calculations.functions.dynamics import statistics_of
from aiida_perovmlip.calculations.label import level_of
from aiida_perovmlip.compute import registry
from aiida_perovmlip.compute.architecture import missing_elements
from aiida_perovmlip.compute.checkpoint import FOLDER as CHECKPOINT
from aiida_perovmlip.compute.checkpoint import Checkpoint, State
from aiida_perovmlip.compute.chunk import Chunk
from aiida_perovmlip.compute.chunk_writer import ATOMS, MANIFEST, manifest, parse_manifest
from aiida_perovmlip.compute.chunk_writer import FOLDER as TRAJECTORY
from aiida_perovmlip.compute.contract import Response
from aiida_perovmlip.compute.md import MdSettings, identity_of, read_md_settings
from aiida_perovmlip.compute.moving_atoms import MovingAtoms
from aiida_perovmlip.compute.recorder import ABOUT, CANDIDATES, OPEN, ROWS
from aiida_perovmlip.compute.rows import without_rows
from aiida_perovmlip.compute.shard import Shard
from aiida_perovmlip.compute.tasks.md import COMMITTEE
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.potential import PotentialData
from aiida_perovmlip.data.trajectory import TrajectoryData


class MdCalculation(PotentialCalculation):
    """Move the atoms of one structure with a potential, from its start or from the state of an earlier job.

    Whatever ends the job, its trajectory reaches up to the newest state that it saved, and a further job goes on from
    this one: no frame is lost or there twice.
    """

    task = 'md'
    products = (TRAJECTORY, CHECKPOINT, CANDIDATES)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Define inputs and outputs."""
        super().define(spec)
        to_node: dict[str, Any] = {'serializer': orm.to_aiida_type}
        spec.inputs['potential'].help = 'The potential that moves the atoms.'
        spec.inputs['code'].help = (
            'The Python of the environment of the architecture, such as `nep@localhost`; for an engine that is a '
            'program of its own, such as LAMMPS, that of the environment of the engine.'
        )
        spec.input('start', valid_type=DatasetData, help='The structure to start from: a dataset of one frame.')
        spec.input(
            'settings',
            valid_type=orm.Dict,
            default=lambda: orm.Dict({}),
            help='Ensemble, schedule, outputs; what is left out has its default.',
            **to_node,
        )
        spec.input(
            'engine',
            valid_type=orm.Str,
            default=lambda: orm.Str('ase'),
            help='Name of the engine, one of `aiida_perovmlip.engines`.',
            **to_node,
        )
        spec.input(
            'head',
            valid_type=orm.Str,
            required=False,
            help='The head to predict with; needed where the potential has several.',
            **to_node,
        )
        spec.input(
            'state',
            valid_type=orm.FolderData,
            required=False,
            help='The output `state` of an earlier job of the same run, from which this one goes on.',
        )
        spec.input(
            'segment_steps',
            valid_type=orm.Int,
            required=False,
            help='Steps after which this job ends, though the run is not at its end.',
            **to_node,
        )
        spec.input_namespace(
            'committee',
            valid_type=PotentialData,
            required=False,
            dynamic=True,
            help='Further potentials of the architecture: how far their forces are apart tells where the potential '
            'is not to be trusted.',
        )
        spec.inputs.validator = _validate
        spec.input(
            'metadata.options.keep_remote',
            valid_type=bool,
            default=False,
            help='Leave the frames on the computer where they were made; they are fetched when they are read.',
        )
        spec.output(
            'trajectory',
            valid_type=TrajectoryData,
            required=False,
            help='The frames and thermodynamic rows up to the newest state, whatever ended the job.',
        )
        spec.output(
            'state', valid_type=orm.FolderData, required=False, help='All from which a further job goes on exactly.'
        )
        spec.output(
            'candidates',
            valid_type=DatasetData,
            required=False,
            help='Of a run that exploded: the frames before, without labels.',
        )
        spec.outputs['results'].help = (
            'How far the run came, means of the thermodynamic rows with standard errors, and in `drift` that of what '
            'should be conserved in meV/atom/ps.'
        )
        spec.default_output_node = 'results'

    def _build_process_label(self) -> str:
        """Return a label that says which engine runs which architecture."""
        return f'Md<{self.inputs.engine.value}, {self.inputs.potential.architecture}>'

    def plugins(self) -> dict[str, str]:
        """Return the engine and the architecture of the potential."""
        return {**super().plugins(), 'engine': registry.reference('engines', self.inputs.engine.value)}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run, the head, and what all jobs of the run have in common."""
        return {
            'md': self.inputs.settings.get_dict(),
            'head': self.inputs.head.value if 'head' in self.inputs else None,
            'identity': identity_of_run(self.inputs),
            'segment_steps': self.inputs.segment_steps.value if 'segment_steps' in self.inputs else None,
            'keep_remote': self.inputs.metadata.options.keep_remote,
        }

    def folders(self) -> dict[str, Any]:
        """Return potential, start and, where there are such, state and further potentials."""
        committee = {f'{COMMITTEE}{name}': node for name, node in self.inputs.get('committee', {}).items()}
        state = {'state': self.inputs.state} if 'state' in self.inputs else {}
        return {'potential': self.inputs.potential, 'start': self.inputs.start, **state, **committee}

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Leave the chunks of the trajectory where they are, if that was asked for."""
        info = super().prepare_for_submission(folder)
        if self.inputs.metadata.options.keep_remote:
            kept = [name for name in info.retrieve_temporary_list if name != TRAJECTORY]
            listed = [(f'{TRAJECTORY}/{name}', '.', 2) for name in (MANIFEST, ATOMS)]
            info.retrieve_temporary_list = [*kept, *listed]
        return info

    @classmethod
    def outputs_of(
        cls, node: orm.CalcJobNode, response: Response | None, folder: Path
    ) -> Iterator[tuple[str, orm.Data]]:
        """Yield trajectory and state, up to the newest state that is whole, and what they tell."""
        state = Checkpoint(folder / CHECKPOINT, identity_of_run(node.inputs)).state()
        trajectory = None if state is None else _trajectory(node, state, folder)
        if trajectory is not None:
            yield 'trajectory', trajectory
        if state is not None and 'exploded' not in state.about:  # after the frames that no further job has
            yield 'state', _state(node, state)
        if (folder / CANDIDATES).is_file():
            yield 'candidates', _candidates(node, folder / CANDIDATES)
        known = _known(node, state)
        if trajectory is not None:
            known = {**statistics_of(trajectory.trajectory), **known}
        if response is not None and response.results:
            yield 'results', results_of(response, **{k: v for k, v in known.items() if k not in response.results})
        elif state is not None:
            yield 'results', orm.Dict(known)


def identity_of_run(inputs: Any) -> str:
    """Return what all jobs of a run have in common, of the inputs of one of them."""
    settings = read_md_settings(inputs['settings'].get_dict())
    head = inputs['head'].value if 'head' in inputs else ''
    potential = f'{inputs["potential"].content_hash} {head}'
    return identity_of(settings, inputs['start'].frames[0], inputs['engine'].value, potential)


def _known(node: orm.CalcJobNode, state: State | None) -> dict[str, Any]:
    """Return how far a run has come, as the nodes tell."""
    settings = read_md_settings(node.inputs.settings.get_dict())
    begun_at = node.inputs.state.base.attributes.get('step') if 'state' in node.inputs else 0
    step = begun_at if state is None else state.step
    n_atoms = len(node.inputs.start.frames[0])
    engine = node.inputs.engine.value
    return {'engine': engine, 'n_atoms': n_atoms, 'n_steps': settings.n_steps, 'begun_at_step': begun_at, 'step': step}


def _trajectory(node: orm.CalcJobNode, state: State, folder: Path) -> TrajectoryData | None:
    """Return the frames and rows up to a state; None where there are none yet."""
    with state.file(OPEN).open('rb') as handle:
        rest = Chunk.read(handle)
    closed = int(state.about['n_closed'])
    is_filled = any(map(len, rest.columns.values()))
    if not closed and not is_filled:
        return None
    settings = read_md_settings(node.inputs.settings.get_dict())
    about = _about(node, settings)
    if not node.get_option('keep_remote'):
        return TrajectoryData.from_folder(folder, settings.timestep, closed, rest, **about)
    with state.file(ROWS).open('rb') as handle:
        rows = Chunk.read(handle)
    return _remote_trajectory(node, folder / TRAJECTORY, (closed, rest, rows), settings.timestep, about)


def _remote_trajectory(
    node: orm.CalcJobNode,
    folder: Path,
    known: tuple[int, Chunk, Chunk],
    timestep: float,
    about: Mapping[str, Any],
) -> TrajectoryData:
    """Return a trajectory whose frames lie on the computer of the job, or where they were stashed; its rows are here.

    :param known: how many chunks are closed, what the open one holds, and all rows.
    """
    closed, rest, rows = known
    atoms = MovingAtoms.read_file(folder / ATOMS)
    columns, entries = parse_manifest((folder / MANIFEST).read_text())
    here = [rest.drop(0, len(rest.columns['thermo_steps'])), rows]
    if len(entries) > closed and entries[closed].digest == rest.digest:
        closed, here = closed + 1, [rows]  # a job that came to its end has closed this one too
    frames = without_rows(entries[:closed], rows)
    parts = []
    if frames:
        place = node.outputs.remote_stash if 'remote_stash' in node.outputs else node.outputs.remote_folder
        listing = manifest((name for name in columns if not name.startswith('thermo_')), frames)
        parts.append(TrajectoryData.from_remote(listing, place, atoms, timestep, **about))
    chunks = [chunk for chunk in here if any(map(len, chunk.columns.values()))]
    if chunks:
        parts.append(TrajectoryData.from_chunks(atoms, chunks, timestep, **about))
    return parts[0] if len(parts) == 1 else TrajectoryData.join(parts)


def _about(node: orm.CalcJobNode, settings: MdSettings) -> dict[str, Any]:
    """Return what is known of a run beside its frames."""
    frame = node.inputs.start.frames[0]
    return {
        'level': _level(node.inputs),
        'engine': node.inputs.engine.value,
        'ensemble': settings.ensemble,
        'charge': frame.charge,
        'spin': frame.spin,
        'group': '' if frame.group == 'default' else frame.group,
    }


def _level(inputs: Any) -> Any:
    """Return the level of theory of a run: the potential itself."""
    return level_of('potential', {'head': inputs['head'].value} if 'head' in inputs else {}, inputs['potential'])


def _state(node: orm.CalcJobNode, state: State) -> orm.FolderData:
    """Return a state as it goes to the next job: without the frames, which are in the trajectory."""
    folder = orm.FolderData()
    identity = identity_of_run(node.inputs)
    for path in sorted(state.folder.iterdir()):
        if path.name not in (OPEN, ROWS, 'state.json'):
            folder.base.repository.put_object_from_file(str(path), path.name)
    told = {name: state.about[name] for name in ('engine', 'spread')}
    text = json.dumps({'step': state.step, 'identity': identity, **told}, sort_keys=True)
    folder.base.repository.put_object_from_filelike(io.BytesIO(text.encode()), ABOUT)
    folder.base.attributes.set_many({'step': state.step, 'identity': identity, 'engine': node.inputs.engine.value})
    return folder


def _candidates(node: orm.CalcJobNode, path: Path) -> DatasetData:
    """Return the frames before an explosion, which belong together."""
    with path.open('rb') as handle:
        shard = Shard.read(handle)
    shard.rename('trajectory', identity_of_run(node.inputs)[:16])
    return DatasetData.from_frames(shard)


# ---------------------------------------------------------------------- what is refused


def _validate(inputs: Any, _: Any) -> str | None:
    """Refuse what no job could do."""
    if any(name not in inputs for name in ('potential', 'start')):
        return None
    potential, start = inputs['potential'], inputs['start']
    try:
        settings = read_md_settings(inputs['settings'].get_dict())
        _level(inputs)
    except ValueError as error:
        return str(error)
    if 'segment_steps' in inputs and inputs['segment_steps'].value < 1:
        return f'`segment_steps` is {inputs["segment_steps"].value} but has to be at least 1.'
    if len(start) != 1:
        return f'a run starts from one structure, but `start` has {len(start)}: take one, `dataset.select([0])`.'
    unknown = missing_elements(start.elements, potential.elements)
    if unknown:
        return f'the start holds {", ".join(unknown)}, but the potential knows only {", ".join(potential.elements)}.'
    return (
        refusal_of(settings, inputs['engine'].value, potential)
        or settings.problem_with(start.frames[0])
        or _problem_of_committee(inputs, settings)
        or _problem_of_state(inputs, settings)
    )


def refusal_of(settings: MdSettings, engine: str, potential: PotentialData) -> str | None:
    """Return a sentence where an engine does not do such a run with a potential, and which engines do."""
    try:
        architecture = registry.load('architectures', potential.architecture)()
        refused = registry.load('engines', engine)().refusal(settings, architecture)
    except ValueError as error:
        return str(error)
    return f'{refused} {_who_can(settings, architecture)}' if refused else None


def _who_can(settings: MdSettings, architecture: Any) -> str:
    """Return a sentence on the engines that can do a run."""
    able = []
    for name in registry.names('engines'):
        engine = registry.load('engines', name)()
        if engine.refusal(settings, architecture) is None:
            able.append(f'`{name}`')
    return f'{", ".join(able)} can.' if able else 'No engine that is installed can.'


def _problem_of_committee(inputs: Any, settings: MdSettings) -> str | None:
    """Return a sentence where a committee cannot judge the forces of the potential."""
    committee: Mapping[str, PotentialData] = inputs.get('committee', {})
    if settings.max_spread is not None and not committee:
        return '`max_spread` is set, but there is no `committee` whose forces could be apart.'
    engine = registry.load('engines', inputs['engine'].value)()
    if committee and not engine.has_committee:
        return f'{engine.name} computes no forces of a `committee`: leave it out, or take the engine `ase`.'
    potential = inputs['potential']
    for name, member in committee.items():
        if member.architecture != potential.architecture:
            return f'`{name}` of the committee is of {member.architecture}, the potential of {potential.architecture}.'
        unknown = missing_elements(inputs['start'].elements, member.elements)
        if unknown:
            return f'`{name}` of the committee does not know {", ".join(unknown)}.'
    return None


def _problem_of_state(inputs: Any, settings: MdSettings) -> str | None:
    """Return a sentence where no job can go on from a state."""
    if 'state' not in inputs:
        return None
    known = inputs['state'].base.attributes
    step = known.get('step', None)
    if step is None:
        return '`state` is not the output `state` of a job of molecular dynamics.'
    if known.get('identity', None) != identity_of_run(inputs):
        return (
            'the state is of another run: its atoms, potential, engine, ensemble, time step or schedule differ from '
            'what is asked for now. Start a new run without `state`.'
        )
    if step >= settings.n_steps:
        return f'the state is of step {step}, and the run has {settings.n_steps} steps: there is nothing left to do.'
    return None
