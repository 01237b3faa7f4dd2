"""A stand-in for VASP, which is licensed: it reads the files of VASP and writes the files of VASP, and is not VASP.

Energies, forces and stresses are real ones of tight binding (GFN2-xTB by tblite at Γ), or, where tblite is absent, of
a made-up pair potential. What belongs to plane waves (ENCUT, k-points, ALGO) is accepted, given account of, and has no
effect. `SYSTEM` may ask for trouble, word by word:

* ``needs:TAG=VALUE``: the SCF cycle converges only where INCAR has this (numbers: at most this);
* ``steps:N``: it takes so many SCF steps; ``unconverged:N``: not in the N-th ionic step;
* ``wrong:TAG=VALUE``: this is what it says that it ran with; ``mute:TAG``: it says nothing of it;
* ``stop:N``: it dies in the N-th ionic step, having printed the text of the environment variable STAND_IN_WORDS;
* ``shift``: it computes another structure; ``garble``: its XML is broken; ``stars``: a force does not fit its field;
* ``huge``: an energy that no cell has; ``forget``: it does not write ML_ABN, ``tear``: only half of it;
* ``doubt:N``: it warns of the density in the N-th ionic step; ``strainless``: it computes no stress;
* ``pair``: the pair potential, also where tblite is there.

With IMAGES in INCAR it relaxes a band for real, as VASP with VTST does, by ASE. More words are for that:

* ``image:N``: what is said of ionic steps (``unconverged``, ``doubt``) and ``shift`` is said of this image alone;
* ``vanilla``: it was built without VTST, of which it says nothing; no atom moves then;
* ``wrong:TAG=VALUE`` also for the tags of VTST; ``lose:N``: it writes no OUTCAR of this image;
* ``wells``: both ends lie in wells of one depth with a barrier of 0.4 eV between them, see `Wells`;
* ``together``: all images write to one vasprun.xml at once, whose steps are nonsense.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.geometry import find_mic
from ase.neighborlist import neighbor_list

KILOBAR = 1602.1766208
DEFAULTS: dict[str, Any] = {
    'prec': 'Normal',
    'ediff': 1e-4,
    'ismear': 1,
    'sigma': 0.2,
    'gga': '--',
    'lhfcalc': False,
    'hfscreen': 0.0,
    'aexx': 0.0,
    'luse_vdw': False,
    'lasph': False,
    'lreal': False,
    'ispin': 1,
    'nupdown': -1,
    'nelm': 60,
    'nsw': 0,
    'ibrion': -1,
    'isif': 2,
    'potim': 0.5,
    'ediffg': -0.01,
    'isym': 2,
    'ldau': False,
    'algo': 'Normal',
    'icharg': 2,
}
OF_VTST = ('images', 'spring', 'lclimb', 'ichain', 'iopt', 'efirst', 'elast')
LEARNED = 3
"""Every third step of a run that learns on the fly is computed from first principles."""


class Pairs(Calculator):
    """A pair interacts by ε (1 - (r/R)²)³, which is smooth and zero at R; a charge shifts the energy."""

    implemented_properties = ('energy', 'free_energy', 'forces', 'stress')
    reach = 6.0

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = all_changes) -> None:
        """Compute everything."""
        super().calculate(atoms, properties, system_changes)
        numbers = self.atoms.numbers
        first, second, vectors = neighbor_list('ijD', self.atoms, self.reach)
        square = (vectors**2).sum(1) / self.reach**2
        scale = (numbers[first] + numbers[second]) / 100
        slope = -6 * scale * (1 - square) ** 2 / self.reach**2
        forces = np.zeros((len(numbers), 3))
        np.add.at(forces, first, slope[:, None] * vectors)
        tensor = 0.5 * np.einsum('p,pa,pb->ab', slope, vectors, vectors) / self.atoms.get_volume()
        energy = 0.5 * (scale * (1 - square) ** 3).sum() - 3.0 * numbers.sum() + 5.0 * self.parameters.get('charge', 0)
        self.results = {
            'energy': float(energy),
            'free_energy': float(energy),
            'forces': forces,
            'stress': tensor[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)],
        }


class Wells(Calculator):
    """Two structures are minima, and what lies straight between them a valley over a barrier of 0.4 eV."""

    implemented_properties = ('energy', 'free_energy', 'forces', 'stress')
    height, stiffness = 0.4, 5.0

    def __init__(self, first: Atoms, last: Atoms) -> None:
        super().__init__()
        self.first = first.positions
        self.way = find_mic(last.positions - first.positions, first.cell)[0]

    def calculate(self, atoms: Any = None, properties: Any = ('energy',), system_changes: Any = all_changes) -> None:
        """Compute everything, from how far along the way the atoms are and how far beside it."""
        super().calculate(atoms, properties, system_changes)
        away = find_mic(self.atoms.positions - self.first, self.atoms.cell)[0]
        square = (self.way**2).sum()
        place = 2 * (away * self.way).sum() / square - 1  # -1 and 1 at the ends
        beside = away - (place + 1) / 2 * self.way
        energy = self.height * (1 - place**2) ** 2 + 0.5 * self.stiffness * (beside**2).sum() - 100
        slope = -8 * self.height * (1 - place**2) * place
        forces = -slope * self.way / square - self.stiffness * beside
        self.results = {'energy': energy, 'free_energy': energy, 'forces': forces, 'stress': np.zeros(6)}


# ---------------------------------------------------------------------- what VASP reads


def read_incar() -> dict[str, Any]:
    """Return the tags in lower case."""
    tags = {}
    for line in Path('INCAR').read_text().splitlines():
        name, _, value = line.partition('=')
        if value:
            tags[name.strip().lower()] = convert(value.strip())
    return tags


def convert(text: str) -> Any:
    """Return a value of INCAR."""
    if text.upper() in ('.TRUE.', '.FALSE.', 'T', 'F'):
        return text.upper() in ('.TRUE.', 'T')
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def read_poscar(path: str = 'POSCAR') -> tuple[Atoms, list[str], list[int]]:
    """Return atoms, elements and how many there are of each."""
    lines = Path(path).read_text().splitlines()
    cell = float(lines[1]) * np.array([[float(part) for part in line.split()] for line in lines[2:5]])
    elements, counts = lines[5].split(), [int(part) for part in lines[6].split()]
    rows = np.array([[float(part) for part in line.split()[:3]] for line in lines[8 : 8 + sum(counts)]])
    symbols = [element for element, count in zip(elements, counts, strict=True) for _ in range(count)]
    place = {'d': 'scaled_positions', 'c': 'positions'}[lines[7].strip()[0].lower()]
    return Atoms(symbols, cell=cell, pbc=True, **{place: rows}), elements, counts


def read_potcar() -> list[tuple[str, float]]:
    """Return title and valence of each block."""
    text = Path('POTCAR').read_text()
    titles = [' '.join(title.split()) for title in re.findall(r'TITEL\s*=(.*)', text)]
    return list(zip(titles, map(float, re.findall(r'ZVAL\s*=\s*([\d.]+)', text)), strict=True))


def read_kpoints() -> tuple[list[int], list[float]]:
    """Return mesh and shift."""
    lines = Path('KPOINTS').read_text().splitlines()
    return [int(part) for part in lines[3].split()], [float(part) for part in lines[4].split()]


# ---------------------------------------------------------------------- the run


class Run:
    """One execution."""

    def __init__(self) -> None:
        self.incar = read_incar()
        self.wishes = str(self.incar.get('system', '')).split()
        self.tags = {**DEFAULTS, **self.incar}
        self.atoms, self.elements, self.counts = read_poscar()
        self.potcars = read_potcar()
        if len(self.potcars) != len(self.elements):
            sys.exit(' ERROR: number of potentials on File POTCAR incompatible with number of species')
        self.mesh, self.shift = read_kpoints()
        neutral = sum(count * valence for count, (_, valence) in zip(self.counts, self.potcars, strict=True))
        self.electrons = float(self.incar.get('nelect', neutral))
        self.charge = neutral - self.electrons
        self.atoms.calc = self.calculator()
        self.steps: list[dict[str, Any]] = []

    def wish(self, name: str) -> list[str]:
        """Return what is wished under a name."""
        return [word.partition(':')[2] for word in self.wishes if word.partition(':')[0] == name]

    def calculator(self) -> Any:
        """Return the calculator with charge and multiplicity."""
        try:
            from tblite.ase import TBLite
        except ImportError:
            return Pairs(charge=self.charge)
        if self.wish('pair'):
            return Pairs(charge=self.charge)
        multiplicity = int(self.tags['nupdown']) + 1 if self.tags['ispin'] == 2 and self.tags['nupdown'] >= 0 else None
        return TBLite(method='GFN2-xTB', charge=self.charge, multiplicity=multiplicity, verbosity=0)

    def scf_steps(self, ionic: int) -> int:
        """Return how many SCF steps a step takes; NELM where it does not converge."""
        limit = int(self.tags['nelm'])
        met = all(self.has(*need.split('=')) for need in self.wish('needs'))
        wanted = int((self.wish('steps') or ['12'])[0])
        if not met or str(ionic) in self.wish('unconverged'):
            return limit
        return min(wanted, limit)

    def has(self, tag: str, value: str) -> bool:
        """Whether INCAR has what is needed."""
        given, wanted = self.tags.get(tag.lower(), float('inf')), convert(value)
        if isinstance(wanted, str):
            return str(given).lower() == wanted.lower()
        return not isinstance(given, str) and given <= wanted

    def record(self, learned: bool = True) -> None:
        """Write down the step that the atoms are in."""
        ionic = len(self.steps) + 1
        if str(ionic) in self.wish('stop'):
            self.write_vasprun(complete=False)
            print(os.environ.get('STAND_IN_WORDS', ''), flush=True)
            os.kill(os.getpid(), 9)
        if str(ionic) in self.wish('doubt'):
            print(' BRMIX: very serious problems\n the old and the new charge density differ', flush=True)
        print(f'{ionic:4d} F= {self.atoms.get_potential_energy():.8E} E0= 0.0', flush=True)
        self.steps.append(
            {
                'energy': self.atoms.get_potential_energy() * (1e12 if self.wish('huge') else 1),
                'forces': self.atoms.get_forces(),
                'stress': self.atoms.get_stress(voigt=False),
                'cell': self.atoms.cell.array.copy(),
                'fractions': self.atoms.get_scaled_positions(wrap=True),
                'positions': self.atoms.get_positions(),
                'n_scf': self.scf_steps(ionic) if learned else 0,
            }
        )

    def go(self) -> None:
        """Compute what INCAR asks for."""
        if self.wish('shift'):
            self.atoms.positions[0] += 0.1
        moves = {2: self.relax, 1: self.relax, 0: self.move}
        if self.tags['nsw'] > 0 and self.tags['ibrion'] in moves:
            moves[self.tags['ibrion']]()
        else:
            self.record()
        self.write_vasprun()
        self.write_contcar()
        self.write_outcar()
        if self.tags.get('ml_lmlff') and not self.wish('forget'):
            self.write_ml_abn()

    def relax(self) -> None:
        """Relax the atoms, and the cell with ISIF = 3."""
        from ase.filters import FrechetCellFilter
        from ase.optimize import BFGS

        what = FrechetCellFilter(self.atoms) if self.tags['isif'] == 3 else self.atoms
        optimiser = BFGS(what, logfile=None)
        goal = abs(self.tags['ediffg'])
        for _ in optimiser.irun(fmax=goal, steps=self.tags['nsw'] - 1):
            self.record()

    def move(self) -> None:
        """Run molecular dynamics from velocities that the seed decides."""
        from ase import units
        from ase.md.langevin import Langevin
        from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
        from ase.md.verlet import VelocityVerlet

        rng = np.random.default_rng(int(str(self.tags.get('random_seed', '0')).split()[0]))
        kelvin, step = float(self.tags['tebeg']), float(self.tags['potim']) * units.fs
        MaxwellBoltzmannDistribution(self.atoms, temperature_K=kelvin, rng=rng)
        if self.tags.get('mdalgo') == 3:
            rate = float(str(self.tags['langevin_gamma']).split()[0]) / (1000 * units.fs)
            dynamics = Langevin(self.atoms, step, temperature_K=kelvin, friction=rate, rng=rng)
        else:
            dynamics = VelocityVerlet(self.atoms, step)
        for index, _ in enumerate(dynamics.irun(steps=self.tags['nsw'] - 1)):
            self.record(not self.tags.get('ml_lmlff') or index % LEARNED == 0)

    # ------------------------------------------------------------------ what VASP writes

    def write_vasprun(self, complete: bool = True) -> None:
        """Write vasprun.xml."""
        parts = [
            '<?xml version="1.0" encoding="ISO-8859-1"?>\n<modeling>\n <generator>',
            '  <i name="program" type="string">vasp </i>\n  <i name="version" type="string">0.0.0-stand-in  </i>',
            ' </generator>',
            self.xml_tags('incar', {tag: value for tag, value in self.incar.items() if tag not in OF_VTST}),
            self.xml_kpoints(),
            self.xml_parameters(),
            self.xml_atoms(),
            self.xml_structure('initialpos', self.atoms.cell.array, read_poscar()[0].get_scaled_positions(wrap=True)),
        ]
        parts += [self.xml_step(step, index == len(self.steps) - 1) for index, step in enumerate(self.steps)]
        if complete:
            last = self.steps[-1]
            parts += [self.xml_structure('finalpos', last['cell'], last['fractions']), '</modeling>\n']
        else:
            parts.append(' <calculation>\n  <scstep>\n   <time name="total">')
        if self.wish('garble'):
            parts.insert(-2, '</nonsense>')
        Path('vasprun.xml').write_text('\n'.join(parts))

    def xml_tags(self, name: str, tags: dict[str, Any]) -> str:
        """Return tags as VASP writes them."""
        words = {bool: 'logical', int: 'int', str: 'string'}
        rows = []
        for tag, value in tags.items():
            if tag in self.wish('mute'):
                continue
            text = 'T' if value is True else 'F' if value is False else value
            text = f'{value:.8f}' if isinstance(value, float) else text
            kind = f' type="{words[type(value)]}"' if type(value) in words else ''
            rows.append(f'  <i{kind} name="{tag.upper()}"> {text} </i>')
        return '\n'.join([f' <{name}>', *rows, f' </{name}>'])

    def xml_parameters(self) -> str:
        """Return what it says that it ran with."""
        hidden = ('encut', 'system', 'metagga', 'ediff', 'algo', *OF_VTST)
        tags = {tag: value for tag, value in self.tags.items() if tag not in hidden}
        tags |= {'enmax': float(self.tags.get('encut', 300.0)), 'ediff': float(self.tags['ediff'])}
        tags |= {
            'nelect': self.electrons,
            'nbands': int(self.electrons // 2) + 4,
            'prec': self.tags['prec'].lower()[:6],
        }
        for wrong in self.wish('wrong'):
            tag, _, value = wrong.partition('=')
            tags[tag] = convert(value)
        rows = self.xml_tags('parameters', tags).splitlines()
        return '\n'.join([rows[0], '  <separator name="electronic" >', *rows[1:-1], '  </separator>', rows[-1]])

    def xml_kpoints(self) -> str:
        """Return the mesh, and Γ for all of its points."""
        return '\n'.join(
            [
                ' <kpoints>\n  <generation param="Gamma">',
                f'   <v type="int" name="divisions"> {" ".join(map(str, self.mesh))} </v>',
                f'   <v name="usershift"> {" ".join(f"{part:.8f}" for part in self.shift)} </v>',
                '   <v name="genvec1"> 1.0 0.0 0.0 </v>\n   <v name="genvec2"> 0.0 1.0 0.0 </v>',
                '   <v name="genvec3"> 0.0 0.0 1.0 </v>\n   <v name="shift"> 0.0 0.0 0.0 </v>\n  </generation>',
                '  <varray name="kpointlist" >\n   <v> 0.0 0.0 0.0 </v>\n  </varray>',
                '  <varray name="weights" >\n   <v> 1.0 </v>\n  </varray>\n </kpoints>',
            ]
        )

    def xml_atoms(self) -> str:
        """Return atoms and POTCARs."""
        kinds = list(zip(self.elements, self.counts, self.potcars, strict=True))
        atoms = [
            f'    <rc><c>{element:2s}</c><c>   {index}</c></rc>'
            for index, (element, count, _) in enumerate(kinds, 1)
            for _ in range(count)
        ]
        types = [
            f'    <rc><c> {count:3d}</c><c>{element:2s}</c><c> 1.0</c><c> {valence:.8f}</c><c> {title} </c></rc>'
            for element, count, (title, valence) in kinds
        ]
        return '\n'.join(
            [
                f' <atominfo>\n  <atoms> {len(atoms)} </atoms>\n  <types> {len(types)} </types>',
                '  <array name="atoms" >\n   <dimension dim="1">ion</dimension>',
                '   <field type="string">element</field>',
                '   <field type="int">atomtype</field>\n   <set>',
                *atoms,
                '   </set>\n  </array>\n  <array name="atomtypes" >\n   <dimension dim="1">type</dimension>\n   <set>',
                *types,
                '   </set>\n  </array>\n </atominfo>',
            ]
        )

    def xml_structure(self, name: str, cell: Any, fractions: Any) -> str:
        """Return a structure."""
        named = f' name="{name}"' if name else ''
        volume = abs(np.linalg.det(cell))
        return '\n'.join(
            [
                f' <structure{named}>\n  <crystal>',
                self.xml_rows('basis', cell),
                f'   <i name="volume"> {volume:.8f} </i>',
                self.xml_rows('rec_basis', np.linalg.inv(cell).T),
                '  </crystal>',
                self.xml_rows('positions', fractions),
                ' </structure>',
            ]
        )

    def xml_rows(self, name: str, rows: Any) -> str:
        """Return an array of three columns."""
        body = ['   <v> ' + ' '.join(f'{value:16.8f}' for value in row) + ' </v>' for row in rows]
        if name == 'forces' and self.wish('stars'):
            body[0] = '   <v> **************** 0.0 0.0 </v>'
        return '\n'.join([f'  <varray name="{name}" >', *body, '  </varray>'])

    def xml_step(self, step: dict[str, Any], is_last: bool) -> str:
        """Return one ionic step; the energy of the SCF cycle approaches the last one."""
        energy, entropy = step['energy'], -0.001
        time = '   <time name="total"> 0.50 0.50</time>\n'
        scf = [
            f'  <scstep>\n{time}{self.xml_energy(energy + 2.0**-left, entropy)}  </scstep>'
            for left in range(step['n_scf'] - 1, -1, -1)
        ]
        rows = [
            self.xml_structure('', step['cell'], step['fractions']),
            self.xml_rows('forces', step['forces']),
            '' if self.wish('strainless') else self.xml_rows('stress', -KILOBAR * step['stress']),
            self.xml_energy(energy, entropy),
            '  <time name="totalsc"> 6.00 6.00</time>',
            self.xml_bands() if is_last else '',
        ]
        return '\n'.join([' <calculation>', *scf, *rows, ' </calculation>'])

    def xml_energy(self, energy: float, entropy: float) -> str:
        """Return free energy, energy without entropy, and the one that is extrapolated to no smearing."""
        values = {'e_fr_energy': energy, 'e_wo_entrp': energy - entropy, 'e_0_energy': energy - entropy / 2}
        rows = [f'   <i name="{name}"> {value:.8f} </i>' for name, value in values.items()]
        return '\n'.join(['  <energy>', *rows, '  </energy>\n'])

    def xml_bands(self) -> str:
        """Return made-up bands with a gap of 1.5 eV."""
        filled = max(1, int(self.electrons // 2))
        levels = [(-0.1 * index, 1.0) for index in range(filled - 1, -1, -1)]
        levels += [(1.5 + 0.1 * index, 0.0) for index in range(4)]
        rows = [f'       <r> {energy:.4f} {occupation:.4f} </r>' for energy, occupation in levels]
        spins = [
            '\n'.join(
                [
                    f'     <set comment="spin {spin}">\n      <set comment="kpoint 1">',
                    *rows,
                    '      </set>\n     </set>',
                ]
            )
            for spin in range(1, int(self.tags['ispin']) + 1)
        ]
        return '\n'.join(
            [
                '  <eigenvalues>\n   <array>\n    <dimension dim="1">band</dimension>',
                '    <field>eigene</field>\n    <set>',
                *spins,
                '    </set>\n   </array>\n  </eigenvalues>',
                '  <dos>\n   <i name="efermi"> 0.5 </i>\n  </dos>',
            ]
        )

    def write_contcar(self) -> None:
        """Write CONTCAR."""
        last = self.steps[-1]
        lines = ['stand-in', '1.0', *(' '.join(f'{part:.16f}' for part in row) for row in last['cell'])]
        lines += [' '.join(self.elements), ' '.join(map(str, self.counts)), 'Direct']
        lines += [' '.join(f'{part:.16f}' for part in row) for row in last['fractions']]
        Path('CONTCAR').write_text('\n'.join(lines) + '\n')

    def outcar_tags(self) -> list[str]:
        """Return the tags that aiida-vasp looks for."""
        return [
            f'   NELM   = {self.tags["nelm"]}; NELMIN= 2',
            f'   NSW    = {self.tags["nsw"]}    number of steps for IOM',
            f'   IBRION = {self.tags["ibrion"]}    ionic relax',
        ]

    def write_outcar(self) -> None:
        """Write OUTCAR."""
        lines = [' vasp.0.0.0 stand-in, which is not VASP', *self.outcar_tags()]
        for ionic, step in enumerate(self.steps, 1):
            lines += [f'---- Iteration {ionic:6d}({scf:4d})  ----' for scf in range(1, max(2, step['n_scf'] + 1))]
        lines += [
            ' General timing and accounting informations for this job:',
            '                  Total CPU time used (sec):        6.000',
            '                         Elapsed time (sec):        6.000',
        ]
        Path('OUTCAR').write_text('\n'.join(lines) + '\n')

    def write_ml_abn(self) -> None:
        """Write what was given as ML_AB and the steps that were computed from first principles."""
        before = Path('ML_AB').read_text() if Path('ML_AB').is_file() else ''
        old = re.split(r'\*{50}\n     Configuration num\.\s+\d+\n', before)[1:]
        new = [self.configuration(step) for step in self.steps if step['n_scf']]
        body = [part.rstrip('\n') + '\n' for part in old] + new
        stars, line = '*' * 50, '-' * 50
        kinds = ['     ' + '  '.join(self.elements[i : i + 3]) for i in range(0, len(self.elements), 3)]
        text = f' 1.0 Version\n{stars}\n     The number of configurations\n{line}\n     {len(body)}\n{stars}\n'
        text += f'     The maximum number of atom type\n{line}\n     {len(self.elements)}\n{stars}\n'
        text += f'     The atom types in the data file\n{line}\n' + '\n'.join(kinds) + '\n'
        for index, part in enumerate(body, 1):
            text += f'{stars}\n     Configuration num. {index:6d}\n{part}'
        if self.wish('tear'):
            text = text[: len(text) - 400]
        Path('ML_ABN').write_text(text)

    def configuration(self, step: dict[str, Any]) -> str:
        """Return one configuration behind its title."""
        equals, line, stars = '=' * 50, '-' * 50, '*' * 50
        tensor = -KILOBAR * step['stress']

        def rows(values: Any) -> str:
            return '\n'.join('  ' + ' '.join(f'{value:.15E}' for value in row) for row in values)

        kinds = '\n'.join(f'     {element} {count}' for element, count in zip(self.elements, self.counts, strict=True))
        blocks = [
            ('System name', f'     {chemical_symbols[0]} stand-in'),
            ('The number of atom types', f'     {len(self.elements)}'),
            ('The number of atoms', f'     {sum(self.counts)}'),
        ]
        text = ''.join(f'{equals}\n     {title}\n{line}\n{content}\n' for title, content in blocks)
        text += f'{stars}\n     Atom types and atom numbers\n{line}\n{kinds}\n'
        blocks = [
            ('CTIFOR', '  2.0000000000000000E-003'),
            ('Primitive lattice vectors (ang.)', rows(step['cell'])),
            ('Atomic positions (ang.)', rows(step['positions'])),
            ('Total energy (eV)', f'  {step["energy"]:.15E}'),
            ('Forces (eV ang.^-1)', rows(step['forces'])),
        ]
        text += ''.join(f'{equals}\n     {title}\n{line}\n{content}\n' for title, content in blocks)
        diagonal = rows([[tensor[0, 0], tensor[1, 1], tensor[2, 2]]])
        others = rows([[tensor[0, 1], tensor[1, 2], tensor[2, 0]]])
        text += (
            f'{equals}\n     Stress (kbar)\n{line}\n     XX YY ZZ\n{line}\n{diagonal}\n{line}\n     XY YZ ZX\n{line}\n'
        )
        return text + others + '\n'


# ---------------------------------------------------------------------- a band


class BandRun(Run):
    """One execution of a band."""

    def calculator(self) -> Any:
        """Return the calculator of an image."""
        if not self.wish('wells'):
            return super().calculator()
        return Wells(*(read_poscar(f'{index:02d}/POSCAR')[0] for index in (0, self.tags['images'] + 1)))

    def go(self) -> None:
        """Relax the band, and write what there is of each image."""
        count = int(self.tags['images'])
        self.band = [read_poscar(f'{index:02d}/POSCAR')[0] for index in range(count + 2)]
        self.of_images: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        if self.wish('shift'):
            self.band[int((self.wish('image') or ['1'])[0])].positions[0] += 0.1
        is_vanilla = bool(self.wish('vanilla'))
        for _ in self.stand_still() if is_vanilla else self.relax_band():
            self.record_images()
        self.write_images()

    def stand_still(self) -> Any:
        """Do what VASP alone does with IBRION = 3 and POTIM = 0."""
        for image in self.band[1:-1]:
            image.calc = self.calculator()
        self.forces = None
        yield from range(min(2, int(self.tags['nsw'])))

    def relax_band(self) -> Any:
        """Relax the band with energies of the ends from INCAR, as these are not computed."""
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.mep import NEB
        from ase.optimize import BFGS

        for image in self.band[1:-1]:
            image.calc = self.calculator()
        for end, tag in ((self.band[0], 'efirst'), (self.band[-1], 'elast')):
            end.calc = SinglePointCalculator(end, energy=float(self.tags[tag]), forces=np.zeros((len(end), 3)))
        springs = -float(self.tags['spring'])
        band = NEB(self.band, k=springs, climb=self.tags['lclimb'], method='improvedtangent')
        optimiser = BFGS(band, logfile=None, maxstep=0.05)
        for done in optimiser.irun(fmax=-self.tags['ediffg'], steps=self.tags['nsw'] - 1):
            self.forces = band.get_forces().reshape(len(self.band) - 2, -1, 3)
            yield done

    def concerns(self, index: int) -> bool:
        """Whether what is wished of a step is wished of this image, counted from 0."""
        return self.wish('image') in ([], [str(index + 1)])

    def record_images(self) -> None:
        """Write down the step that all images are in."""
        ionic = len(self.of_images[0]) + 1
        if str(ionic) in self.wish('stop'):
            self.write_images(complete=False)
            print(os.environ.get('STAND_IN_WORDS', ''), flush=True)
            os.kill(os.getpid(), 9)
        for index, (steps, atoms) in enumerate(zip(self.of_images, self.band[1:-1], strict=True)):
            is_doubted = str(ionic) in self.wish('doubt') and self.concerns(index)
            words = ' BRMIX: very serious problems\n' if is_doubted else ''
            self.say(index, f'{words}{ionic:4d} F= {atoms.get_potential_energy():.8E} E0= 0.0\n')
            steps.append(
                {
                    'energy': atoms.get_potential_energy() * (1e12 if self.wish('huge') else 1),
                    'forces': atoms.get_forces(),
                    'stress': atoms.get_stress(voigt=False),
                    'cell': atoms.cell.array.copy(),
                    'fractions': atoms.get_scaled_positions(wrap=True),
                    'band': None if self.forces is None else self.forces[index],
                    'n_scf': self.scf_steps(ionic) if self.concerns(index) else 12,
                }
            )

    def say(self, index: int, words: str) -> None:
        """Print what VASP prints of an image, counted from 0: that of the first to its output, others to files."""
        if index == 0:
            print(words, end='', flush=True)
            return
        with Path(f'{index + 1:02d}/stdout').open('a') as handle:
            handle.write(words)

    def write_images(self, complete: bool = True) -> None:
        """Write one vasprun.xml, and an OUTCAR of each image."""
        self.steps = self.of_images[0]
        self.write_vasprun(complete and bool(self.steps))
        if self.wish('together'):
            text = Path('vasprun.xml').read_text().replace('<scstep>', '<calculation>', 1)
            Path('vasprun.xml').write_text(text)
        for index, steps in enumerate(self.of_images, 1):
            if str(index) not in self.wish('lose'):
                text = self.vtst_head() + ''.join(self.outcar_step(*step) for step in enumerate(steps, 1))
                end = ' General timing and accounting informations for this job:\n' if complete else ''
                Path(f'{index:02d}/OUTCAR').write_text(text + end)

    def vtst_head(self) -> str:
        """Return what VTST says in front of the first step."""
        if self.wish('vanilla'):
            return ' vasp.0.0.0 stand-in, which is not VASP\n'
        tags = {**self.tags, **{k: convert(v) for k, _, v in (word.partition('=') for word in self.wish('wrong'))}}
        climbs = 'T' if tags['lclimb'] else 'F'
        lines = [
            ' vasp.0.0.0 stand-in, which is not VASP',
            ' VTST: version 0.0, (stand-in)\n\n CHAIN: initializing optimizer\n',
            f' OPT: Using {"LBFGS" if tags["iopt"] == 1 else "other"} optimizer',
            f' OPT: LBFGS, IMAGES {tags["images"]:14d}\n',
            f' CHAIN: Read ICHAIN {tags["ichain"]:12d}\n CHAIN: Running the NEB',
            f' NEB:          SPRING {float(tags["spring"]):13.6f}\n NEB:          LCLIMB      {climbs}',
            f' NEB:          EFIRST {tags["efirst"]:13.6f}\n NEB:           ELAST {tags["elast"]:13.6f}\n',
        ]
        lines += [f'   number of dos      NEDOS =    301   number of ions     NIONS = {len(self.atoms):6d}']
        return '\n'.join([*lines, *self.outcar_tags(), ''])

    def outcar_step(self, ionic: int, step: dict[str, Any]) -> str:
        """Return one step of an image."""
        rule, inverse = ' ' + '-' * 83, np.linalg.inv(step['cell'])
        lines = [
            f'{"-" * 39} Iteration {ionic:6d}({scf:4d})  {"-" * 39}\n  free energy    TOTEN  =        -1.00000000 eV'
            for scf in range(1, step['n_scf'] + 1)
        ]
        lines += [' VOLUME and BASIS-vectors are now :', '      direct lattice vectors                 reciprocal']
        vectors = np.hstack([step['cell'], inverse.T])
        lines += ['    ' + ' '.join(f'{part:12.9f}' for part in row) for row in vectors]
        lines += ['', ' POSITION                                       TOTAL-FORCE (eV/Angst)', rule]
        rows = np.hstack([step['fractions'] @ step['cell'], step['forces']])
        body = [
            ''.join(f'{part:13.5f}' for part in row[:3]) + ''.join(f'{part:14.6f}' for part in row[3:]) for row in rows
        ]
        if self.wish('stars'):
            body[0] = body[0][:39] + '*' * 14 + body[0][53:]
        lines += [*body, rule, f'  free  energy   TOTEN  = {step["energy"]:18.8f} eV', '']
        lines += [f'  energy  without entropy={step["energy"]:18.8f}  energy(sigma->0) ={step["energy"]:18.8f}', '']
        if step['band'] is not None:
            largest = np.linalg.norm(step['band'], axis=1).max()
            lines += [f'  FORCES: max atom, RMS {largest:12.6f} {0.0:11.6f}']
        return '\n'.join([*lines, ''])


if __name__ == '__main__':
    print(' vasp.0.0.0 stand-in, which is not VASP', flush=True)
    (BandRun() if 'images' in read_incar() else Run()).go()
    print(' reached required accuracy', flush=True)
