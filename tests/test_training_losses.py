"""Every loss that has a name against the published formula, written out a pair at a time; gradients included."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from hardnet_match.errors import DataError, OptionError
from hardnet_match.training.losses import (
    LOSSES,
    DynamicSoftMargin,
    correlation_penalty,
    global_orthogonal,
    hardnegc_loss,
    l2net_loss,
    make_loss,
    second_order,
    triplet_margin_tuples,
)

FAR, CLOSE = 10.0, 0.008
COUNT, DIM = 9, 6


def views(count: int = COUNT, rows: int = 2, seed: int = 0, spread: float = 0.5) -> Tensor:
    """(rows, count, DIM) unit descriptors, double; those of a column are alike."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, DIM, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, count, DIM, generator=generator, dtype=torch.float64)
    return normalize(centre + spread * noise, dim=2)


def numbers(rows: int, count: int = COUNT) -> Tensor:
    return torch.arange(count).expand(rows, count)


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (((a - b) ** 2).sum() + 1e-6).sqrt()


def cost(kind: str, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    if kind == "triplet_margin":
        return torch.clamp(margin + positive - negative, min=0)
    if kind == "quadratic_hinge":
        return torch.clamp(margin + positive - negative, min=0) ** 2
    if kind == "contrastive":
        return torch.clamp(margin - negative, min=0) + positive
    near, far = torch.exp(2 - positive), torch.exp(2 - negative)
    return -torch.log(near / (near + far))


def smallest(values: list[Tensor]) -> Tensor:
    return min(values, key=lambda value: float(value.detach()))


def plain(kind: str, mining: str, rows: Tensor, margin: float, swap: bool, barred: set[tuple[int, int]]) -> Tensor:
    """The loss of one batch; `barred` are pairs (anchor, positive) that are no negatives, own pairs aside."""
    anchors, positives = rows[0], rows[1]
    count = len(anchors)

    def negative(i: int, j: int) -> Tensor:
        value = distance(anchors[i], positives[j])
        value = value + FAR if i == j or (i, j) in barred else value
        return value + FAR if float(value.detach()) < CLOSE else value

    order = torch.randperm(count, generator=torch.Generator().manual_seed(5)).tolist()
    partner = {order[k]: order[(k + 1) % count] for k in range(count)}
    found = []
    for i in range(count):
        positive = distance(anchors[i], positives[i])
        others = [j for j in range(count) if j != i]
        if mining == "hardest":
            candidates = [negative(i, j) for j in others] + ([negative(j, i) for j in others] if swap else [])
            found.append(cost(kind, positive, smallest(candidates), margin))
        elif mining == "random":
            j = partner[i]
            candidates = [negative(i, j)] + ([negative(j, i)] if swap else [])
            found.append(cost(kind, positive, smallest(candidates), margin))
        elif mining == "random_global":
            candidates = [distance(anchors[i], rows[2][i])] + ([distance(positives[i], rows[2][i])] if swap else [])
            found.append(cost(kind, positive, smallest(candidates), margin))
        elif mining == "average":
            for j in others:
                candidates = [negative(i, j)] + ([negative(j, i)] if swap else [])
                closest = smallest(candidates)
                if float(closest.detach()) < FAR / 2:
                    found.append(cost(kind, positive, closest, margin))
        else:
            candidates = []
            for j in others:
                candidates += [negative(i, j), negative(j, i)]
                if (i, j) not in barred and (j, i) not in barred:
                    for side in (anchors, positives):
                        value = distance(side[i], side[j])
                        candidates.append(value + FAR if float(value.detach()) < CLOSE else value)
            found.append(cost(kind, positive, smallest(candidates), margin))
    return torch.stack(found).mean()


def same_value_and_gradient(ours: Callable[[Tensor], Tensor], slow: Callable[[Tensor], Tensor], given: Tensor) -> float:
    one, other = given.clone().requires_grad_(), given.clone().requires_grad_()
    fast, reference = ours(one), slow(other)
    torch.testing.assert_close(fast, reference, atol=1e-7, rtol=0)
    fast.backward()
    reference.backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-6, rtol=0)
    assert one.grad is not None
    assert float(one.grad.abs().sum()) > 0
    return float(fast.detach())


