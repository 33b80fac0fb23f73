"""A round of secure aggregation between five sites and a server: honest, with drop-outs, and with liars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from tests.tiny_authority import NOW, Authority

from brats_fl.aggregation import weighted_mean
from brats_fl.digests import digest_of_model
from brats_fl.errors import LateUpdateError, MaskingError, ModelError
from brats_fl.privacy.fixed_point import Words, decode, encode
from brats_fl.privacy.identity import read_identity
from brats_fl.privacy.messages import Advert, shares_in_mean
from brats_fl.privacy.secret_sharing import SHARE_BYTES
from brats_fl.privacy.server_round import ServerRound
from brats_fl.privacy.site_round import SiteRound

CASES = {"a": 10, "b": 20, "c": 30, "d": 25, "e": 15}
CONTEXT = "a job/3"
SIZE = 7
NOBODY: frozenset[str] = frozenset()

MODEL = {"conv": np.ones((2, 3), np.float32), "bias": np.zeros(1, np.float32)}
GLOBAL = digest_of_model(MODEL)
UPDATES = {
    site: {
        "conv": np.random.default_rng(seed).normal(0, 1e-3, (2, 3)).astype(np.float32),
        "bias": np.full(1, seed, np.float32),
    }
    for seed, site in enumerate(CASES)
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The federation's."""
    return Authority(tmp_path_factory.mktemp("federation"))


def make_sites(authority: Authority | None = None, threshold: int = 3) -> dict[str, SiteRound]:
    return {
        site: SiteRound(site, cases, CONTEXT, threshold, authority.identity(site) if authority else None)
        for site, cases in CASES.items()
    }


def set_up(sites: Mapping[str, SiteRound], server: ServerRound, silent: Iterable[str] = ()) -> None:
    """Keys and shares; the silent ones give their keys and then nothing."""
    for name, site in sites.items():
        server.take_advert(name, as_told(site.advert))
    for name, site in sites.items():
        shares = site.deal(server.adverts)
        if name not in silent:
            server.take_shares(name, shares)


def as_told(advert: Advert) -> dict[str, object]:
    return dict(vars(advert))


def reveal(sites: Mapping[str, SiteRound], server: ServerRound) -> dict[str, object]:
    server.is_closed = True
    for name in server.survivors:
        server.take_confirmation(name, sites[name].confirm(server.survivors))
    return {name: sites[name].reveal(server.confirmations) for name in server.survivors}


def train(sites: Mapping[str, SiteRound], server: ServerRound, lost: Iterable[str] = ()) -> dict[str, Words]:
    masked = {}
    for name in server.sealed:
        sites[name].open(server.sealed)
        masked[name] = sites[name].mask(UPDATES[name], MODEL, max_share=1.0)
        if name not in lost:
            server.add(name, masked[name])
    return masked


def mean_of(server: ServerRound, words: Words) -> dict[str, np.ndarray]:
    shares = server.shares(1.0)
    return decode(words, sum(shares[site] for site in server.survivors), len(server.sealed), UPDATES["a"])


def plain_mean(names: Iterable[str]) -> dict[str, np.ndarray]:
    return weighted_mean([(UPDATES[name], CASES[name]) for name in sorted(names)])


def assert_close(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-6)


def test_sum_of_masked_updates_is_the_plain_mean() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server)

    assert_close(mean_of(server, server.unmask(reveal(sites, server))), plain_mean(CASES))
    assert server.false_shares == set()


@pytest.mark.parametrize("lost", ["a", "c", "e", "ab", "de"])
def test_round_lives_with_sites_that_drop_out_after_they_gave_their_keys(lost: str) -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server, lost)

    assert_close(mean_of(server, server.unmask(reveal(sites, server))), plain_mean(set(CASES) - set(lost)))


def test_site_that_deals_no_shares_is_left_out_from_the_start() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server, silent="b")
    train(sites, server)

    assert_close(mean_of(server, server.unmask(reveal(sites, server))), plain_mean("acde"))


