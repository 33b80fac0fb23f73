"""Tumours: a core that grows from a point in the white matter, a rim that enhances, oedema along the fibres.

Each part is the set of points that a front reaches before a given time (geodesic distance). Fluid stops the
front, grey matter slows it, white matter leads it: thus the oedema has the fingers it has in patients.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from brats_fl_tools.sample.anatomy import Anatomy, Atlas, Pose
from brats_fl_tools.sample.fields import Grid, Mask, Volume, sigmoid, smooth_field
from brats_fl_tools.sample.hospitals import Hospital

GROWTH_MM = 2.0
"""Spacing of the grid that fronts move on; finer grids take the arrival times from it."""

REACH_MM = 90.0
"""Distance from the seed that is looked at: farther than the oedema of any hospital here gets."""

FALX_MM = 1.6
"""Half the thickness that stands for the falx: thick enough to have no hole on the growth grid."""

LATE_MM = 1e4
"""Arrival time of what the front never reaches."""

ATLAS_LIMITS_MM = ((16, 50), (-70, 45), (-8, 50))
"""Distance from the midline, front and height of a seed, MNI: the white matter of the hemispheres."""


@dataclass(frozen=True)
class Plan:
    """What a tumour will be, before there is a brain to hold it."""

    seed_mm: NDArray[np.float64]
    """Where it starts, MNI coordinates."""
    core_ml: float
    edema_ml: float
    rim_mm: float
    low_grade: bool
    push: float
    """Share by which it stretches the tissue around it."""

    @property
    def radius_mm(self) -> float:
        """Radius of a ball of the core's volume."""
        return float((self.core_ml * 1000 * 0.75 / np.pi) ** (1 / 3))


@dataclass(frozen=True)
class Tumour:
    """Parts of a grown tumour on its box, float32 in 0 to 1, soft at the edges."""

    necrosis: Volume
    """Necrotic and non-enhancing core."""
    enhancing: Volume
    edema: Volume
    near_core: Volume
    """How near the core a point of the oedema is: 1 at the core, falling to 0 outwards."""
    labels: NDArray[np.uint8]
    """BraTS 2020's labels: 0, 1 necrotic and non-enhancing core, 2 oedema, 4 enhancing tumour."""


def plan_tumour(rng: np.random.Generator, atlas: Atlas, hospital: Hospital) -> Plan:
    """Place and size of a tumour, as the hospital's case mix has them."""
    core_ml = float(rng.uniform(*hospital.core_ml))
    radius_mm = (core_ml * 1000 * 0.75 / np.pi) ** (1 / 3)
    seed_mm = _draw_seed(rng, atlas, float(np.clip(0.75 * radius_mm, 11, 22)))
    return Plan(
        seed_mm=seed_mm,
        core_ml=core_ml,
        edema_ml=float(rng.uniform(*hospital.edema_ml)),
        rim_mm=float(rng.uniform(*hospital.rim_mm)),
        low_grade=hospital.low_grade,
        push=float(rng.uniform(0.15, 0.3 if hospital.low_grade else 0.42)),
    )


def _draw_seed(rng: np.random.Generator, atlas: Atlas, depth_mm: float) -> NDArray[np.float64]:
    coarse = (slice(None, None, 2),) * 3
    inside = (atlas.white[coarse] > 0.8) & (np.abs(atlas.depth_mm - depth_mm) < 5)
    points = np.argwhere(inside) * 2.0 + np.asarray(atlas.origin_mm)
    side, front, up = (points * [[1, 1, 1]]).T
    within = np.ones(len(points), bool)
    for values, (low, high) in zip((np.abs(side), front, up), ATLAS_LIMITS_MM, strict=True):
        within &= (values >= low) & (values <= high)
    return points[within][rng.integers(np.count_nonzero(within))]


def grow_tumour(rng: np.random.Generator, anatomy: Anatomy, pose: Pose, plan: Plan) -> Tumour:
    """Tumour of the planned volumes in a brain."""
    grid = anatomy.grid
    wander = [smooth_field(rng, grid, lattice_mm) for lattice_mm in (22.0, 11.0, 14.0, 9.0, 7.0, 4.0)]
    stride = max(1, round(GROWTH_MM / grid.spacing_mm))
    step_mm = stride * grid.spacing_mm
    coarse = (slice(None, None, stride),) * 3
    grey, white, fluid = anatomy.grey[coarse], anatomy.white[coarse], anatomy.fluid[coarse]
    atlas_mm = pose.atlas_mm[:, ::stride, ::stride, ::stride]
    apart = atlas_mm - plan.seed_mm.astype(np.float32)[:, None, None, None]
    apart_mm = np.sqrt(apart[0] ** 2 + apart[1] ** 2 + apart[2] ** 2)
    # The falx: between the hemispheres only the corpus callosum lets a tumour through.
    falx = (np.abs(atlas_mm[0]) < FALX_MM) & (white < 0.7)
    free = anatomy.brain[coarse] & ~falx & (apart_mm < REACH_MM)

    lobes = _draw_lobes(rng, free & (fluid < 0.4), plan, apart_mm, step_mm)
    roughness = np.exp(0.5 * wander[0][coarse] + 0.3 * wander[1][coarse])
    core_time = arrival_mm(lobes, (1 + 0.3 * grey + 7 * fluid**2) * roughness, free, step_mm)
    core_limit = _time_of_volume(core_time[free], plan.core_ml, step_mm)
    core = core_time <= core_limit

    lead = white**1.5 + 0.16 * grey + 0.02
    edema_cost = np.exp(0.5 * wander[2][coarse]) / lead + 25 * fluid**2
    edema_time = arrival_mm(np.where(core, 0, LATE_MM).astype(np.float32), edema_cost, free, step_mm)
    edema_limit = _time_of_volume(edema_time[free & ~core], plan.edema_ml, step_mm)

    core_time, edema_time = (_refine(time, grid, stride) for time in (core_time, edema_time))
    return _compose(plan, anatomy, core_limit - core_time, edema_time, edema_limit, wander)


