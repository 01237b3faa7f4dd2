"""Works that no plug-in names by itself: the framework, functionals, and methods of this package."""

from __future__ import annotations

from aiida_perovmlip.compute.citation import Citation

AIIDA = (
    Citation(
        'huber2020aiida',
        ('Huber, Sebastiaan P.', 'others'),
        'AiiDA 1.0, a scalable computational infrastructure for automated reproducible workflows and data provenance',
        'Scientific Data 7, 300',
        2020,
        '10.1038/s41597-020-00638-4',
    ),
    Citation(
        'uhrin2021workflows',
        ('Uhrin, Martin', 'Huber, Sebastiaan P.', 'Yu, Jusong', 'Marzari, Nicola', 'Pizzi, Giovanni'),
        'Workflows in AiiDA: Engineering a high-throughput, event-based engine for robust and modular computational '
        'workflows',
        'Computational Materials Science 187, 110086',
        2021,
        '10.1016/j.commatsci.2020.110086',
    ),
)

BAND = (
    Citation(
        'henkelman2000tangent',
        ('Henkelman, Graeme', 'Jónsson, Hannes'),
        'Improved tangent estimate in the nudged elastic band method for finding minimum energy paths and saddle '
        'points',
        'The Journal of Chemical Physics 113, 9978',
        2000,
        '10.1063/1.1323224',
    ),
    Citation(
        'henkelman2000climbing',
        ('Henkelman, Graeme', 'Uberuaga, Blas P.', 'Jónsson, Hannes'),
        'A climbing image nudged elastic band method for finding saddle points and minimum energy paths',
        'The Journal of Chemical Physics 113, 9901',
        2000,
        '10.1063/1.1329672',
    ),
)

PBE = Citation(
    'perdew1996pbe',
    ('Perdew, John P.', 'Burke, Kieron', 'Ernzerhof, Matthias'),
    'Generalized Gradient Approximation Made Simple',
    'Physical Review Letters 77, 3865',
    1996,
    '10.1103/PhysRevLett.77.3865',
)
PBESOL = Citation(
    'perdew2008pbesol',
    ('Perdew, John P.', 'others'),
    'Restoring the Density-Gradient Expansion for Exchange in Solids and Surfaces',
    'Physical Review Letters 100, 136406',
    2008,
    '10.1103/PhysRevLett.100.136406',
)
SCAN = Citation(
    'sun2015scan',
    ('Sun, Jianwei', 'Ruzsinszky, Adrienn', 'Perdew, John P.'),
    'Strongly Constrained and Appropriately Normed Semilocal Density Functional',
    'Physical Review Letters 115, 036402',
    2015,
    '10.1103/PhysRevLett.115.036402',
)
R2SCAN = Citation(
    'furness2020r2scan',
    ('Furness, James W.', 'Kaplan, Aaron D.', 'Ning, Jinliang', 'Perdew, John P.', 'Sun, Jianwei'),
    'Accurate and Numerically Efficient r2SCAN Meta-Generalized Gradient Approximation',
    'The Journal of Physical Chemistry Letters 11, 8208',
    2020,
    '10.1021/acs.jpclett.0c02405',
)
RVV10 = Citation(
    'sabatini2013rvv10',
    ('Sabatini, Riccardo', 'Gorni, Tommaso', 'de Gironcoli, Stefano'),
    'Nonlocal van der Waals density functional made simple and efficient',
    'Physical Review B 87, 041108',
    2013,
    '10.1103/PhysRevB.87.041108',
)
GFN1 = Citation(
    'grimme2017gfn1',
    ('Grimme, Stefan', 'Bannwarth, Christoph', 'Shushkov, Philip'),
    'A Robust and Accurate Tight-Binding Quantum Chemical Method for Structures, Vibrational Frequencies, and '
    'Noncovalent Interactions of Large Molecular Systems Parametrized for All spd-Block Elements (Z = 1–86)',
    'Journal of Chemical Theory and Computation 13, 1989',
    2017,
    '10.1021/acs.jctc.7b00118',
)
GFN2 = Citation(
    'bannwarth2019gfn2',
    ('Bannwarth, Christoph', 'Ehlert, Sebastian', 'Grimme, Stefan'),
    'GFN2-xTB—An Accurate and Broadly Parametrized Self-Consistent Tight-Binding Quantum Chemical Method with '
    'Multipole Electrostatics and Density-Dependent Dispersion Contributions',
    'Journal of Chemical Theory and Computation 15, 1652',
    2019,
    '10.1021/acs.jctc.8b01176',
)
D3 = Citation(
    'grimme2010d3',
    ('Grimme, Stefan', 'Antony, Jens', 'Ehrlich, Stephan', 'Krieg, Helge'),
    'A consistent and accurate ab initio parametrization of density functional dispersion correction (DFT-D) for the '
    '94 elements H-Pu',
    'The Journal of Chemical Physics 132, 154104',
    2010,
    '10.1063/1.3382344',
)
D3_BJ = Citation(
    'grimme2011bj',
    ('Grimme, Stefan', 'Ehrlich, Stephan', 'Goerigk, Lars'),
    'Effect of the damping function in dispersion corrected density functional theory',
    'Journal of Computational Chemistry 32, 1456',
    2011,
    '10.1002/jcc.21759',
)

OF_WORDS: dict[str, tuple[Citation, ...]] = {
    'pbe': (PBE,),
    'pbesol': (PBESOL,),
    'scan': (SCAN,),
    'r2scan': (R2SCAN,),
    'rvv10': (RVV10,),
    'gfn1': (GFN1,),
    'gfn2': (GFN2,),
    'd3': (D3,),
    'd3bj': (D3, D3_BJ),
    'd3(bj)': (D3, D3_BJ),
}
"""Works by the words in which levels of theory name functionals and dispersion."""


def citations_of_level(functional: str, dispersion: str = '') -> tuple[Citation, ...]:
    """Return the works behind a functional and a dispersion correction; none where their names are not known."""
    words = f'{functional} {dispersion}'.lower().replace('+', ' ').replace('-', ' ').split()
    found: dict[Citation, None] = {}
    for word in words:
        found |= dict.fromkeys(OF_WORDS.get(word, ()))
    return tuple(found)
