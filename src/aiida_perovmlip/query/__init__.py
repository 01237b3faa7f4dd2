"""Questions to the database: what is better than what, where it comes from, and what it took.

Each answers with a pandas frame, whose `query` shows the QueryBuilder beneath. No node is loaded and no file is opened.
"""

from aiida_perovmlip.query.compare import compare_strategies, evaluations, forgetting_matrix
from aiida_perovmlip.query.jobs import costs
from aiida_perovmlip.query.motion import diffusion
from aiida_perovmlip.query.nodes import datasets, potentials
from aiida_perovmlip.query.origins import ancestors
from aiida_perovmlip.query.paths import barriers
from aiida_perovmlip.query.phase_results import phase_energies, phases
from aiida_perovmlip.query.repairs import repaired_labels
from aiida_perovmlip.query.stages import lineage
from aiida_perovmlip.query.tradeoffs import compare_architectures

__all__ = (
    'ancestors',
    'barriers',
    'compare_architectures',
    'compare_strategies',
    'costs',
    'datasets',
    'diffusion',
    'evaluations',
    'forgetting_matrix',
    'lineage',
    'phase_energies',
    'phases',
    'potentials',
    'repaired_labels',
)
