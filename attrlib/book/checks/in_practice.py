"""Checks of the chapter "In practice"."""

import math

import torch

from attrlib.book._exercises import expect, expect_number, run


def beyond_chance(answer: object) -> str:
    """`beyond_chance(score, chance)` is 0 at chance and 1 at a perfect score."""
    hint = "Take away the chance level, and divide by 1 minus the chance level."
    for score, chance, right in (
        (0.5, 0.5, 0.0),
        (1.0, 0.3, 1.0),
        (0.6, 0.2, 0.5),
        (0.0, 0.2, -0.25),
    ):
        tried = f"score={score}, chance={chance}"
        got = run(answer, score, chance, tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Below chance it is negative, which can happen, too."


def hours(answer: object) -> str:
    """`hours(pictures, steps, seconds, samples)` of an attack, six gradients a step."""
    hint = "Pictures times steps times six times samples times seconds, over 3,600."
    for pictures, steps, seconds, samples in (
        (100, 400, 0.01, 1),
        (8, 60, 0.5, 32),
        (1, 1, 600.0, 1),
    ):
        tried = f"pictures={pictures}, steps={steps}, seconds={seconds}, samples={samples}"
        got = run(answer, pictures, steps, seconds, samples, tried=tried, hint=hint)
        right = pictures * steps * seconds * samples / 600
        expect_number(got, right, tried=tried, hint=hint)
    return "An average of 32 gradients turns an hour into more than a day."


def mean_of_all(answer: object) -> str:
    """`mean_of_all(scores, attacked)` counts 1 for pictures that could not be attacked."""
    hint = "Put 1 where `attacked` is False, whatever stands there, and take the plain mean."
    nan = math.nan
    for scores, attacked, right in (
        ((0.2, 0.4, 0.6), (True, True, True), 0.4),
        ((0.2, 0.4, 0.3), (True, True, False), 1.6 / 3),
        ((0.2, nan), (True, False), 0.6),
        ((nan, 0.5), (True, False), nan),
        ((0.1, 0.3), (False, False), 1.0),
    ):
        tried = f"scores={list(scores)}, attacked={list(attacked)}"
        got = run(answer, torch.tensor(scores), torch.tensor(attacked), tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Nobody gains by failing to attack."


def contradictions(answer: object) -> str:
    """`contradictions(proved, reached)` lists where the attack is below the certificate."""
    hint = "The certificate is broken where the attack has reached less than was proved."
    nan = math.nan
    for proved, reached, right in (
        ((0.2, 0.5, 0.1), (0.3, 0.4, 0.1), [1]),
        ((0.0, 0.0), (0.5, 0.0), []),
        ((0.9, nan, 0.3), (0.1, 0.2, nan), [0]),
        ((0.4, 0.4), (0.3, 0.3), [0, 1]),
    ):
        tried = f"proved={list(proved)}, reached={list(reached)}"
        got = run(answer, torch.tensor(proved), torch.tensor(reached), tried=tried, hint=hint)
        expect(got == right, tried=tried, expected=str(right), got=got, hint=hint)
    return "An empty list proves nothing, but a long one finds mistakes."