def test_round_with_too_few_updates_is_none_and_nobody_reveals_anything() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server, lost="abc")

    with pytest.raises(MaskingError, match="a sum of 2 updates is asked for; 3 of those that take part are needed"):
        sites["d"].confirm(server.survivors)
    with pytest.raises(MaskingError, match="2 updates came, 3 are needed"):
        server.unmask({})


def test_what_a_site_sends_looks_like_noise_even_with_all_masks_but_its_own_taken_off() -> None:
    """What the server has when it calls a site lost whose update it has: the site's own mask stays on it."""
    size = 4096
    model = {"w": np.zeros(size, np.float32)}
    sites, server = make_sites(), ServerRound(CONTEXT, 3, size, digest_of_model(model))
    set_up(sites, server)
    update = dict(model)
    for site in sites.values():
        site.open(server.sealed)
    masked = {name: site.mask(update, model, 1.0) for name, site in sites.items()}
    for name in "bcde":
        server.add(name, masked[name])
    revealed = reveal(sites, server)

    assert not server.unmask(revealed).any()  # of the four others
    with pytest.raises(LateUpdateError, match="after the sum was closed"):
        server.add("a", masked["a"])
    # 64 counts of 64 expected each: chi-square of 63 degrees is above 120 once in 50,000 times.
    counts = np.histogram(masked["a"], bins=64, range=(0, 2**32))[0]
    assert ((counts - 64) ** 2 / 64).sum() < 120


def test_of_no_site_both_secrets_are_revealed() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server, lost="a")
    revealed = reveal(sites, server)

    for name, given in revealed.items():
        assert isinstance(given, dict)
        held = sites[name].held
        assert given["a"] == held["a"][SHARE_BYTES:].hex()
        assert {peer: given[peer] for peer in "bcde"} == {peer: held[peer][:SHARE_BYTES].hex() for peer in "bcde"}
        with pytest.raises(MaskingError, match="does not follow what it has done"):
            sites[name].confirm("abcd")


def test_server_that_tells_sites_of_other_survivors_learns_nothing() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server)
    told = {"a": "abc", "b": "abd", "c": "cde", "d": "cde", "e": "abcde"}
    confirmations = {name: sites[name].confirm(told[name]) for name in told}

    for site in sites.values():
        with pytest.raises(MaskingError, match="sites were told of the same updates"):
            site.reveal(confirmations)


def test_server_that_gives_one_site_another_model_learns_nothing() -> None:
    """With the others' model such that it does not train, the sum would be the one site's update."""
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    dead = {name: np.zeros_like(value) for name, value in MODEL.items()}
    for name, site in sites.items():
        site.open(server.sealed)
        server.add(name, site.mask(UPDATES[name], MODEL if name == "a" else dead, max_share=1.0))

    found = mean_of(server, server.unmask(reveal(sites, server)))

    # Masks that do not cancel are anywhere in +-16: all seven are within 3 of the truth once in 100,000 times.
    assert max(np.abs(found[name] - plain_mean(CASES)[name]).max() for name in found) > 3


def test_models_that_differ_in_a_name_a_shape_or_a_bit_have_other_digests() -> None:
    changed = {"conv": np.nextafter(MODEL["conv"], 2, dtype=np.float32), "bias": MODEL["bias"]}
    others = [changed, {"conv": MODEL["conv"].T, "bias": MODEL["bias"]}, {"cone": MODEL["conv"], "bias": MODEL["bias"]}]

    assert len({GLOBAL, *map(digest_of_model, others)}) == 4
    assert digest_of_model(dict(reversed(MODEL.items()))) == GLOBAL


def test_site_that_lies_about_its_shares_is_named_and_costs_nothing_where_another_stands_in() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server, lost="e")
    revealed = reveal(sites, server)
    revealed["b"] = dict.fromkeys(CASES, "00" * SHARE_BYTES)

    assert_close(mean_of(server, server.unmask(revealed)), plain_mean("abcd"))
    assert server.false_shares == {"b"}


