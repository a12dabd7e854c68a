"""Fold-in of new items where the learned part predicts next items."""

from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.serving.test_new_items import folded_again
from tests.trainer.test_next_item import ALONE, TIMED, chain, learned, of_items
from trainer.embedding.blend import BlendEmbeddings
from trainer.embedding.edges import Own
from trainer.embedding.item_fold_in import fold_in
from trainer.embedding.next_item_fold_in import Pairs, rows_of_new_items

RECENCY = 0.7
NEW = 2
USERS = 5


@pytest.fixture
def tables() -> BlendEmbeddings:
    """Random tables of seven items, the last of which no state ever had."""
    torch.manual_seed(0)
    tensors = {name: torch.randn(7, 4) for name in ("incoming", "outgoing")}
    tensors["incoming"][6] = 0
    tensors |= {"base": torch.zeros(USERS, 0), "squares": torch.zeros(0)}
    tensors |= {"strengths": torch.ones(7), "scales": torch.tensor([0.0, 0.0, 3.0, 0.0])}
    return BlendEmbeddings("blend", 1, True, tensors, RECENCY)


def edges(ages: bool) -> tuple[Own, Own]:
    """Own edges of five users, one in three of strength 0, and two new items that three and two of
    the users took."""
    rng = np.random.default_rng(0)
    items = [rng.permutation(7)[:4] for _ in range(USERS)]
    orders = [rng.permutation(6) for _ in range(USERS)]  # ages of four own and two new items
    own = Own(
        torch.arange(USERS + 1) * 4,
        torch.from_numpy(np.concatenate(items)),
        torch.from_numpy(
            (rng.random(USERS * 4) * (np.arange(USERS * 4) % 3 > 0)).astype(np.float32)
        ),
        torch.from_numpy(np.concatenate([order[:4] for order in orders])) if ages else None,
    )
    users = [0, 2, 3, 1, 3]
    new = [0, 0, 0, 1, 1]
    taken = torch.tensor([orders[user][4 + item] for user, item in zip(users, new, strict=True)])
    return own, Own(torch.tensor([0, 3, 5]), torch.tensor(users), torch.ones(5), taken)


@pytest.mark.parametrize("ages", [True, False])
def test_rows_of_new_items_equal_a_plain_loop(tables: BlendEmbeddings, ages: bool) -> None:
    own, touched = edges(ages)
    incoming, outgoing = tables.tensors["incoming"], normalize(tables.outgoing, dim=1)
    states, followed = torch.zeros(NEW, 4), torch.zeros(NEW, 4)
    for item in range(NEW):
        for at in range(int(touched.starts[item]), int(touched.starts[item + 1])):
            state = torch.zeros(4)
            user = int(touched.items[at])
            for edge in range(4 * user, 4 * user + 4):
                later = int(own.ages[edge] - touched.ages[at]) if own.ages is not None else 0  # type: ignore[index]
                if later >= 0:
                    faded = own.strengths[edge] * max(1, later) ** -RECENCY
                    state += faded * incoming[own.items[edge]]
                elif own.strengths[edge] > 0:
                    followed[item] += 0.5**-later * outgoing[own.items[edge]]
            states[item] += normalize(state, dim=0)
    usual = incoming[:6].norm(dim=1).mean()
    brings, scored = rows_of_new_items(tables, own, touched, Pairs.of(own, touched))
    torch.testing.assert_close(brings, usual * normalize(followed, dim=1))
    torch.testing.assert_close(scored, normalize(states, dim=1))


def test_what_is_scored_has_the_scale_of_the_part_and_the_popularity(
    tables: BlendEmbeddings,
) -> None:
    own, touched = edges(ages=True)
    settings = {n: v for n, v in asdict(replace(ALONE, learned_power=0.5)).items() if v is not None}
    made = fold_in(tables, settings, torch.arange(USERS), own, own.sums() + 1, touched)
    torch.testing.assert_close(made.outgoing.norm(dim=1), 3 * torch.tensor([3.0, 2.0]).sqrt())


def test_on_a_chain_a_new_item_is_next_for_users_before_it_and_not_for_users_past_it() -> None:
    made = chain()
    settings = replace(ALONE, recency=1.0)
    model = learned(made, settings)
    numbers = {name: n for n, name in enumerate(made.item_ids.values.to_pylist())}
    for at in range(0, TIMED, 5):
        item = numbers[f"i{at}"]
        folded = folded_again(made, model, item)
        for name in ("incoming", "outgoing"):
            model.tensors[name][item] = getattr(folded, name)[0]
        places = {}
        for newest in (at - 1, at + 4):
            walked = [numbers[f"i{(newest - step) % TIMED}"] for step in (2, 1, 0)]
            scores = model.score(torch.tensor([-1]), of_items(*walked))[0]
            scores[[number for number in walked if number != item]] = -torch.inf
            places[newest] = int((scores > scores[item]).sum())
        assert places[at - 1] <= 1
        assert places[at + 4] > places[at - 1] + 3
        after = model.score(torch.tensor([-1]), of_items(item))[0]
        after[item] = -torch.inf
        following = [numbers[f"i{(at + step) % TIMED}"] for step in range(1, 4)]
        assert int(after.argmax()) in following
