"""What the queue promises, end to end: tokens by user while all of them have work waiting, by the stand-in's own count. The
exact bounds are shown with time passed in (tests/unit/queue); here a round and whole requests are a part of every share."""

import collections
import math

import pytest

from wire import wait_for

LENGTHS = (40, 60, 80, 120, 160, 240, 320, 480, 640, 960)
PROMPT, ENOUGH = 26, 20000  # tokens
LONG_PROMPT = 20000  # characters


@pytest.fixture
def door(start_fake, start_gateway):
    """door({user: weight}, slots): a gateway before a stand-in with so many slots; a key for each user."""
    def start(weights, slots):
        fake = start_fake("--num-parallel", slots)
        keys = [{"key": key_of(user), "name": user, "user": user, "weight": weight} for user, weight in {**weights, "holder": 1}.items()]
        gateway = start_gateway(fake, ollama_api=None, auth={"valid_keys": keys}, max_waiting=10000, max_waiting_per_user=10000,
                                max_connections_per_address=10000,
                                backends=[{"name": "gpu1", "url": fake.url, "slots": slots}])
        return gateway, fake
    return start


def key_of(user):
    return f"fairness-key-of-{user}"


def ask_and_hold_back(gateway, fake, demand, slots):
    """demand: {user: (requests, tokens each)}. All of them wait when the first one begins. Gives the callers' connections."""
    holders = [gateway.open_chat("tokens:100000@50", key=key_of("holder"), stream=True) for _ in range(slots)]
    fake.wait_running(slots)
    wires = []
    for turn in range(max(count for count, _ in demand.values())):
        for user, (count, length) in demand.items():
            if turn < count:
                wires.append(gateway.open_chat(f"tokens:{length} id={user}-{turn}", key=key_of(user)))
    wait_for(lambda: gateway.metric("queue_waiting") == len(wires), 20, "all of them wait")
    for holder in holders:
        holder.close()
    return wires


def shares(fake, demand):
    """{user: tokens of what was begun until one of them had nothing waiting any more}, prompts included, as everybody pays."""
    left = {user: count for user, (count, _) in demand.items()}
    spent = collections.Counter(dict.fromkeys(demand, 0))
    chats = sorted((chat for chat in fake.seen() if "id" in chat), key=lambda chat: chat["started_ms"])
    for chat in chats:
        user = chat["id"].rpartition("-")[0]
        spent[user] += chat["prompt_tokens"] + chat["eval_tokens"]
        left[user] -= 1
        if not left[user]:
            return spent
    raise AssertionError("nobody came to an end")


def jain(values):
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))


@pytest.mark.parametrize("slots", [1, 2])
def test_ten_users_who_want_unequal_amounts_get_equal_ones(door, slots):
    demand = {f"user{n}": (math.ceil(ENOUGH * (1 + n % 3) / (length + PROMPT)), length) for n, length in enumerate(LENGTHS)}
    gateway, fake = door(dict.fromkeys(demand, 1), slots)
    for wire in ask_and_hold_back(gateway, fake, demand, slots):
        assert wire.answer().status == 200
    spent = shares(fake, demand)
    print(dict(spent), f"Jain's index {jain(spent.values()):.4f}")
    assert jain(spent.values()) >= 0.99, spent


def test_weights_are_met_in_tokens(door):
    weights = {"one": 1, "two": 2, "four": 4}
    demand = {"one": (80, 500), "two": (280, 200), "four": (280, 350)}
    gateway, fake = door(weights, 2)
    for wire in ask_and_hold_back(gateway, fake, demand, 2):
        assert wire.answer().status == 200
    spent = shares(fake, demand)
    parts = {user: spent[user] / sum(spent.values()) / (weight / sum(weights.values())) for user, weight in weights.items()}
    print(dict(spent), {user: round(part, 3) for user, part in parts.items()})
    assert all(0.95 <= part <= 1.05 for part in parts.values()), (spent, parts)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_who_hangs_up_before_the_first_token_has_paid_for_the_prompt(door, stream):
    """Half the requests are long prompts whose caller leaves as soon as the backend reads them. Each costs as much as all
    that the other one asks for, so no more than the first two of them come before the last of his."""
    gateway, fake = door({"leaver": 1, "stayer": 1}, 1)
    holder = gateway.open_chat("tokens:100000@50", key=key_of("holder"), stream=True)
    fake.wait_running(1)
    leaving = {f"leaver-{n}": gateway.open_chat(f"tokens:9@9+60000 id=leaver-{n} {'x' * LONG_PROMPT}", key=key_of("leaver"), stream=stream)
               for n in range(12)}
    staying = [gateway.open_chat(f"tokens:10 id=stayer-{n}", key=key_of("stayer")) for n in range(40)]
    wait_for(lambda: gateway.metric("queue_waiting") == len(leaving) + len(staying), 20, "all of them wait")
    holder.close()

    def all_who_stay_are_answered():
        chats = fake.seen()
        for chat in chats:
            if chat["outcome"] == "running" and chat.get("id") in leaving:
                leaving[chat["id"]].close()
        return sum(chat["outcome"] == "answered" for chat in chats) >= len(staying)

    wait_for(all_who_stay_are_answered, 30, "all of his are answered")
    begun = [chat["id"] for chat in sorted(fake.seen(), key=lambda chat: chat["started_ms"] or math.inf) if "id" in chat]
    last = len(begun) - 1 - [chat.startswith("stayer") for chat in reversed(begun)].index(True)
    assert sum(chat.startswith("leaver") for chat in begun[:last]) <= 2, begun
    for wire in [*leaving.values(), *staying]:
        wire.close()