@pytest.mark.parametrize("odd", [None, 3, {"a": 1}, {"a": "zz"}, {"a": "00"}, [], "ab"])
def test_what_is_no_share_counts_as_a_false_one(odd: object) -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server)

    assert_close(mean_of(server, server.unmask({**reveal(sites, server), "b": odd})), plain_mean(CASES))
    assert server.false_shares == {"b"}


def test_too_many_false_shares_cost_the_round() -> None:
    sites, server = make_sites(threshold=4), ServerRound(CONTEXT, 4, SIZE, GLOBAL)
    set_up(sites, server)
    train(sites, server)
    revealed = reveal(sites, server)
    revealed |= dict.fromkeys("ab", dict.fromkeys(CASES, "00" * SHARE_BYTES))

    with pytest.raises(MaskingError, match="no 4 of the 5 shares"):
        server.unmask(revealed)


def test_server_that_swaps_a_key_is_found_by_every_site(authority: Authority) -> None:
    sites = make_sites(authority)
    roster = {name: site.advert for name, site in sites.items()}
    own = SiteRound("a", CASES["a"], CONTEXT, 3, authority.identity("server"))
    unsigned = SiteRound("a", CASES["a"], CONTEXT, 3, None)

    for swapped in (own.advert, unsigned.advert, replace(roster["a"], masking_key=own.advert.masking_key)):
        site = SiteRound("b", CASES["b"], CONTEXT, 3, authority.identity("b"))
        with pytest.raises(MaskingError, match=r"the key of a is (not )?signed by a"):
            site.deal({**roster, "a": swapped, "b": site.advert})


def test_server_that_swaps_a_key_towards_its_owner_is_found_by_the_owner() -> None:
    sites = make_sites()
    roster = {name: site.advert for name, site in sites.items()}

    with pytest.raises(MaskingError, match="another key than this site's own"):
        sites["a"].deal({**roster, "a": make_sites()["a"].advert})


def test_sites_that_were_told_of_different_keys_cannot_open_each_others_shares() -> None:
    sites, other = make_sites(), make_sites()
    roster = {name: site.advert for name, site in sites.items()}
    dealt = {name: sites[name].deal(roster) for name in "bcde"}
    # In the simulator nothing shows whose keys are whose.
    dealt["a"] = sites["a"].deal({**roster, "e": other["e"].advert})

    with pytest.raises(MaskingError, match="a sealed message does not open"):
        sites["b"].open(dealt)


@pytest.mark.parametrize("context", ["a job/2", "another job/3"])
def test_keys_of_another_round_or_job_are_not_taken(context: str, authority: Authority) -> None:
    old = SiteRound("a", 10, context, 3, authority.identity("a"))
    server = ServerRound(CONTEXT, 3, SIZE, GLOBAL, authority.certificate)

    with pytest.raises(MaskingError, match="the key of a is not signed by a certificate of this federation"):
        server.take_advert("a", as_told(old.advert))


def test_certificate_of_another_federation_or_out_of_date_is_not_taken(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path)
    server = ServerRound(CONTEXT, 3, SIZE, GLOBAL, authority.certificate)
    foreign = SiteRound("a", 10, CONTEXT, 3, other.identity("a"))
    expired = SiteRound("b", 10, CONTEXT, 3, authority.identity("b", until=NOW - timedelta(hours=1)))

    with pytest.raises(MaskingError, match="not signed by a certificate of this federation"):
        server.take_advert("a", as_told(foreign.advert))
    with pytest.raises(MaskingError, match="the certificate was not valid at"):
        server.take_advert("b", as_told(expired.advert))


def test_kit_without_certificates_cannot_take_part(tmp_path: Path) -> None:
    with pytest.raises(MaskingError, match="the certificates of the kit must be there"):
        read_identity(tmp_path)


