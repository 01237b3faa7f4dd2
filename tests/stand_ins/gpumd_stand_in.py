"""A stand-in for `gpumd`, which needs a GPU: it reads and writes the same files, and its atoms fly on without forces.

`GPUMD_STAND_IN` says in words how it is: `old` as before `dump_xyz` was changed, `headers` as since `thermo.out` has
them, `slow`, or how to misbehave.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np

GPA = 160.2177
KB = 8.617333e-5
WAYS = set(os.environ.get('GPUMD_STAND_IN', '').split())
SWELLS = 1e-4
"""Part by which the cell grows in a step of a barostat."""


def refuse(text: str) -> None:
    """End as GPUMD does where its input is wrong."""
    print(f'Input Error:\n    File:       run.cu\n    Line:       1\n    Error text: {text}', file=sys.stderr)
    sys.exit(1)


class Machine:
    """The state of the simulation."""

    def __init__(self) -> None:
        lines = Path('model.xyz').read_text().splitlines()
        text = lines[1].split('"')
        assert text[0] == 'pbc='
        assert text[2].strip() == 'Lattice='
        self.cell = np.array(text[3].split(), dtype=float).reshape(3, 3)
        assert text[4].strip().startswith('Properties=species:S:1:pos:R:3:mass:R:1:vel:R:3')
        rows = [line.split() for line in lines[2:]]
        assert len(rows) == int(lines[0])
        self.symbols = [row[0] for row in rows]
        numbers = np.array([row[1:8] for row in rows], dtype=float)
        self.positions, self.masses, self.velocities = numbers[:, :3], numbers[:, 3], numbers[:, 4:]
        self.groups = np.array([int(row[8]) for row in rows]) if len(rows[0]) > 8 else None
        self.time, self.timestep, self.ensemble = 0.0, 1.0, 'nve'
        self.thermo, self.dumps, self.fixed = None, [], None

    def obey(self, words: list[str]) -> None:
        """Follow one line of the input."""
        keyword, *given = words
        if keyword == 'potential':
            assert Path(given[0]).is_file()
        elif keyword == 'velocity':
            assert float(given[0]) > 0
        elif keyword == 'time_step':
            self.timestep = float(given[0])
        elif keyword == 'ensemble':
            self.ensemble = given[0]
        elif keyword == 'dump_thermo':
            self.thermo = int(given[0])
        elif keyword == 'fix':
            self.fixed = int(given[0])
        elif keyword == 'dump_xyz':
            self.dumps.append(old_dump(given) if 'old' in WAYS else new_dump(given))
        elif keyword == 'run':
            self.run(int(given[0]))
        else:
            refuse(f"'{keyword}' is an invalid keyword.")

    def run(self, steps: int) -> None:
        """Move the atoms, and forget what holds for one run alone."""
        if 'headers' in WAYS and self.thermo:
            names = 'T KE PE sxx syy szz syz sxz sxy ax ay az bx by bz cx cy cz'
            with Path('thermo.out').open('a') as handle:
                handle.write(f'# format_version 1\n# num_atoms {len(self.symbols)}\n')
                handle.write(f'# dt_output {self.thermo * self.timestep} fs\n# columns {names}\n')
        for step in range(1, steps + 1):
            self.move()
            if self.thermo and step % self.thermo == 0:
                self.write_row(step)
            for interval, name, has_velocities in self.dumps:
                if step % interval == 0:
                    self.write_frame(Path(f'{name.removesuffix("*")}{step}'), has_velocities)
            if 'slow' in WAYS and step % 100 == 0:
                time.sleep(0.1)
            if 'crash' in WAYS and self.time > 300:
                print('CUDA Error:\n    File:       nep.cu\n    Line:       9\n    Error code: 700\n'
                      '    Error text: an illegal memory access was encountered', file=sys.stderr)  # fmt: skip
                sys.exit(1)
            if 'silent' in WAYS and self.time > 300:
                sys.exit(0)
        self.thermo, self.dumps, self.fixed = None, [], None

    def move(self) -> None:
        """Do one step."""
        free = np.ones(len(self.symbols)) if self.fixed is None else (self.groups != self.fixed).astype(float)
        if 'leap' in WAYS and self.time > 100:
            self.positions[0] += 0.45 * self.cell[0]
        self.positions = self.positions + self.timestep * self.velocities * free[:, None]
        if self.ensemble.startswith('npt') and self.timestep > 1e-3:
            self.cell, self.positions = (1 + SWELLS) * self.cell, (1 + SWELLS) * self.positions
        self.time += self.timestep

    def write_row(self, step: int) -> None:
        """Append a row of thermodynamics."""
        kinetic = 0.5 * float((self.masses[:, None] * (self.velocities * 1000) ** 2).sum()) * 1.03642697e-4
        temperature = kinetic / (1.5 * len(self.symbols) * KB)
        if 'hot' in WAYS and self.time > 300:
            temperature = 1e6
        if 'nan' in WAYS and self.time > 300:
            temperature = float('nan')
        row = [temperature, kinetic, -float(len(self.symbols)), 0.1, 0.2, 0.3, 0.01, 0.02, 0.03]
        is_bare = not (self.cell - np.diag(np.diag(self.cell))).any() and 'headers' not in WAYS
        row += list(np.diag(self.cell)) if is_bare else list(self.cell.reshape(-1))
        with Path('thermo.out').open('a') as handle:
            handle.write(''.join(f'{value:20.10e}' for value in row) + '\n')
            if 'more' in WAYS:
                handle.write(''.join(f'{value:20.10e}' for value in row) + '\n')

    def write_frame(self, path: Path, has_velocities: bool) -> None:
        """Write all atoms, wrapped into the cell."""
        places = self.positions @ np.linalg.inv(self.cell)
        wrapped = (places - np.floor(places)) @ self.cell
        lattice = ' '.join(f'{value:.8f}' for value in self.cell.reshape(-1))
        velocities = ':vel:R:3' if has_velocities else ''
        moment = self.time if 'late' not in WAYS else self.time + 7 * self.timestep
        symbols = ['Xe' if 'others' in WAYS else symbol for symbol in self.symbols]
        lines = [str(len(symbols)), f'Time={moment:.8f} pbc="T T T" Lattice="{lattice}" energy=-1.0 '
                                    f'Properties=species:S:1:pos:R:3{velocities}']  # fmt: skip
        for symbol, place, velocity in zip(symbols, wrapped, self.velocities, strict=True):
            numbers = [*place, *(velocity if has_velocities else [])]
            lines.append(' '.join([symbol, *(f'{value:.17g}' for value in numbers)]))
        path.write_text('\n'.join(lines) + '\n')


def new_dump(given: list[str]) -> tuple[int, str, bool]:
    """Read `dump_xyz` as it is now."""
    if len(given) > 2 and given[1].isdigit():
        refuse('dump_xyz no longer takes <grouping_method> <group_id> as its first two parameters.')
    assert given[2:4] == ['precision', 'double']
    return int(given[0]), given[1], 'velocity' in given


def old_dump(given: list[str]) -> tuple[int, str, bool]:
    """Read `dump_xyz` as it was."""
    if int(given[0]) >= 0:
        refuse('grouping method exceeds the bound.')
    return int(given[2]), given[3], 'velocity' in given


def main() -> None:
    """Do as `gpumd` does."""
    print('*                 Welcome to use GPUMD                        *')
    print('*                    version 5.5                              *', flush=True)
    machine = Machine()
    for line in Path('run.in').read_text().splitlines():
        if words := line.split('#')[0].split():
            machine.obey(words)
    print('Finished running GPUMD.')


if __name__ == '__main__':
    main()
