from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from melanoma_dist.distributed.plan import Layout, Machines, capacity, grown, lay_out
from melanoma_dist.errors import ConfigError

EIGHT = Machines((8,), (64,))
TWO_NODES = Machines((8, 8), (64, 32))
CPU = Machines((0,), (2,))

# Times in units of one fold on one GPU; n ranks of a fold take 1 / (n * 0.98 ** log2(n)), and must save a tenth.
CASES = [
    # 1 rank: one wave, 1.00. 2: four at a time, two waves, 1.02. 3: two, three waves, 1.03. 4: two, three waves, 0.78.
    # More than 4 would leave fewer than 8 images of a batch of 32 to a rank.
    ("eight GPUs, five folds", EIGHT, 5, 32, 8, None, Layout(4, 2, True, 8.0, "GPUs would idle with fewer ranks")),
    ("eight GPUs, eight folds", EIGHT, 8, 32, 8, None, Layout(1, 8, True, 8.0, "a GPU for each fold")),
    ("eight GPUs, sixteen folds", EIGHT, 16, 32, 8, None, Layout(1, 8, True, 8.0, "fewer GPUs than folds")),
    ("one GPU", Machines((1,), (6,)), 5, 32, 1, None, Layout(1, 1, True, 6.0, "fewer GPUs than folds")),
    ("one fold, large batch", EIGHT, 1, 256, 8, None, Layout(8, 1, True, 8.0, "GPUs would idle with fewer ranks")),
    ("one fold, small batch", EIGHT, 1, 15, 8, None, Layout(1, 1, True, 8.0, "a GPU for each fold; 7 idle")),
    # 2 ranks: eight at a time, one wave, 0.51. 4: four at a time, two waves, 0.52. The scarcer node gives 4 cores.
    ("two nodes", TWO_NODES, 5, 32, 16, None, Layout(2, 5, True, 4.0, "GPUs would idle with fewer ranks; 6 idle")),
    # The ranks of a fold never lie on two nodes: three on each of two nodes of four leave two GPUs idle.
    ("no rank elsewhere", Machines((4, 4), (8, 8)), 9, 32, 8, 3, Layout(3, 2, True, 2.0, "as requested; 2 idle")),
    ("two ranks requested", EIGHT, 5, 32, 8, 2, Layout(2, 4, True, 8.0, "as requested")),
    ("one rank requested", EIGHT, 5, 32, 8, 1, Layout(1, 5, True, 8.0, "as requested; 3 idle")),
    ("two ranks on two cores", CPU, 3, 32, 0, 2, Layout(2, 1, False, 1.0, "--gpus 0")),
    ("one rank on two cores", CPU, 3, 32, 0, None, Layout(1, 2, False, 1.0, "--gpus 0")),
    ("cores to spare", Machines((0,), (9,)), 2, 32, 0, None, Layout(1, 2, False, 4.0, "--gpus 0")),
    ("more ranks than cores", CPU, 3, 32, 0, 3, Layout(3, 1, False, 0.66, "--gpus 0")),
    ("GPUs left alone", EIGHT, 3, 32, 0, None, Layout(1, 3, False, 21.0, "--gpus 0")),
]