def test_signed_round_gives_the_plain_mean(authority: Authority) -> None:
    sites, server = make_sites(authority), ServerRound(CONTEXT, 3, SIZE, GLOBAL, authority.certificate)
    set_up(sites, server)
    train(sites, server, lost="d")

    assert_close(mean_of(server, server.unmask(reveal(sites, server))), plain_mean("abce"))


def test_server_cannot_open_what_sites_seal_nor_change_it() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server)
    text = bytearray.fromhex(server.sealed["a"]["b"])
    text[0] ^= 1
    changed = {**server.sealed, "a": {**server.sealed["a"], "b": text.hex()}}

    assert sites["a"].masking.private not in bytes(text)
    with pytest.raises(MaskingError, match="a sealed message does not open"):
        sites["b"].open(changed)


@pytest.mark.parametrize(("threshold", "sites"), [(1, 2), (2, 2), (2, 3), (2, 4), (3, 6), (6, 5), (2, 5)])
def test_neither_two_nor_half_of_the_sites_may_reveal_anything(threshold: int, sites: int) -> None:
    rounds = [SiteRound(str(i), 1, CONTEXT, threshold, None) for i in range(sites)]

    with pytest.raises(MaskingError, match="needs 3 hospitals in each sum, and more than half of all"):
        rounds[0].deal({site.site: site.advert for site in rounds})


def test_share_of_a_site_is_capped_alike_at_site_and_server() -> None:
    sites = [SiteRound(name, cases, CONTEXT, 2, None) for name, cases in {"a": 80, "b": 10, "c": 10}.items()]
    roster = {site.site: site.advert for site in sites}

    assert shares_in_mean(roster, "abc", max_share=0.5) == pytest.approx({"a": 0.5, "b": 0.25, "c": 0.25})


@pytest.mark.parametrize(
    "change",
    [
        {"cases": 0},
        {"cases": 10**9},
        {"site": "b"},
        {"sealing_key": "00"},
        {"masking_key": "zz" * 32},
        {"cases": "many"},
        {"more": 1},
    ],
)
def test_keys_that_are_none_are_refused_by_the_server(change: dict[str, object]) -> None:
    advert = as_told(SiteRound("a", 10, CONTEXT, 3, None).advert)

    with pytest.raises(MaskingError, match=r"keys of a|no message of secure|_key must be 32 bytes"):
        ServerRound(CONTEXT, 3, SIZE, GLOBAL).take_advert("a", {**advert, **change})


def test_public_key_without_a_secret_behind_it_is_refused() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    roster = {name: site.advert for name, site in sites.items()}
    roster["a"] = replace(roster["a"], sealing_key="00" * 32)  # of low order: every exchange with it gives zeros

    with pytest.raises(MaskingError, match="a public key cannot be used"):
        sites["b"].deal(roster)
    assert server.adverts == {}


def test_nothing_but_a_masked_update_of_the_model_is_added() -> None:
    sites, server = make_sites(), ServerRound(CONTEXT, 3, SIZE, GLOBAL)
    set_up(sites, server, silent="e")
    words = np.zeros(SIZE, np.uint32)

    for odd in (words[1:], words.astype(np.float32), words.astype(np.int64), words.reshape(1, -1), [0] * SIZE, None):
        with pytest.raises(ModelError, match="7 unsigned 32-bit words"):
            server.add("a", odd)
    with pytest.raises(ModelError, match="has not given its keys"):
        server.add("e", words)
    server.add("a", words)
    with pytest.raises(ModelError, match="has contributed already"):
        server.add("a", words)


def test_masks_change_with_the_round() -> None:
    first, second = make_sites(), make_sites()
    words = []
    for sites in (first, second):
        server = ServerRound(CONTEXT, 3, SIZE, GLOBAL)
        set_up(sites, server)
        words.append(train(sites, server)["a"])

    assert not np.array_equal(words[0], words[1])
    assert not np.array_equal(words[0], encode(UPDATES["a"], 0.1, 5))