@pytest.mark.parametrize("swap", [True, False])
@pytest.mark.parametrize("mining", ["hardest", "average", "random", "random_global", "hardest_of_all"])
@pytest.mark.parametrize("kind", ["triplet_margin", "softmax", "contrastive", "quadratic_hinge"])
def test_every_kind_with_every_mining_is_the_plain_loop(kind: str, mining: str, swap: bool) -> None:
    rows = views(rows=3 if mining == "random_global" else 2, seed=3)
    rows[1, 5] = normalize(rows[0, 4] + 1e-4, dim=0)  # as good as a duplicate, under another label
    barred = {(0, 3), (7, 2), (2, 7)}
    same = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    for i, j in barred:
        same[i, j] = True
    loss = make_loss(kind, mining=mining, margin=0.9, anchor_swap=swap)
    label = numbers(len(rows))
    if mining == "random_global":
        label = torch.stack([label[0], label[1], label[2] + COUNT])
    same_value_and_gradient(
        lambda x: loss(x, label, same, torch.Generator().manual_seed(5)),
        lambda x: plain(kind, mining, x, 0.9, swap or mining == "hardest_of_all", barred),
        rows,
    )


@pytest.mark.parametrize("swap", [True, False])
def test_l2net_is_a_softmax_over_rows_and_columns(swap: bool) -> None:
    def slow(rows: Tensor) -> Tensor:
        anchors, positives = rows
        total = torch.zeros((), dtype=rows.dtype)
        for i in range(COUNT):
            near = torch.exp(2 - distance(anchors[i], positives[i]))
            total = total - torch.log(
                near / sum(torch.exp(2 - distance(anchors[i], positives[j])) for j in range(COUNT))
            )
            if swap:
                column = sum(torch.exp(2 - distance(anchors[j], positives[i])) for j in range(COUNT))
                total = total - torch.log(near / column)
        return total / COUNT

    loss = make_loss("l2net", anchor_swap=swap)
    same_value_and_gradient(lambda x: loss(x, numbers(2)), slow, views(seed=1))


def test_l2net_leaves_out_what_is_no_negative() -> None:
    rows = views(seed=2)
    same = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    same[1, :] = same[:, 1] = True
    # a label that is no negative of any other stands alone: it costs nothing, and the others do not see it
    kept = torch.tensor([i for i in range(COUNT) if i != 1])
    without = l2net_loss(rows[0, kept], rows[1, kept]) * (COUNT - 1) / COUNT
    torch.testing.assert_close(make_loss("l2net")(rows, numbers(2), same), without)


def test_hardnegc_holds_the_negative_descriptor_constant() -> None:
    def slow(rows: Tensor) -> Tensor:
        anchors, positives = rows
        total = torch.zeros((), dtype=rows.dtype)
        for i in range(COUNT):
            own = distance(anchors[i], positives[i])
            by_anchor, by_positive = [], []
            for j in range(COUNT):
                if j != i:
                    by_anchor.append(distance(anchors[i], positives[j].detach()))
                    by_positive.append(distance(anchors[j].detach(), positives[i]))
            for negatives in (by_anchor, by_positive):
                total = total + 0.5 * torch.clamp(1 + own - smallest(negatives), min=0)
        return total / COUNT

    loss = make_loss("hardnegc")
    same_value_and_gradient(lambda x: loss(x, numbers(2)), slow, views(seed=4))
    # a lone anchor: everything else constant, so nothing may flow to the negatives
    anchors = views(seed=4)[0].requires_grad_()
    positives = views(seed=4)[1].requires_grad_()
    hardnegc_loss(anchors[:2], positives[:2], 100.0).backward()
    assert positives.grad is not None
    step = positives.grad[0]
    own = (positives[0] - anchors[0]).detach() / distance(anchors[0], positives[0]).detach()
    away = (positives[0] - anchors[1]).detach() / distance(anchors[1], positives[0]).detach()
    torch.testing.assert_close(step, (own - 0.5 * away) / 2, atol=1e-6, rtol=0)


