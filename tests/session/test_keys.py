"""Signatures and encryption. test_sessions and test_login show what depends on them."""

from __future__ import annotations

import pytest

from flask_devkit_sso.protocol.contract import Tokens
from flask_devkit_sso.session.keys import Keys, Signed

from .. import clock

OLD, NEW = b"old" * 10, b"new" * 10
TOKENS = Tokens("a", "r", 1.5, 60)


def test_a_signature_is_valid_for_one_purpose_in_one_installation() -> None:
    signed = Keys([OLD], "here").signer("session").sign(["x", 1], at=1.23456)
    assert Keys([OLD], "here").signer("session").read(signed) == Signed(["x", 1], 1.235)
    assert Keys([OLD], "here").signer("login").read(signed) is None
    assert Keys([OLD], "there").signer("session").read(signed) is None
    assert Keys([NEW], "here").signer("session").read(signed) is None


def test_the_time_of_a_signature_is_now_unless_it_is_given() -> None:
    clock.stop()
    signer = Keys([OLD], "here").signer("session")
    first = signer.read(signer.sign(1))
    clock.advance(2.5)
    second = signer.read(signer.sign(1))
    assert first is not None
    assert second is not None
    assert second.at - first.at == 2.5
    assert signer.read(signer.sign(1, at=0)) == Signed(1, 0)


@pytest.mark.parametrize("of_length", range(1, 10))
def test_only_one_spelling_of_a_signed_value(of_length: int) -> None:
    signer = Keys([OLD], "here").signer("session")
    signed = signer.sign("x" * of_length)
    assert signer.read(signed) is not None
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for text in (
        signed[:-1],
        f"{signed}=",
        f"{signed}A",
        f"{signed}\n",
        f" {signed}",
        f".{signed}",
        signed.replace(".", ".."),
        signed.replace(".", ""),
        *(signed[:-1] + last for last in letters if last != signed[-1]),
        *(signed[:-2] + "é" + signed[-1], "é", "", ".", "\ud800"),
    ):
        assert signer.read(text) is None, text


def test_the_first_key_signs_and_seals_and_each_key_opens() -> None:
    old, both, new = Keys([OLD], "here"), Keys([NEW, OLD], "here"), Keys([NEW], "here")
    signed_before, sealed_before = old.signer("session").sign(1, at=2), old.seal_tokens(TOKENS)
    signed, sealed = both.signer("session").sign(1, at=2), both.seal_tokens(TOKENS)
    assert both.signer("session").read(signed_before) == Signed(1, 2)
    assert new.signer("session").read(signed) == Signed(1, 2)
    assert old.signer("session").read(signed) is None
    assert both.unseal_tokens(sealed_before) == new.unseal_tokens(sealed) == TOKENS
    assert old.unseal_tokens(sealed) is None
    assert Keys([OLD], "there").unseal_tokens(sealed_before) is None


@pytest.mark.parametrize("sealed", ["", "x", "é", "\ud800", "gAAAA", "a" * 200])
def test_a_damaged_text_is_not_opened(sealed: str) -> None:
    assert Keys([OLD], "here").unseal(sealed) is None
    assert Keys([OLD], "here").unseal_tokens(sealed) is None


@pytest.mark.parametrize("text", ["", "null", "[]", "[1, 2, 3, 4]", "{}", '{"access_token": "a"}'])
def test_tokens_of_another_version_are_not_opened(text: str) -> None:
    keys = Keys([OLD], "here")
    assert keys.unseal(keys.seal(text)) == text
    assert keys.unseal_tokens(keys.seal(text)) is None


def test_what_an_earlier_release_signed_and_sealed() -> None:
    """Other keys would sign everybody out at the next update."""
    keys = Keys([OLD], "here")
    signed = "WyJ4IiwxLjVd.6rrF_ubJZY8khg0No8HW7hizCB1WjTqnxLJX1TdkukI"
    assert keys.signer("session").sign("x", at=1.5) == signed
    sealed = (
        "gAAAAABrCNOzO_1FAAeMYJh0eFZmh14PgJcujo6YKKi6oeWIePfPgvjB-qOyvNtqROmuNytQiCgz5J5FpM2_O7SeV-"
        "_2pvLflQ=="
    )
    assert keys.unseal(sealed) == "sealed"
