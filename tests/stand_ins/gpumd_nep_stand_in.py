"""A stand-in for GPUMD's `nep`, which needs a GPU: it reads and writes the same files, and learns nothing.

`NEP_STAND_IN` says how to misbehave. Under a Python with calorine it writes the forces that its potential really has.
"""

import math
import os
import sys
import time
from pathlib import Path

KEYWORDS = {
    *('version', 'type', 'zbl', 'cutoff', 'n_max', 'basis_size', 'l_max', 'neuron', 'batch', 'population'),
    *('lambda_1', 'lambda_2', 'lambda_e', 'lambda_f', 'lambda_v', 'generation', 'fine_tune', 'import_q_scaler'),
}


def main() -> int:
    """Do as `nep` does."""
    way = os.environ.get('NEP_STAND_IN', '')
    given = {words[0]: words[1:] for line in Path('nep.in').read_text().splitlines() if (words := line.split())}
    unknown = sorted(set(given) - KEYWORDS)
    if unknown:
        print(f'Input Error:\n    Error text: {unknown[0]} is an invalid keyword.')
        return 1
    report(given)
    size, n_scales = sizes(given)
    restart = Path('nep.restart')
    centre = [float(line.split()[0]) for line in restart.read_text().splitlines()] if restart.exists() else None
    assert centre is None or len(centre) == size, 'Reading error for nep.restart.'
    print(f'Started from {"nep.restart" if centre else "nothing"}.')
    values = centre or [0.3 * math.sin(7.3 * index) for index in range(size)]
    scales = ['1.0'] * n_scales
    if given.get('import_q_scaler') == ['1']:
        scales = Path('nep.txt').read_text().split('\n')[-n_scales - 1 : -1]
    generations = int(given['generation'][0])
    for generation in range(100, generations + 1, 100):
        if way == 'crash' and generation == 300:
            print('CUDA Error: an illegal memory access was encountered', flush=True)
            return 1
        write(given, values, scales)
        restart.write_text(''.join(f'{value:15.7e} {0.01:15.7e}\n' for value in values))
        loss = math.nan if way == 'diverge' else 10.0 / generation
        test = 0.2 if Path('test.xyz').exists() else 0.0
        with Path('loss.out').open('a') as handle:
            handle.write(f'{generation:<8d}{loss:<11.5f}{0.1:<11.5f}{0.1:<11.5f}{0.01:<13.5f}{0.1:<13.5f}{0.02:<13.5f}')
            handle.write(f'{test / 10:<13.5f}{test:<13.5f}{test / 5:<13.5f}\n')
        if way == 'slow':
            time.sleep(0.2)
    if Path('test.xyz').exists():
        forces()
    print('Finished running nep.' if way != 'silent' else '')
    return 0


def report(given: dict) -> None:
    """Print the settings as GPUMD does."""
    print('Input or default parameters:')
    for name in ('e', 'f', 'v'):
        print(f'    (input)   lambda_{name} = {float(given[f"lambda_{name}"][0]):g}.')
    print(f'    (input)   batch size = {given["batch"][0]}.')
    print(f'    (input)   population size = {given["population"][0]}.')
    print(f'    (input)   maximum number of generations = {given["generation"][0]}.', flush=True)


def sizes(given: dict) -> tuple:
    """Return the numbers of parameters and of descriptors."""
    n_max, basis, degrees = ([int(word) for word in given[name]] for name in ('n_max', 'basis_size', 'l_max'))
    n_types, neurons = int(given['type'][0]), int(given['neuron'][0])
    dimension = n_max[0] + 1 + (n_max[1] + 1) * (degrees[0] + (degrees[1] > 0) + (degrees[2] > 0))
    pairs = sum((n + 1) * (b + 1) for n, b in zip(n_max, basis, strict=True))
    return n_types * (dimension + 2) * neurons + 1 + n_types**2 * pairs, dimension


def write(given: dict, values: list, scales: list) -> None:
    """Write nep.txt."""
    outer = given.get('zbl')
    lines = [f'nep4{"_zbl" if outer else ""} {" ".join(given["type"])}']
    lines += [f'zbl {float(outer[0]) / 2:g} {outer[0]}'] if outer else []
    lines += [f'cutoff {" ".join(given["cutoff"])} 200 100']
    lines += [f'{name} {" ".join(given[name])}' for name in ('n_max', 'basis_size', 'l_max')]
    lines += [f'ANN {given["neuron"][0]} 0', *(f'{value:15.7e}' for value in values), *scales]
    Path('nep.txt').write_text('\n'.join(lines) + '\n')


def forces() -> None:
    """Write what the potential gives for the test frames, where calorine is there to tell."""
    try:
        from ase.io import read
        from calorine.calculators import CPUNEP
    except ImportError:
        return
    with Path('force_test.out').open('w') as handle:
        for atoms in read('test.xyz', ':'):
            labels = atoms.arrays['force']
            atoms.calc = CPUNEP('nep.txt')
            for ours, theirs in zip(atoms.get_forces(), labels, strict=True):
                handle.write(' '.join(f'{value:g}' for value in (*ours, *theirs)) + '\n')


if __name__ == '__main__':
    sys.exit(main())