@pytest.mark.parametrize("barred", [set(), {(0, 3), (3, 0), (2, 7)}])
def test_the_constant_negative_gets_no_gradient_at_all(barred: set[tuple[int, int]]) -> None:
    same = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    for i, j in barred:
        same[i, j] = True

    def slow(rows: Tensor) -> Tensor:
        anchors, positives = rows
        found = []
        for i in range(COUNT):
            pairs = [pair for j in range(COUNT) if j != i for pair in ((i, j), (j, i)) if pair not in barred]
            negatives = [distance(anchors[a], positives[p]).detach() for a, p in pairs]
            found.append(torch.clamp(1.1 + distance(anchors[i], positives[i]) - smallest(negatives), min=0))
        return torch.stack(found).mean()

    loss = make_loss("constant_negative", margin=1.1)
    same_value_and_gradient(lambda x: loss(x, numbers(2), same), slow, views(seed=17))


def plain_tuples(flat: Tensor, label: list[int], margin: float, barred: set[tuple[int, int]]) -> Tensor:
    found = []
    for name in sorted(set(label)):
        members = [i for i, other in enumerate(label) if other == name]
        positives, negatives = [], []
        for i in members:
            own = [distance(flat[i], flat[j]) for j in members if j != i] or [torch.tensor(1e-3, dtype=flat.dtype)]
            positives.append(max(own, key=lambda value: float(value.detach())))
            rivals = [
                distance(flat[i], flat[j])
                for j in range(len(label))
                if label[j] != name and (label[i], label[j]) not in barred
            ]
            rivals = [value for value in rivals if float(value.detach()) > math.sqrt(CLOSE**2 + 1e-6)]
            if rivals:
                negatives.append(smallest(rivals))
        worst = max(positives, key=lambda value: float(value.detach()))
        found.append(
            torch.clamp(margin + worst - smallest(negatives), min=0) if negatives else torch.zeros((), dtype=flat.dtype)
        )
    return torch.stack(found).mean()


@pytest.mark.parametrize("rows", [2, 4])
def test_triplet_margin_plus_takes_the_worst_of_every_label(rows: int) -> None:
    given = views(rows=rows, seed=6)
    given[0, 5] = given[1, 3]
    barred = {(1, 2), (2, 1), (6, 0), (0, 6)}
    same = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    same[1, 2] = same[6, 0] = True  # one way round is enough
    loss = make_loss("triplet_margin++", margin=0.5)
    label = numbers(rows)
    same_value_and_gradient(
        lambda x: loss(x, label, same),
        lambda x: plain_tuples(x.flatten(0, 1), label.flatten().tolist(), 0.5, barred),
        given,
    )


def test_triplet_margin_plus_takes_any_number_of_positives() -> None:
    flat = views(count=11, rows=1, seed=7)[0]
    label = [3, 3, 9, 1, 1, 1, 1, 9, 4, 3, 20]  # 4 and 20 have one patch each
    same_value_and_gradient(
        lambda x: triplet_margin_tuples(x, torch.tensor(label), 0.8),
        lambda x: plain_tuples(x, label, 0.8, set()),
        flat,
    )
    flat[10] = flat[8]
    label = [3, 3, 9, 1, 1, 1, 1, 9, 4, 3, 4]  # 4 is one patch twice
    same_value_and_gradient(
        lambda x: triplet_margin_tuples(x, torch.tensor(label), 0.8), lambda x: plain_tuples(x, label, 0.8, set()), flat
    )
    alone = triplet_margin_tuples(flat[:3].requires_grad_(), torch.tensor([1, 1, 1]), 0.8)
    assert float(alone.detach()) == 0  # no negative at all
    alone.backward()


