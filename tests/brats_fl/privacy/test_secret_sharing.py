from __future__ import annotations

import secrets
from itertools import combinations

import pytest

from brats_fl.errors import MaskingError
from brats_fl.privacy.secret_sharing import PRIME, SECRET_BYTES, combine, interpolate, split

SECRET = bytes(range(SECRET_BYTES))
POINTS = (1, 2, 3, 4, 5)


def test_line_through_two_points_is_found_again() -> None:
    shares = {1: 10, 2: 13}  # y = 7 + 3 x

    assert [interpolate(shares, at) for at in (0, 1, 5)] == [7, 10, 22]


def test_prime_is_one_and_above_every_secret() -> None:
    # Miller-Rabin with 20 bases: a composite passes with a probability under 4 ** -20.
    odd, twos = PRIME - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(20):
        powers = [pow(2 + secrets.randbelow(PRIME - 3), odd, PRIME)]
        for _ in range(twos):
            powers.append(powers[-1] ** 2 % PRIME)
        assert powers[0] == 1 or PRIME - 1 in powers[:-1]
    assert PRIME > 2**256


@pytest.mark.parametrize("secret", [SECRET, bytes(SECRET_BYTES), b"\xff" * SECRET_BYTES])
def test_any_three_of_five_shares_give_the_secret_back(secret: bytes) -> None:
    shares = split(secret, 3, POINTS)

    for points in combinations(POINTS, 3):
        found, false = combine({point: shares[point] for point in points}, 3, lambda found: found == secret)
        assert (found, false) == (secret, frozenset())


def test_two_of_five_shares_fit_every_secret() -> None:
    shares = split(SECRET, 3, POINTS)

    # Whatever the secret was, there is a third share that goes with these two.
    for guess in (0, 1, PRIME - 1):
        third = interpolate({0: guess, 1: shares[1], 2: shares[2]}, 3)
        assert interpolate({1: shares[1], 2: shares[2], 3: third}, 0) == guess


def test_false_share_is_found_where_another_stands_in_for_it() -> None:
    shares = split(SECRET, 3, POINTS)
    shares[2] += 1

    assert combine(shares, 3, lambda found: found == SECRET) == (SECRET, frozenset({2}))


def test_too_few_right_shares_give_an_error_and_no_secret() -> None:
    shares = split(SECRET, 3, POINTS)

    with pytest.raises(MaskingError, match="2 shares of a secret came, 3 are needed"):
        combine({1: shares[1], 2: shares[2]}, 3, lambda found: True)
    with pytest.raises(MaskingError, match="no 3 of the 4 shares"):
        combine({1: shares[1], 2: shares[2], 3: shares[3] + 1, 4: shares[4] + 1}, 3, lambda found: found == SECRET)


@pytest.mark.parametrize(
    ("secret", "threshold", "points", "message"),
    [
        (b"short", 2, POINTS, "secret must be 32 bytes"),
        (SECRET, 6, POINTS, r"threshold must be 1 to 5, the shares \(got 6\)"),
        (SECRET, 0, POINTS, "threshold must be 1 to 5"),
        (SECRET, 2, (1, 1), "different whole numbers above 0"),
        (SECRET, 2, (0, 1), "different whole numbers above 0"),  # the share at 0 is the secret
    ],
)
def test_what_cannot_be_shared_is_refused(secret: bytes, threshold: int, points: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(secret, threshold, points)