def arrival_mm(start: Volume, cost: Volume, within: Mask, step_mm: float) -> Volume:
    """Shortest travel from the sources to every voxel over its 26 neighbours, weighed by the local cost.

    Args:
        start: Time at which a voxel is a source, ``LATE_MM`` where it is none.
        cost: Travel time per millimetre, > 0, same shape.
        within: Voxels that can be travelled, same shape.
        step_mm: Spacing of the voxels.

    Returns:
        float32, same shape; mm at cost 1, at most ``LATE_MM``.

    Source: Dijkstra 1959, doi:10.1007/BF01386390.
    """
    count = np.count_nonzero(within)
    number = np.full(np.add(within.shape, 2), -1, np.int32)  # a margin, so that every voxel has 26 neighbours
    number[1:-1, 1:-1, 1:-1][within] = np.arange(count, dtype=np.int32)
    offsets = np.array([o for o in product((-1, 0, 1), repeat=3) if any(o)])
    jumps = offsets @ np.array([number.shape[1] * number.shape[2], number.shape[2], 1])
    neighbours = number.ravel()[np.flatnonzero(number >= 0)[:, None] + jumps]
    local = cost[within].astype(np.float64)
    travel = (local[:, None] + local[neighbours]) * (0.5 * step_mm * np.sqrt((offsets**2).sum(1)))
    travel[neighbours < 0] = np.inf
    neighbours[neighbours < 0] = 0
    # One more node leads to every source; all its times are 1 later, since an edge of 0 would be no edge.
    sources = np.flatnonzero(start[within] < LATE_MM).astype(np.int32)
    first = np.append(np.arange(count + 1) * len(offsets), count * len(offsets) + len(sources))
    weights = np.concatenate([travel.ravel(), start[within][sources] + 1.0])
    graph = csr_matrix((weights, np.concatenate([neighbours.ravel(), sources]), first), shape=(count + 1,) * 2)
    time = np.full(within.shape, LATE_MM, np.float32)
    time[within] = np.minimum(dijkstra(graph, indices=count)[:count] - 1, LATE_MM)
    return time


def _draw_lobes(rng: np.random.Generator, allowed: Mask, plan: Plan, apart_mm: Volume, step_mm: float) -> Volume:
    """Sources of the core: the seed and up to three later ones around it, each a lobe."""
    seed = np.asarray(np.unravel_index(np.where(allowed, apart_mm, np.inf).argmin(), allowed.shape))
    start = np.full(allowed.shape, LATE_MM, np.float32)
    start[tuple(seed)] = 0
    offsets = rng.normal(0, 0.62, (3, 3)) * plan.radius_mm / step_mm
    delays = rng.uniform(0.1, 0.6, 3) * plan.radius_mm
    for k in range(int(rng.integers(0, 4))):
        at = tuple(np.clip(np.rint(seed + offsets[k]).astype(int), 0, np.array(allowed.shape) - 1))
        if allowed[at]:
            start[at] = min(start[at], delays[k])
    return start


def _time_of_volume(times: NDArray[np.float32], volume_ml: float, step_mm: float) -> float:
    reached = np.sort(times[times < LATE_MM])
    return float(reached[min(len(reached) - 1, int(volume_ml * 1000 / step_mm**3))])


def _refine(time: Volume, grid: Grid, stride: int) -> Volume:
    """Times on the case's own grid, trilinear from every ``stride``-th voxel."""
    time = np.minimum(time, np.float32(1000))  # or never would drown what lies beside it
    for axis, size in enumerate(grid.box_shape if stride > 1 else ()):
        position = np.minimum(np.arange(size) / stride, time.shape[axis] - 1)
        low = np.floor(position).astype(int)
        share = (position - low).astype(np.float32).reshape([-1 if k == axis else 1 for k in range(3)])
        high = np.minimum(low + 1, time.shape[axis] - 1)
        time = np.take(time, low, axis) * (1 - share) + np.take(time, high, axis) * share
    return time


def _compose(
    plan: Plan,
    anatomy: Anatomy,
    inside_mm: Volume,
    edema_time: Volume,
    edema_limit: float,
    wander: list[Volume],
) -> Tumour:
    """Soft parts and labels from a voxel's depth in the core and the oedema's arrival there, both in mm."""
    inside_mm = inside_mm + 0.5 * wander[5]
    core = sigmoid(inside_mm / np.float32(2.0 if plan.low_grade else 0.7))
    thickness_mm = plan.rim_mm * np.exp(0.65 * wander[3]) - 0.3
    dead = sigmoid((inside_mm - thickness_mm + 2 * wander[4]) / np.float32(0.8))
    if plan.low_grade:
        dead = np.ones_like(dead)
    outside_mm = (edema_time - edema_limit) / (1 + edema_limit / 25) + 0.7 * wander[5]
    edema = sigmoid(-outside_mm / np.float32(1.1)) * (1 - core) * np.clip(1.6 - 1.6 * anatomy.fluid, 0, 1)
    labels = np.zeros(core.shape, np.uint8)
    labels[edema > 0.5] = 2
    labels[core > 0.5] = 4
    labels[(core > 0.5) & (dead > 0.5)] = 1
    labels[~anatomy.brain] = 0
    return Tumour(
        necrosis=core * dead,
        enhancing=core * (1 - dead),
        edema=edema,
        near_core=np.exp(-edema_time / np.float32(max(edema_limit, 1.0))),
        labels=labels,
    )