def test_the_dynamic_soft_margin_weighs_by_rank_among_the_batches_before() -> None:
    bins, momentum = 33, 0.2
    loss = DynamicSoftMargin(bins, momentum)
    histogram: list[float] = [0.0] * bins
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        distances = (2 * torch.rand(2, 20, generator=generator, dtype=torch.float64)).requires_grad_()
        differences = (distances[0] - distances[1]).tolist()
        new = [0.0] * bins
        for value in differences:
            place = (value + 2) / (4 / (bins - 1))
            low = math.floor(place)
            new[low] += (1 - (place - low)) / len(differences)
            new[min(low + 1, bins - 1)] += (place - low) / len(differences)
        histogram = (
            new if step == 0 else [(1 - momentum) * h + momentum * n for h, n in zip(histogram, new, strict=True)]
        )
        weights = [sum(histogram[: math.floor((value + 2) / (4 / (bins - 1))) + 1]) for value in differences]
        expected = sum(w * d for w, d in zip(weights, differences, strict=True)) / len(weights)
        found = loss(distances[0], distances[1])
        assert float(found.detach()) == pytest.approx(expected, abs=1e-6)
        found.backward()
        assert distances.grad is not None
        expected_grad = torch.tensor(weights, dtype=torch.float64) / len(weights)
        torch.testing.assert_close(distances.grad[0], expected_grad, atol=1e-6, rtol=0)
        torch.testing.assert_close(distances.grad[1], -distances.grad[0])
    torch.testing.assert_close(loss.histogram, torch.tensor(histogram), atol=1e-6, rtol=0)
    assert float(loss.histogram.sum()) == pytest.approx(1)


def test_the_dynamic_soft_margin_goes_on_where_it_was() -> None:
    one, other = make_loss("dynamic_soft_margin"), make_loss("dynamic_soft_margin")
    batches = [views(seed=seed) for seed in range(3)]
    for rows in batches[:2]:
        one(rows, numbers(2))
    other.load_state_dict(one.state_dict())
    assert float(one(batches[2], numbers(2))) == float(other(batches[2], numbers(2)))
    one.eval()
    before = one.state_dict()["dynamic.histogram"].clone()
    one(batches[0], numbers(2))
    assert torch.equal(before, one.state_dict()["dynamic.histogram"])
    assert not make_loss("triplet_margin").state_dict()
    # extremes, beyond what unit vectors can be apart
    assert math.isfinite(float(DynamicSoftMargin()(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 3.0]))))


def test_gor_is_the_two_moments() -> None:
    def slow(rows: Tensor) -> Tensor:
        products = [rows[0, i] @ rows[1, i] for i in range(COUNT)]
        first = sum(products) / COUNT
        second = sum(product**2 for product in products) / COUNT
        return first**2 + torch.clamp(second - 1 / DIM, min=0)

    for seed in (0, 1):
        same_value_and_gradient(lambda x: global_orthogonal(x[0], x[1]), slow, views(seed=seed))


def test_the_correlation_penalty_is_the_covariance_off_its_diagonal() -> None:
    def slow(rows: Tensor) -> Tensor:
        anchors = rows[0]
        mean = sum(anchors[i] for i in range(COUNT)) / COUNT
        total = torch.zeros((), dtype=rows.dtype)
        for k in range(DIM):
            for m in range(DIM):
                if k != m:
                    total = total + sum((row[k] - mean[k]) * (row[m] - mean[m]) for row in anchors) ** 2
        return torch.sqrt(total) / COUNT

    same_value_and_gradient(lambda x: correlation_penalty(x[0]), slow, views(seed=8))
    # independent dimensions: nothing to punish, and a gradient all the same
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).requires_grad_()
    correlation_penalty(axes).backward()
    assert axes.grad is not None
    assert axes.grad.isfinite().all()


