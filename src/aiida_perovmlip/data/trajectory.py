"""A trajectory: the frames of one run in chunks, with what is known of the run."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.exceptions import StoringNotAllowed
from aiida.orm.nodes.caching import NodeCaching
from aiida.orm.pydantic import OrmMetadataField
from ase.data import chemical_symbols
from ase.formula import Formula

from aiida_perovmlip.compute.chunk import Chunk, ChunkEntry, TrajectoryError, sum_of_digests
from aiida_perovmlip.compute.chunk_writer import ATOMS, FOLDER, parse_manifest, read_manifest
from aiida_perovmlip.compute.extxyz import Dialect, write_extxyz
from aiida_perovmlip.compute.frame import Frame
from aiida_perovmlip.compute.level import Level
from aiida_perovmlip.compute.moving_atoms import MovingAtoms
from aiida_perovmlip.compute.seams import join
from aiida_perovmlip.compute.trajectory import Opener, Trajectory
from aiida_perovmlip.data.dataset import DatasetData
from aiida_perovmlip.data.remote_chunks import RemoteChunks
from aiida_perovmlip.data.sharing import adopt


@dataclass(frozen=True)
class Run:
    """What is known of a run beside its frames.

    :param level: level of theory of the potential that moved the atoms.
    :param engine: the engine, such as `ase`.
    :param ensemble: `nve`, `nvt` or `npt`.
    :param charge: e, of the whole cell.
    :param spin: multiplicity 2S + 1.
    :param group: the structure family that its frames belong to; empty: the formula.
    """

    level: Level | None = None
    engine: str = ''
    ensemble: str = ''
    charge: int | None = None
    spin: int | None = None
    group: str = ''

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> Run:
        """Return what is known; a level may be given as a dictionary."""
        level = about.get('level')
        return cls(
            **{**about, 'level': Level.from_dict(level) if isinstance(level, Mapping) and level else level or None}
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as attributes."""
        fingerprint = self.level.fingerprint if self.level else ''
        return {**vars(self), 'level': self.level.to_dict() if self.level else {}, 'fingerprint': fingerprint}


class TrajectoryCaching(NodeCaching):
    """Two trajectories are the same where atoms, frames, rows and run are, however these are cut into chunks."""

    def get_objects_to_hash(self) -> dict[str, Any]:
        """Return what makes the trajectory what it is."""
        known = self._node.base.attributes
        keys = ('content_hash', 'fingerprint', 'engine', 'ensemble', 'charge', 'spin', 'group')
        return {'class': 'perovmlip.trajectory', **{key: known.get(key, None) for key in keys}}