@pytest.mark.parametrize(
    ("machines", "units", "batch", "gpus", "requested", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_layouts_follow_the_documented_rule(
    machines: Machines, units: int, batch: int, gpus: int, requested: int | None, expected: Layout
) -> None:
    layout = lay_out(machines, units, batch, gpus, requested)
    assert (layout.ranks, layout.side_by_side, layout.gpu) == (expected.ranks, expected.side_by_side, expected.gpu)
    assert layout.cores == expected.cores
    assert layout.threads == max(1, int(expected.cores))
    assert layout.reason.endswith(f", {expected.reason}")


@pytest.mark.parametrize(
    ("machines", "batch", "gpus", "requested", "complaint"),
    [
        (EIGHT, 32, 8, 9, "--gpus-per-unit 9: .* the largest has 8 GPUs"),
        (TWO_NODES, 64, 16, 16, "--gpus-per-unit 16: .* the largest has 8 GPUs"),
        (EIGHT, 32, 2, 4, "--gpus-per-unit 4: .* the largest has 2 GPUs"),
        (EIGHT, 8, 8, 5, "--gpus-per-unit 5: .* at least 2 images of a global batch of 8"),
        (CPU, 8, 0, 5, "--ranks-per-unit 5: .* at least 2 images of a global batch of 8"),
    ],
)
def test_impossible_ranks_are_refused_by_their_flag(
    machines: Machines, batch: int, gpus: int, requested: int, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        lay_out(machines, 5, batch, gpus, requested)


@given(
    nodes=st.lists(st.tuples(st.integers(0, 9), st.integers(1, 64)), min_size=1, max_size=4),
    units=st.integers(1, 20),
    batch=st.integers(2, 512),
    data=st.data(),
)
def test_no_layout_exceeds_the_machines(
    nodes: list[tuple[int, int]], units: int, batch: int, data: st.DataObject
) -> None:
    machines = Machines(tuple(gpus for gpus, _ in nodes), tuple(cores for _, cores in nodes))
    assume(sum(machines.gpus) > 0)
    gpus = data.draw(st.integers(1, sum(machines.gpus)), "gpus")
    largest = min(gpus, max(machines.gpus))
    most = min(largest, batch // 2)
    requested = data.draw(st.none() | st.integers(1, most), "requested")
    layout = lay_out(machines, units, batch, gpus, requested)
    assert layout.gpu
    assert 1 <= layout.ranks <= largest
    assert 1 <= layout.side_by_side <= units
    assert layout.ranks * layout.side_by_side <= gpus
    assert layout.side_by_side <= sum(node // layout.ranks for node in machines.gpus)
    assert requested is None or layout.ranks == requested
    assert requested is not None or layout.ranks == 1 or batch // layout.ranks >= 8
    assert re.search(rf": {gpus} GPUs?, ", layout.reason)


@given(st.integers(1, 64), st.integers(1, 20), st.none() | st.integers(1, 100))
def test_no_core_is_assigned_twice(cores: int, units: int, requested: int | None) -> None:
    layout = lay_out(Machines((0,), (cores,)), units, 200, 0, requested)
    assert not layout.gpu
    assert layout.ranks == (requested or 1)
    assert 1 <= layout.side_by_side <= units
    assert layout.cores > 0
    assert round(100 * layout.cores) * layout.ranks * layout.side_by_side <= 100 * cores  # in hundredths, exactly


@pytest.mark.parametrize(
    ("machines", "layout", "units"),
    [
        (Machines((8, 8), (64, 64)), Layout(4, 4, True, 8.0, ""), 4),
        (Machines((8,), (64,)), Layout(4, 4, True, 8.0, ""), 2),  # a node was lost
        (Machines((3, 3), (64, 64)), Layout(2, 2, True, 8.0, ""), 2),  # a unit lies within one node
        (Machines((2,), (16,)), Layout(1, 4, True, 4.0, "", gpu_share=0.5), 4),
        (Machines((0, 0), (2, 2)), Layout(2, 2, False, 1.0, ""), 2),
        (Machines((0,), (2,)), Layout(3, 1, False, 0.66, ""), 1),
        (Machines((), ()), Layout(1, 1, False, 1.0, ""), 0),
    ],
)
def test_capacity_follows_the_machines_alive(machines: Machines, layout: Layout, units: int) -> None:
    assert capacity(machines, layout) == units


@pytest.mark.parametrize(
    ("machines", "gpus", "share", "expected"),
    [
        (EIGHT, 8, 0.5, Layout(1, 16, True, 4.0, "2 on each of 8 GPUs, as requested", 0.5)),
        (EIGHT, 2, 0.25, Layout(1, 8, True, 2.0, "4 on each of 2 GPUs, as requested", 0.25)),
        (EIGHT, 1, 1 / 3, Layout(1, 3, True, 2.0, "3 on each of 1 GPU, as requested", 1 / 3)),
    ],
)
def test_shares_of_a_gpu_pack_units(machines: Machines, gpus: int, share: float, expected: Layout) -> None:
    layout = lay_out(machines, 100, 32, gpus, share)
    assert (layout.ranks, layout.side_by_side, layout.gpu, layout.cores) == (
        1,
        expected.side_by_side,
        True,
        expected.cores,
    )
    assert layout.gpu_share == share
    assert layout.reason.endswith(expected.reason)


def test_nodes_that_an_autoscaler_adds_are_like_the_largest() -> None:
    here = Machines((0, 2, 4), (4, 16, 32))
    assert grown(here, 6) == here
    assert grown(here, 7) == grown(here, 10) == Machines((0, 2, 4, 4), (4, 16, 32, 32))
    assert lay_out(grown(here, 10), 20, 32, 10, None).side_by_side == 10