@pytest.mark.parametrize("neighbours", [1, 3, 50])
def test_second_order_similarity_compares_the_distances_to_the_nearest(neighbours: int) -> None:
    barred = {(0, 1), (1, 0), (4, 6), (6, 4)}
    excluded = torch.zeros(COUNT, COUNT, dtype=torch.bool)
    for i, j in barred:
        excluded[i, j] = True

    def slow(rows: Tensor) -> Tensor:
        found = []
        for i in range(COUNT):
            near: set[int] = set()
            for side in rows:
                others = [j for j in range(COUNT) if j != i and (i, j) not in barred]
                others.sort(key=lambda j, side=side: float(distance(side[i], side[j]).detach()))  # type: ignore[misc]
                near |= set(others[:neighbours])
            total = sum((distance(rows[0, i], rows[0, j]) - distance(rows[1, i], rows[1, j])) ** 2 for j in near)
            found.append(torch.sqrt(total + 1e-6))
        return torch.stack(found).mean()

    same_value_and_gradient(lambda x: second_order(x[0], x[1], neighbours, excluded=excluded), slow, views(seed=9))


def test_what_is_added_is_added_with_its_weight() -> None:
    rows = views(rows=3, seed=10)
    label = torch.stack([numbers(2)[0], numbers(2)[0], numbers(2)[0] + COUNT])
    bare = make_loss("softmax", mining="random_global")(rows, label)
    full = make_loss("softmax", mining="random_global", gor=0.5, correlation=2.0, second_order=0.25, neighbours=3)
    expected = (
        bare
        + 0.5 * global_orthogonal(rows[0], rows[2])
        + 2 * correlation_penalty(rows[0])
        + 0.25 * second_order(rows[0], rows[1], 3)
    )
    torch.testing.assert_close(full(rows, label), expected)
    # the third row may be there for GOR alone
    three = make_loss(gor=1.0)(rows, label) - make_loss()(rows[:2], label[:2])
    torch.testing.assert_close(three, global_orthogonal(rows[0], rows[2]))
    # without it, the strangers are the next pair's
    two = make_loss(gor=1.0)(rows[:2], label[:2]) - make_loss()(rows[:2], label[:2])
    torch.testing.assert_close(two, global_orthogonal(rows[0], rows[1].roll(1, 0)))


def test_orinet_may_learn_from_the_distance_of_pairs_alone() -> None:
    def slow(rows: Tensor) -> Tensor:
        return sum(distance(rows[0, i], rows[1, i]) for i in range(COUNT)) / COUNT

    loss = make_loss("positive_distance")
    same_value_and_gradient(lambda x: loss(x, numbers(2)), slow, views(seed=11))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"hardnegc", "constant_negative", "dynamic_soft_margin"}))
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    loss = make_loss(name, gor=0.3, correlation=0.3, second_order=0.3, neighbours=2)
    rows = views(count=5, seed=12).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, numbers(2, 5)), (rows,), eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_that_come_twice_are_no_negatives(name: str) -> None:
    rows = views(seed=13, spread=0.2)
    rows[:, 8] = normalize(rows[:, 7] + 0.05 * views(seed=14)[:, 7], dim=1)  # the same thing again
    label = numbers(2).clone()
    plain_label = label.clone()
    label[:, 8] = 7
    loss = make_loss(name, margin=2.0)
    if name in ("positive_distance", "triplet_margin++", "dynamic_soft_margin"):
        # the last takes ranks, the others have fewer labels or no negatives: only that it works
        assert math.isfinite(float(loss(rows, label)))
    else:
        assert float(loss(rows, label)) < float(loss(rows, plain_label)) - 1e-3


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", ["equal", "single precision"])
def test_gradients_are_finite_where_descriptors_are_equal(name: str, kind: str) -> None:
    rows = views(seed=15).float()
    if kind == "equal":
        rows[1] = rows[0]
        rows[:, 1] = rows[:, 0]
    rows.requires_grad_()
    make_loss(name, gor=1.0, correlation=1.0, second_order=1.0)(rows, numbers(2)).backward()
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_random_negatives_depend_on_the_generator_and_are_never_the_own_pair() -> None:
    rows = views(seed=16, spread=0.0)  # own pairs are at distance zero
    loss = make_loss("contrastive", mining="random", margin=FAR)
    found = {float(loss(rows, numbers(2), None, torch.Generator().manual_seed(seed))) for seed in range(20)}
    assert len(found) > 10
    again = [float(loss(rows, numbers(2), None, torch.Generator().manual_seed(3))) for _ in range(2)]
    assert again[0] == again[1]
    nearest = torch.cdist(rows[0], rows[1]).fill_diagonal_(9).min()
    assert max(found) < FAR - float(nearest)


