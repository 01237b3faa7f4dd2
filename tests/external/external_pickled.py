"""An architecture whose files are pickles, as those of torch are: opening one runs what its author put in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, ClassVar

from external_springs import SpringCalculator, Springs

from aiida_perovmlip.compute.architecture import PotentialFacts, Trained, Training


class Pickled(Springs):
    """Springs that are kept in a pickle."""

    name: ClassVar[str] = 'pickled'
    opens_pickles: ClassVar[bool] = True
    filename: ClassVar[str] = 'springs.pickle'

    def train(self, training: Training) -> Trained:
        """Train springs, and pickle what they are."""
        trained = super().train(training)
        plain = training.folder / 'potential' / 'springs.json'
        plain.with_name(self.filename).write_bytes(pickle.dumps(json.loads(plain.read_text())))
        plain.unlink()
        return trained

    def facts(self, potential: Path) -> PotentialFacts:
        """Open the pickle."""
        content = pickle.loads((potential / self.filename).read_bytes())
        return PotentialFacts(elements=tuple(content['elements']), cutoff=content['cutoff'], n_parameters=2)

    def calculator(self, potential: Path, device: str = 'cpu', head: str | None = None) -> Any:
        """Open the pickle, and return the calculator."""
        content = pickle.loads((Path(potential) / self.filename).read_bytes())
        return SpringCalculator(content['constant'], content['offset'], content['cutoff'])