class TrajectoryData(orm.Data):
    """The frames of one run in chunks, which are read one after the other.

    Build one by `from_folder`, `from_chunks` or `from_remote`, or from parts of one run by `join`, which writes no
    second copy of a frame. Read it by `trajectory`.
    """

    _CLS_NODE_CACHING = TrajectoryCaching

    class AttributesModel(orm.Data.AttributesModel):
        """What one can ask of a trajectory without opening it."""

        n_frames: int = OrmMetadataField(0, description='Number of frames')
        n_atoms: int = OrmMetadataField(0, description='Number of atoms of a frame')
        elements: list[Any] = OrmMetadataField(
            default_factory=list, description='Chemical symbols in alphabetical order'
        )
        formula: str = OrmMetadataField('', description='Chemical formula of a frame')
        timestep: float = OrmMetadataField(0.0, description='Timestep in fs')
        first_step: int | None = OrmMetadataField(None, description='Step of the first frame')
        last_step: int | None = OrmMetadataField(None, description='Step of the last frame')
        every: int | None = OrmMetadataField(None, description='Steps from frame to frame; none where these differ')
        duration_ps: float = OrmMetadataField(0.0, description='Time from the first to the last frame in ps')
        has_velocities: bool = OrmMetadataField(False, description='Whether the frames have velocities')
        thermo: list[Any] = OrmMetadataField(default_factory=list, description='What the thermodynamic rows hold')
        n_thermo: int = OrmMetadataField(0, description='Number of thermodynamic rows')
        level: dict[str, Any] = OrmMetadataField(default_factory=dict, description='Level of theory of the potential')
        fingerprint: str = OrmMetadataField('', description='Fingerprint of the level')
        engine: str = OrmMetadataField('', description='Engine that ran it')
        ensemble: str = OrmMetadataField('', description='Statistical ensemble')
        charge: int | None = OrmMetadataField(None, description='Charge of the cell in e')
        spin: int | None = OrmMetadataField(None, description='Spin multiplicity')
        group: str = OrmMetadataField('', description='Structure family of its frames')
        n_bytes: int = OrmMetadataField(0, description='Size of all chunks')
        chunks: list[Any] = OrmMetadataField(default_factory=list, description='The chunks in order')
        is_remote: bool = OrmMetadataField(False, description='Whether chunks lie on the computer of the node')
        content_hash: str = OrmMetadataField('', description='Hash of atoms, timestep, frames and rows')

    # ------------------------------------------------------------------ building

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        timestep: float,
        closed: int | None = None,
        rest: Chunk | None = None,
        **about: Any,
    ) -> TrajectoryData:
        """Return an unstored trajectory of what a run has left in a folder.

        :param folder: has the folder `trajectory`.
        :param timestep: fs.
        :param closed: take so many of its chunks; the state that was saved knows how many. None takes all.
        :param rest: the chunk that was open in that state.
        :param about: what is known of the run: `level`, `engine`, `ensemble`, `charge`, `spin`, `group`.
        """
        place = Path(folder) / FOLDER
        _, entries = read_manifest(place)
        read = (_read_checked(place / entry.path, entry) for entry in _taken(entries, closed))
        chunks = ((Chunk.read(io.BytesIO(data)), data) for data in read)
        open_chunk = [(rest, _bytes_of(rest))] if rest is not None and _filled(rest) else []
        return cls._of(MovingAtoms.read_file(place / ATOMS), chain(chunks, open_chunk), timestep, about)

    @classmethod
    def from_chunks(cls, atoms: MovingAtoms, chunks: Iterable[Chunk], timestep: float, **about: Any) -> TrajectoryData:
        """Return an unstored trajectory of chunks, one of which is in memory at a time; see `from_folder`."""
        return cls._of(atoms, ((chunk, _bytes_of(chunk)) for chunk in chunks), timestep, about)

    @classmethod
    def _of(
        cls, atoms: MovingAtoms, chunks: Iterable[tuple[Chunk, bytes]], timestep: float, about: Mapping[str, Any]
    ) -> TrajectoryData:
        """Return an unstored trajectory of chunks and the contents of their files."""
        node = cls()
        entries: list[ChunkEntry] = []
        columns: set[str] = set()
        for chunk, data in chunks:
            entries.append(node._put(chunk, data, atoms, len(entries)))
            columns |= _filled(chunk)
        node._seal(atoms, timestep, entries, columns, Run.of(about))
        return node

    @classmethod
    def from_remote(
        cls,
        listing: str,
        remote: orm.RemoteData | orm.RemoteStashFolderData,
        atoms: MovingAtoms,
        timestep: float,
        closed: int | None = None,
        **about: Any,
    ) -> TrajectoryData:
        """Return an unstored trajectory whose chunks stay on the computer where they were made.

        A chunk is fetched when it is read, and refused when its SHA-256 is not the one of the list.

        :param listing: the text of `trajectory/chunks.json` of the run.
        :param remote: the folder of the job, or where its folder `trajectory` was stashed.
        :param closed: take so many of its chunks; None takes all.
        """
        columns, entries = parse_manifest(listing)
        place = remote.target_basepath if isinstance(remote, orm.RemoteStashFolderData) else remote.get_remote_path()
        node = cls()
        node.computer = remote.computer
        kept = [replace(entry, path=f'{place}/{FOLDER}/{entry.path}') for entry in _taken(entries, closed)]
        node._seal(atoms, timestep, kept, columns, Run.of(about))
        return node

    @classmethod
    def join(cls, parts: Iterable[TrajectoryData]) -> TrajectoryData:
        """Return an unstored trajectory of parts of one run, given in any order.

        A frame that both sides of a seam have counts once. Refused are parts with gaps or overlaps, of other atoms,
        another timestep, level, engine, ensemble or charge, and on several computers.
        """
        ordered = sorted(parts, key=_place_in_run)
        if not ordered:
            raise TrajectoryError('there are no trajectories to join.')
        run = ordered[0].run
        for part in ordered[1:]:
            _refuse_another(run, part.run)
        computers = {part.computer.uuid: part.computer for part in ordered if part.is_remote}
        if len(computers) > 1:
            names = ', '.join(sorted(computer.label for computer in computers.values()))
            raise TrajectoryError(f'chunks of the parts lie on several computers ({names}); a trajectory has one.')
        entries = join([part.trajectory for part in ordered])
        node = cls()
        for computer in computers.values():
            node.computer = computer
        used = {entry.name for entry in entries}
        for part in ordered:
            here = {_path_of(e): e.name for e in part.trajectory.entries if not e.path and e.name in used}
            adopt(node, here, lambda path, part=part: part.base.repository.open(path, 'rb'))  # type: ignore[misc]
        first = ordered[0].trajectory
        node._seal(first.atoms, first.timestep, entries, {c for p in ordered for c in p.trajectory.columns}, run)
        return node

    def _put(self, chunk: Chunk, data: bytes, atoms: MovingAtoms, number: int) -> ChunkEntry:
        """Check a chunk, write it into the repository and return its entry."""
        problem = chunk.problem(len(atoms))
        if problem is not None:
            raise TrajectoryError(f'chunk {number}: {problem}')
        entry = ChunkEntry.of(chunk, hashlib.sha256(data).hexdigest(), len(data))
        self.base.repository.put_object_from_filelike(io.BytesIO(data), _path_of(entry))
        return entry

    def _seal(
        self, atoms: MovingAtoms, timestep: float, entries: Sequence[ChunkEntry], columns: Iterable[str], run: Run
    ) -> None:
        """Write the atoms and the attributes; after this the node is complete."""
        buffer = io.BytesIO()
        atoms.write(buffer)
        buffer.seek(0)
        self.base.repository.put_object_from_filelike(buffer, ATOMS)
        self.base.attributes.set_many(_attributes(Trajectory(atoms, timestep, entries, columns, self._opening), run))
        self._sealed = copy.deepcopy(self.base.attributes.all)

    def _validate(self) -> bool:
        """Refuse to store what was not built by this class and is not what it says it is."""
        super()._validate()
        if getattr(self, '_sealed', None) == self.base.attributes.all:
            return True
        try:
            self._verify()
        except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
            raise StoringNotAllowed(f'This is not a complete trajectory: {error}') from error
        return True

    def _verify(self) -> None:
        """Read everything that is here and compare it with the attributes; what is remote is checked when read."""
        trajectory = self._read()
        is_remote = any(entry.path for entry in trajectory.entries)
        columns = set(trajectory.columns) if is_remote else set()
        for number, entry in enumerate(trajectory.entries):
            if not entry.path:
                columns |= _filled(self._checked_chunk(trajectory, number))
        found = Trajectory(trajectory.atoms, trajectory.timestep, trajectory.entries, columns, self._opening)
        expected = _attributes(found, self.run)
        wrong = sorted(key for key, value in expected.items() if self.base.attributes.get(key, None) != value)
        if wrong:
            raise TrajectoryError(f'the attributes {", ".join(wrong)} do not describe the frames.')

    def _checked_chunk(self, trajectory: Trajectory, number: int) -> Chunk:
        """Return a chunk of the repository, which has to be the one of the list."""
        entry = trajectory.entries[number]
        with self.base.repository.open(_path_of(entry), 'rb') as handle:
            if hashlib.file_digest(handle, 'sha256').hexdigest() != entry.name:
                raise TrajectoryError(f'the content of {_path_of(entry)} is not what its name says.')
        chunk = trajectory.chunk(number)
        problem = chunk.problem(trajectory.n_atoms)
        if problem is not None or chunk.digest != entry.digest:
            raise TrajectoryError(f'chunk {number}: {problem or "its frames are not those of its digest."}')
        return chunk

    # ------------------------------------------------------------------ reading

    @cached_property
    def trajectory(self) -> Trajectory:
        """The frames and rows, opened chunk by chunk."""
        return self._read()

    def _read(self) -> Trajectory:
        """Return what the attributes describe."""
        known = self.base.attributes.all
        with self.base.repository.open(ATOMS, 'rb') as handle:
            atoms = MovingAtoms.read(handle)
        entries = [ChunkEntry.from_dict(entry) for entry in known['chunks']]
        columns = {'steps', 'positions', 'cells'} if known['n_frames'] else set()
        columns |= {'velocities'} if known['has_velocities'] else set()
        columns |= {'thermo_steps', *(f'thermo_{name}' for name in known['thermo'])} if known['n_thermo'] else set()
        return Trajectory(atoms, known['timestep'], entries, columns, self._opening)

    @contextmanager
    def _opening(self) -> Iterator[Opener]:
        """Give what opens a chunk; a connection to the computer lasts as long."""
        with RemoteChunks(self.computer) as remote:
            yield lambda entry: remote.open(entry) if entry.path else self.base.repository.open(_path_of(entry), 'rb')

    def __len__(self) -> int:
        return int(self.base.attributes.get('n_frames', 0))

    @property
    def is_remote(self) -> bool:
        """Whether chunks lie on the computer of the node."""
        return bool(self.base.attributes.get('is_remote', False))

    @property
    def content_hash(self) -> str:
        """Hash of atoms, timestep, frames and rows: equal for equal runs, however these were cut into legs."""
        return str(self.base.attributes.get('content_hash', ''))

    @property
    def run(self) -> Run:
        """What is known of the run beside its frames."""
        known = self.base.attributes.all
        return Run.of({name: known.get(name, getattr(Run(), name)) for name in vars(Run())})

    def frame(self, index: int) -> Frame:
        """Return one frame with unwrapped positions, charge and spin of the run, and where it is from."""
        run = self.run
        group = run.group or str(self.base.attributes.get('formula'))
        fields = {'charge': run.charge, 'spin': run.spin, 'group': group, 'trajectory': self.content_hash[:16]}
        return self.trajectory.frame(index, **fields)

    def to_dataset(self, indices: Iterable[int]) -> DatasetData:
        """Return an unstored dataset of these frames, without labels, in this order."""
        return DatasetData.from_frames(self.frame(int(index)) for index in indices)

    def to_extxyz(self, path: str | Path, every: int = 1, dialect: Dialect = 'ase') -> Path:
        """Write each such frame as extended XYZ with unwrapped positions, one frame in memory at a time."""
        path = Path(path)
        with path.open('w', encoding='utf-8') as handle:
            write_extxyz((self.frame(index) for index in range(0, len(self), every)), handle, dialect)
        return path


