"""The simulations of all physical systems."""

from lola.simulate.euler import EulerConfig
from lola.simulate.gravity_cooling import GravityCoolingConfig
from lola.simulate.rayleigh_benard import RayleighBenardConfig

Simulation = EulerConfig | RayleighBenardConfig | GravityCoolingConfig
