"""The parts of a method are compared with each other before anything is computed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from configured import SmallNetwork
from own_operators import EveryFourthColumn, PhaseRetrieval

from diffusion_priors.diffusion.grids import Linspace
from diffusion_priors.diffusion.preconditioning import Eps
from diffusion_priors.diffusion.priors.base import Prior
from diffusion_priors.diffusion.schedules import Linear
from diffusion_priors.diffusion.transitions import FixedSmall, LearnedRange
from diffusion_priors.operators.identity import Identity
from diffusion_priors.operators.inpainting import InpaintBox
from diffusion_priors.operators.noise.laplace import Laplace
from diffusion_priors.operators.noise_models import Gaussian, NoNoise, Poisson
from diffusion_priors.solvers.base import NotApplicable
from diffusion_priors.solvers.daps import DAPS
from diffusion_priors.solvers.ddrm import DDRM
from diffusion_priors.solvers.dps import DPS
from diffusion_priors.solvers.inner_chains import Langevin
from diffusion_priors.solvers.inner_samplers import Exact
from diffusion_priors.solvers.method import Method
from diffusion_priors.solvers.sdedit import SDEdit
from diffusion_priors.solvers.unconditional import Unconditional


@pytest.fixture(scope="module")
def method() -> Method:
    prior = Prior(SmallNetwork().float(), Linear(), Eps(), size=(16, 16))
    return Method(operator=Identity(), noise_model=Gaussian(0.05), solver=DPS(), grid=Linspace(4), sampler=FixedSmall(), prior=prior)


WRONG = {
    "a solver without the spectrum it needs": ({"operator": PhaseRetrieval(), "solver": DDRM()}, NotApplicable, "DDRM needs"),
    "noise that complex measurements do not have": (
        {"operator": EveryFourthColumn(), "noise_model": Poisson(50.0)},
        ValueError,
        "Poisson noise needs a real measurement",
    ),
    "a level outside the schedule": ({"solver": SDEdit(1001)}, ValueError, "solver.t_star=1001"),
    "an operator for other sizes": ({"operator": InpaintBox([40, 40])}, ValueError, "16"),
    "a sampler that needs a learned variance": ({"sampler": LearnedRange()}, ValueError, "learned variance"),
}


@pytest.mark.parametrize("case", WRONG)
def test_parts_that_cannot_be_used_together_are_refused(method, case):
    changes, kind, message = WRONG[case]
    with pytest.raises(kind, match=message):
        replace(method, **changes).check_compatible()


def test_parts_that_fit_are_accepted(method):
    method.check_compatible()
    assert len(method.plan()) == 4 and method.image_shape == (3, 16, 16)
    assert method.grey_measurement().shape == (1, 3, 16, 16)


def test_a_solver_for_gaussian_noise_says_that_it_approximates(method):
    """Not where the noise is Gaussian or absent, y is not used, or the solver follows the density itself."""
    said = replace(method, noise_model=Laplace(0.1)).approximation()
    assert said == "an approximation: DPS takes Laplace noise for Gaussian noise with its standard deviation, sigma_y"
    assert "Poisson noise" in replace(method, noise_model=Poisson(9.0), solver=DAPS(Exact())).approximation()
    exact = [{}, {"noise_model": NoNoise()}]
    exact += [{"noise_model": Laplace(0.1), "solver": solver} for solver in (DAPS(Langevin()), Unconditional())]
    assert all(replace(method, **changes).approximation() is None for changes in exact)