def _taken(entries: Sequence[ChunkEntry], closed: int | None) -> Sequence[ChunkEntry]:
    """Return the chunks that a state knows of, or all of them."""
    if closed is not None and closed > len(entries):
        raise TrajectoryError(f'the list has {len(entries)} chunks, but the state knows of {closed}.')
    return entries[:closed]


def _read_checked(path: Path, entry: ChunkEntry) -> bytes:
    """Read a chunk of a folder, which has to be the one of the list."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise TrajectoryError(f'{path.name} is in the list of chunks, but not in {path.parent}.') from error
    if hashlib.sha256(data).hexdigest() != entry.name:
        raise TrajectoryError(
            f'{path.name} is not as it was written: its SHA-256 is not the one in the list of chunks.'
        )
    return data


def _bytes_of(chunk: Chunk) -> bytes:
    """Return a chunk as the content of its file."""
    buffer = io.BytesIO()
    chunk.write(buffer)
    return buffer.getvalue()


def _filled(chunk: Chunk) -> set[str]:
    """Return the columns of a chunk that have rows."""
    return {name for name, column in chunk.columns.items() if len(column)}


def _path_of(entry: ChunkEntry) -> str:
    """Return where a chunk lies in the repository."""
    return f'chunks/{entry.name}.npz'


def _place_in_run(part: TrajectoryData) -> tuple[int, int]:
    """Return where a part begins and ends, which orders the parts of a run."""
    trajectory = part.trajectory
    span = trajectory.span if trajectory.span.count else trajectory.thermo_span
    return span.first, span.last


def _refuse_another(run: Run, other: Run) -> None:
    """Refuse parts of different runs."""
    for name in vars(run):
        one, another = getattr(run, name), getattr(other, name)
        if one != another:
            raise TrajectoryError(
                f'the parts differ in their {name} ({one} and {another}); they are of different runs.'
            )


def _attributes(trajectory: Trajectory, run: Run) -> dict[str, Any]:
    """Return the attributes of a trajectory."""
    span, rows = trajectory.span, trajectory.thermo_span
    if not span.count and not rows.count:
        raise TrajectoryError('there are neither frames nor thermodynamic rows.')
    symbols = Counter(chemical_symbols[number] for number in trajectory.atoms.numbers)
    content = [
        trajectory.atoms.digest,
        trajectory.timestep,
        sum_of_digests(entry.digest for entry in trajectory.entries),
    ]
    return {
        'n_frames': span.count,
        'n_atoms': trajectory.n_atoms,
        'elements': sorted(symbols),
        'formula': str(Formula.from_dict(symbols).format('hill')),
        'timestep': float(f'{trajectory.timestep:.12g}'),
        'first_step': span.first if span.count else None,
        'last_step': span.last if span.count else None,
        'every': span.every,
        'duration_ps': float(f'{(span.last - span.first) * trajectory.timestep / 1000:.12g}'),
        'has_velocities': trajectory.has_velocities,
        'thermo': list(trajectory.thermo_names),
        'n_thermo': rows.count,
        **run.to_dict(),
        'n_bytes': sum({entry.name: entry.bytes for entry in trajectory.entries}.values()),
        'chunks': [entry.to_dict() for entry in trajectory.entries],
        'is_remote': any(entry.path for entry in trajectory.entries),
        'content_hash': hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    }