def test_what_no_loss_can_be_is_refused() -> None:
    for options, word in (
        ({"name": "tripple"}, "triplet_margin"),
        ({"mining": "min"}, "hardest"),
        ({"colour": 1}, "anchor_swap"),
        ({"margin": -1.0}, "margin"),
        ({"gor": math.nan}, "gor"),
        ({"name": "l2net", "mining": "random"}, "l2net"),
        ({"name": "dynamic_soft_margin", "mining": "average"}, "average"),
        ({"neighbours": 0}, "neighbour"),
    ):
        with pytest.raises(OptionError, match=word):
            make_loss(**options)  # type: ignore[arg-type]
    rows = views()
    for loss, descriptors, label in (
        (make_loss(mining="random_global"), rows, numbers(2)),
        (make_loss(), rows, numbers(3)),
        (make_loss(), views(rows=3), numbers(3)),
        (make_loss("triplet_margin++"), rows[:1], numbers(1)),
        (make_loss(), rows[0], numbers(2)[0]),
        (make_loss(), rows[:, :1], numbers(2, 1)),
    ):
        with pytest.raises(DataError):
            loss(descriptors, label)
    with pytest.raises(DataError, match="no negatives"):
        make_loss()(rows, numbers(2), torch.zeros(3, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("name", "mining"),
    [(name, "hardest") for name in sorted(set(LOSSES) - {"positive_distance"})]
    + [("triplet_margin", mining) for mining in ("average", "random", "random_global", "hardest_of_all")],
)
def test_every_loss_teaches_to_tell_labels_apart(name: str, mining: str) -> None:
    """Half of the inputs tell the label, the other half is louder and tells nothing: a linear map can learn which."""
    generator = torch.Generator().manual_seed(0)

    def inputs(count: int, rows: int) -> Tensor:
        signal = torch.randn(1, count, 12, generator=generator).expand(rows, -1, -1)
        signal = signal + 0.3 * torch.randn(rows, count, 12, generator=generator)
        return torch.cat([signal, 2 * torch.randn(rows, count, 12, generator=generator)], dim=2)

    held = inputs(200, 2)
    network = torch.nn.Linear(24, 8)
    torch.nn.init.orthogonal_(network.weight, generator=generator)

    def found() -> float:
        with torch.no_grad():
            one, two = normalize(network(held), dim=2)
        return float((torch.cdist(one, two).argmin(dim=1) == torch.arange(200)).float().mean())

    rows = 4 if name == "triplet_margin++" else 2
    loss, before = make_loss(name, mining=mining), found()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(120):
        given = inputs(64, rows)
        label = torch.arange(64).expand(rows, 64)
        if mining == "random_global":
            given, label = torch.cat([given, inputs(64, 1)]), torch.cat([label, label[:1] + 64])
        optimiser.zero_grad()
        loss(normalize(network(given), dim=2), label, None, generator).backward()
        optimiser.step()
    assert found() > before + 0.3
