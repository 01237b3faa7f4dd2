"""The program that trains with neppo in a process of its own: `python -m … request.json` in the run directory.

neppo cannot take up a training: a second run in its directory starts anew and puts its best potential over that of the
first. Here every report saves a state (parameters, moments of the optimiser, random numbers, place in the schedule, the
best potential so far), so that a run which goes on from it does what it would have done without the interruption.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiida_perovmlip.compute.architectures.nep.inputs import FILES, NEP_IN
from aiida_perovmlip.compute.checkpoint import Checkpoint, State

REQUEST = 'neppo.json'
PARENT = 'parent.txt'
CURVE = 'training.jsonl'
"""One report a line, appended as the training goes on."""

EFFECTIVE = 'effective.json'
ARRAYS = 'state.npz'
LAST, BEST = 'nep.txt', 'nep_best.txt'
VERSION = '1.0'
NEEDED = ('_report', '_next_batch', '_get_learning_rate', '_reset_optimizer_state', '_get_loss_settings')
"""What this program uses of neppo beyond its documentation."""

DIVERGED = 3
"""Exit status where the loss is no longer a finite number."""

STOPPED = 4
"""Exit status after a signal that asked to stop; the state was saved."""


class StopError(Exception):
    """The training ends before its last step; `args` holds the exit status."""


def main(path: str) -> int:
    """Do what the request says."""
    request = json.loads(Path(path).read_text())
    checkpoint = Checkpoint(Path(request['checkpoint']), request['identity'], request['settings'])
    try:
        trainer = _trainer(request, checkpoint)
        state = checkpoint.state()
        if state is not None:
            trainer.restore(state)
        for steps in pieces_of(trainer.n_steps, trainer.wanted, request['report_every']):
            trainer.train(steps, report_interval=request['report_every'])
    except StopError as stop:
        return int(stop.args[0])
    trainer.deliver()
    return 0


def pieces_of(done: int, wanted: int, interval: int) -> list[int]:
    """Return the steps up to the next report that a training in one piece would make, and all those after it.

    A report shifts the energies of the potential, so that reports at other steps would give another one.
    """
    first = min(-done % interval, wanted - done)
    return [steps for steps in (first, wanted - done - first) if steps > 0]


def _trainer(request: Mapping[str, Any], checkpoint: Checkpoint) -> Any:
    """Return the trainer of a run directory, as `neppo train` would make it, or that of a parent."""
    import neppo
    import torch
    from ase.io import read
    from neppo.nep_in import get_loss, get_model, get_stages, read_nep_in

    if neppo.__version__ != VERSION or not all(hasattr(neppo.Trainer, name) for name in NEEDED):
        raise SystemExit(f'neppo {neppo.__version__} is installed, but this program works with neppo {VERSION} alone.')
    torch.set_num_threads(request['cores'])
    settings = read_nep_in(NEP_IN)
    stage = get_stages(settings)[0]
    seed = int(settings['seed'][0])
    torch.manual_seed(seed)
    model = neppo.read_model(PARENT) if Path(PARENT).is_file() else get_model(settings)
    parents = [getattr(model, f'max_neighbors_{kind}') or 0 for kind in ('radial', 'angular')]
    sets = {name: neppo.StructureContainer(model, read(file, ':')) for name, file in FILES.items()
            if Path(file).is_file()}  # fmt: skip
    trainer = resumable(neppo.Trainer)(
        model,
        get_loss(stage),
        sets['train'],
        sets.get('test'),
        batch_size=int(settings['batch'][0]),
        learning_rate=tuple(map(float, stage['learning_rate'])),
        weight_decay=float(stage['weight_decay'][0]),
        device=request['device'],
        seed=seed,
        output_directory='.',
    )
    # a simulation needs room for as many neighbours as its parent allowed
    model.max_neighbors_radial = max(model.max_neighbors_radial, parents[0])
    model.max_neighbors_angular = max(model.max_neighbors_angular, parents[1])
    trainer.prepare(int(stage['generation'][0]), request, checkpoint)
    return trainer


def resumable(base: Any) -> Any:
    """Return neppo's trainer with states; a function, because importing neppo is slow and not possible everywhere."""

    class Resumable(base):
        """neppo's trainer with states that it can go on from."""

        def prepare(self, wanted: int, request: Mapping[str, Any], checkpoint: Checkpoint) -> None:
            """Take what neppo does not know: all steps that are wanted, over all runs, and where states go."""
            self.wanted, self.request, self.checkpoint = wanted, request, checkpoint
            self.curve: list[dict[str, Any]] = []
            self.saved = -math.inf
            self.stopping = False
            signal.signal(signal.SIGTERM, self.stop)

        def stop(self, number: int, frame: Any) -> None:
            """Stop after the present step."""
            self.stopping = True

        # ------------------------------------------------------------ what neppo does, for a training in pieces

        def _get_learning_rate(self, step: int, steps: int) -> float:
            return float(super()._get_learning_rate(self._step, self.wanted))

        def _reset_optimizer_state(self) -> None:
            """Keep the moments of the optimiser; neppo would forget them at the start of each piece."""

        def _next_batch(self) -> int:
            """Stop between two steps: once a batch is drawn, a state would lack it."""
            if self.stopping:
                self.save()
                raise StopError(STOPPED)
            return int(super()._next_batch())

        def _report(self, *arguments: Any, **options: Any) -> None:
            super()._report(*arguments, **options)
            step = step_of(self.history.iloc[-1].to_dict())
            self.curve.append(step)
            with Path(CURVE).open('a') as handle:
                handle.write(json.dumps(step) + '\n')
            if not math.isfinite(step['loss']):
                raise StopError(DIVERGED)
            if self._step >= self.wanted or time.monotonic() - self.saved >= self.request['save_every']:
                self.save()

        # ------------------------------------------------------------ states

        def save(self) -> None:
            """Save all that the next step depends on."""
            arrays = {f'model/{name}': value for name, value in self.model.state_dict().items()}
            for index, moments in self.optimizer.state_dict()['state'].items():
                arrays |= {f'optimizer/{index}/{name}': value for name, value in moments.items()}
            plain = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
            np.savez(ARRAYS, order=np.array(self._order, dtype=np.int64), **plain)
            about = {
                **self.request['about'],
                'batches': len(self._batches),
                'random': self._rng.bit_generator.state,
                'best_loss': self._best_loss if math.isfinite(self._best_loss) else None,
                'loss_settings': self._get_loss_settings(),
                'reported': self._previous_report_step,
            }
            files = {name: Path(name) for name in (ARRAYS, LAST, BEST) if Path(name).is_file()}
            self.checkpoint.save(self._step, files, self.curve, about)
            self.saved = time.monotonic()

        def restore(self, state: State) -> None:
            """Go on where a state was saved."""
            import torch

            with np.load(state.file(ARRAYS), allow_pickle=False) as archive:
                arrays = {name: torch.from_numpy(archive[name]) for name in archive.files}
            order = arrays.pop('order').tolist()
            # Batches of another size are other batches.
            self._order = order if state.about['batches'] == len(self._batches) else []
            self.model.load_state_dict({name.removeprefix('model/'): value for name, value in arrays.items()
                                        if name.startswith('model/')})  # fmt: skip
            moments: dict[int, dict[str, Any]] = {}
            for path, value in arrays.items():
                if path.startswith('optimizer/'):
                    _, index, name = path.split('/')
                    moments.setdefault(int(index), {})[name] = value
            groups = self.optimizer.state_dict()['param_groups']
            self.optimizer.load_state_dict({'state': moments, 'param_groups': groups})
            about = state.about
            self._rng.bit_generator.state = about['random']
            self._step, self._previous_report_step = state.step, about['reported']
            self._warmup_steps += state.step  # a CUDA graph is captured after some steps of this process
            if about['loss_settings'] == self._get_loss_settings() and about['best_loss'] is not None:
                # Losses of other weights cannot be compared; then the best is looked for anew.
                self._best_loss, self._loss_settings = about['best_loss'], about['loss_settings']
            for name in (LAST, BEST):
                if state.file(name).is_file():
                    Path(name).write_bytes(state.file(name).read_bytes())
            self.curve = list(state.curve)

        def deliver(self) -> None:
            """Write what the best potential predicts, and what was done."""
            import neppo
            from neppo.output import write_predictions

            best = neppo.read_model(BEST).to(self.device)
            label, frames = ('train', self.train_structures)
            if self.test_structures is not None:
                label, frames = 'test', self.test_structures
            write_predictions(best, frames, '.', label)
            Path(EFFECTIVE).write_text(json.dumps(self.effective()))

        def effective(self) -> dict[str, Any]:
            """Return the settings that this trainer holds."""
            terms = {term.name: term for term in self.loss.terms}
            names = {'energy': 'lambda_e', 'forces': 'lambda_f', 'virial': 'lambda_v', 'L1': 'lambda_1',
                     'L2': 'lambda_2'}  # fmt: skip
            weights = {ours: terms[name].weight / (terms[name].sigma if name in ('energy', 'forces', 'virial') else 1.0)
                       for name, ours in names.items() if name in terms}  # fmt: skip
            return {
                **weights,
                'steps': self.n_steps,
                'batch_size': self.batch_size,
                'learning_rate': self.learning_rate[0],
                'final_learning_rate': self.learning_rate[1],
                'weight_decay': self.optimizer.param_groups[0]['weight_decay'],
                'loss_form': terms['energy'].form,
            }

    return Resumable


GPA = 160.21766208
"""GPa of one eV/Å³, as neppo has it."""


def step_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return one report of neppo as a step of the training curve; its stress errors are over six components in GPa."""
    step = {'step': int(row['step']), 'loss': row['loss'], 'learning_rate': row['learning_rate']}
    if 'loss_test' in row:
        step['validation_loss'] = row['loss_test']
    for theirs, ours in (('train', 'training'), ('test', 'validation')):
        for name, quantity, unit in (('energy', 'energy_per_atom', 1.0), ('forces', 'forces', 1.0),
                                     ('stress', 'stress', GPA)):  # fmt: skip
            value = row.get(f'rmse_{name}_{theirs}', math.nan)
            if math.isfinite(value) or (name != 'stress' and f'rmse_{name}_{theirs}' in row):
                step[f'{ours}_{quantity}_rmse'] = value / unit
    return step
