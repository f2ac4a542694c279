"""The dynamics of a trained network: fixed points, Jacobians, Lyapunov exponents, memory, geometry.

Functions of (cell, params, ...) for any cell or composite with a `step`. A state is a pytree, and as a point of the
state space a vector of n real numbers: `to_vector` and `from_vector` convert. `jaxrnn.dynamics.plots` draws.
"""

from ._fixed_points import FixedPoints as FixedPoints
from ._fixed_points import Found as Found
from ._fixed_points import fixed_points as fixed_points
from ._geometry import Flow as Flow
from ._geometry import PrincipalComponents as PrincipalComponents
from ._geometry import flow_field as flow_field
from ._geometry import participation_ratio as participation_ratio
from ._geometry import principal_components as principal_components
from ._jacobians import Jacobians as Jacobians
from ._jacobians import Spectrum as Spectrum
from ._jacobians import gradient_by_lag as gradient_by_lag
from ._jacobians import jacobian as jacobian
from ._jacobians import spectrum as spectrum
from ._lyapunov import Lyapunov as Lyapunov
from ._lyapunov import kaplan_yorke as kaplan_yorke
from ._lyapunov import lyapunov as lyapunov
from ._memory import convergence as convergence
from ._memory import memory_capacity as memory_capacity
from ._state_space import from_vector as from_vector
from ._state_space import to_vector as to_vector
from ._state_space import trajectory as trajectory
