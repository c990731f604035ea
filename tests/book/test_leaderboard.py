"""The leaderboard says what is in the tables, and can be sorted and filtered in a browser."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean, mean

import pytest
import torch
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser, Page

from attrlib import attributions, checkpoints, data
from attrlib.attacks import SUITE
from attrlib.benchmark import COLUMNS, cells
from attrlib.maps import to_heatmap, topk_mask
from attrlib.recipes import RECIPES
from tests.book.building import ROOT
from tests.tables import rows

sys.path.append(str(ROOT / "tools" / "sphinx"))
from leaderboard import counterparts, load, page, training_cost

RESULTS = ROOT / "results"
TITLES = {"8/255": "0.03137", "0.09": "0.09000", "0.1": "0.10000"}


@pytest.fixture(scope="module")
def html() -> str:
    return page(load(RESULTS))


@pytest.fixture(scope="module")
def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def _newest(soup: BeautifulSoup) -> Tag:
    table = soup.find("table")
    assert isinstance(table, Tag)
    return table


def _titles(table: Tag) -> list[str]:
    heads = table.select("thead tr:nth-of-type(2) th")
    return [head.get_text().replace("\xa0", " ") for head in heads]


def _numbers(table: Tag, title: str) -> dict[tuple[str, str], float]:
    """The numbers of a column by network and seed."""
    place, found = _titles(table).index(title), {}
    for body in table.select("tbody"):
        for row in body.find_all("tr"):
            cells = row.find_all(["th", "td"])
            said = cells[0].get_text().strip()
            seed = said.removeprefix("seed ") if said.startswith("seed ") else "all"
            if cells[place].has_attr("data-value"):
                found[str(body["data-name"]), seed] = float(cells[place]["data-value"])
    return found


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.title)
def test_numbers_are_those_of_the_tables(soup: BeautifulSoup, column: object) -> None:
    table, newest = _newest(soup), soup.select(".leaderboard")[0]["id"].split("-")
    where = {"attack": column.attack, "quantity": column.quantity, "list": newest[3]}
    found = {}
    for path in (RESULTS / "recipes.csv", RESULTS / "benign.csv"):
        for row in rows(path, **where):
            fits = row.get("eps", "0.00000") == f"{column.eps:.5f}"
            fits = fits and row["map"] in ("gradient", "none")
            if fits and row.get("suite", "") in ("", newest[1]):
                found[row["recipe"], row["seed"]] = float(row["value"])
    if not any(name in {body["data-name"] for body in table.select("tbody")} for name, _ in found):
        assert column.title not in _titles(table)  # an empty column is left out
        return
    shown = _numbers(table, column.title)
    assert shown
    assert shown == {place: found[place] for place in shown}
    networks = {body["data-name"] for body in table.select("tbody")}
    several = {name for name, seed in shown if seed != "all"}
    assert {(name, seed) for name, seed in found if name in networks} - {*shown} == {
        (name, seed)
        for name, seed in found
        if name in networks and name not in several and seed != "all"
    }


def test_every_network_of_the_table_is_there_in_order(soup: BeautifulSoup) -> None:
    newest = soup.select(".leaderboard")[0]["id"].split("-")
    attacked = rows(RESULTS / "recipes.csv", attack="top-k suite", suite=newest[1])
    expected = {row["recipe"] for row in attacked}
    names = [str(body["data-name"]) for body in _newest(soup).select("tbody")]
    assert sorted(names) == sorted(expected)
    shown = _numbers(_newest(soup), "Top 100, ε = 8/255")
    values = [shown[name, "all"] for name in names]
    assert values == sorted(values, reverse=True)
    assert "Identified, ε = 8/255" in _titles(_newest(soup))
    for name in {*checkpoints.names()} & {*names}:  # what has weights has benign changes, too
        assert (name, "all") in _numbers(_newest(soup), "JPEG"), name


def test_a_cell_shows_interval_and_ranks(soup: BeautifulSoup) -> None:
    table = _newest(soup)
    place = _titles(table).index("Top 100, ε = 8/255")
    bodies = table.select("tbody")
    best = next(body for body in bodies if body.find("tr").find(string=re.compile("^rank")))
    cell = best.find("tr").find_all(["th", "td"])[place]  # those of one seed have no rank
    interval, ranks = (small.get_text() for small in cell.find_all("small"))
    newest = soup.select(".leaderboard")[0]["id"].split("-")
    (row,) = rows(
        RESULTS / "recipes.csv",
        recipe=best["data-name"],
        attack="top-k suite",
        suite=newest[1],
        eps="0.03137",
        quantity="topk",
        seed="all",
    )
    assert interval == f"{float(row['low']):.2f} to {float(row['high']):.2f}"
    assert ranks.startswith(("rank 1 ", "ranks 1–"))
    assert "(1–" in ranks
    seeds = best.find_all("tr", class_="seed")
    assert len(seeds) == len(checkpoints.seeds(str(best["data-name"])))
    assert "rank" not in seeds[0].get_text()


def test_what_is_proved_stands_beside_what_attacks_leave(soup: BeautifulSoup) -> None:
    place = _titles(_newest(soup)).index("Bounds, top 100")
    body = _newest(soup).select_one("tbody[data-name=interval-maps]")
    where = {"kind": "recorded", "certificate": "top 100", "eps": "0.03137"}
    recorded = [
        rows(RESULTS / "soundness.csv", net=f"interval-maps-s{seed}", **where)[0]
        for seed in checkpoints.seeds("interval-maps")
    ]
    proved, left = (
        fmean(float(row[name]) for row in recorded) for name in ("certified", "attacked")
    )
    first, *each = body.find_all("tr")
    said = first.find_all(["th", "td"])[place].get_text()
    assert said.startswith(f"≥ {proved:.2f}")
    assert f"attack leaves {left:.2f}" in said
    assert f"ε = {float(recorded[0]['eps']):.4g}, 3 seeds" in said
    said = each[1].find_all(["th", "td"])[place].get_text()
    assert said.startswith(f"≥ {float(recorded[1]['certified']):.2f}")
    assert "seed 1" in said


def test_leakage_is_that_of_the_same_training_on_blocks() -> None:
    assert counterparts("natural-block") == ["softplus"]
    assert counterparts("density-block") == ["density"]
    (row,) = rows(RESULTS / "benign.csv", recipe="natural-block", quantity="leakage", seed="all")
    shown = load(RESULTS).leakage
    assert shown["softplus", "all"].value == float(row["value"])


def test_training_from_the_weights_of_another_network_costs_both() -> None:
    ratios = {"natural": 1.0, "madry": 8.0, "art": 24.0}
    assert training_cost("madry", ratios) == 8.0
    assert RECIPES["art"].start == "madry"
    assert (RECIPES["art"].config.epochs, RECIPES["natural"].config.epochs) == (2, 10)
    assert training_cost("art", ratios) == pytest.approx(8 + 24 / 5)
    assert training_cost("art", {"art": 24.0}) is None
    assert training_cost("vote", ratios) is None


def test_the_page_says_why_one_pixel_aside_breaks_some_maps(soup: BeautifulSoup) -> None:
    """Most of the brightest pixels of igr lie on one of the four grids of every second pixel."""
    shift = _numbers(_newest(soup), "One pixel aside")
    assert min(shift, key=shift.get)[0] == "igr"
    assert shift["igr", "all"] < 0.13 < shift["natural", "all"]
    images = cells.listed(data.fashion_mnist("test"), per_class=2)

    def on_one_grid(name: str) -> float:
        shares = []
        for seed in range(3):
            net = checkpoints.load(f"{name}-s{seed}").model.double()
            heat = to_heatmap(attributions.gradient(net, images.x.double(), images.y))
            top = topk_mask(heat, k=100).double()
            grids = [top[:, i::2, j::2].sum((1, 2)).mean() / 100 for i in (0, 1) for j in (0, 1)]
            shares.append(float(torch.stack(grids).max()))
        return mean(shares)

    assert on_one_grid("igr") > 0.6
    assert on_one_grid("hessian") < 0.35


# --- rows of others, and tables that are wrong ----------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name in ("recipes.csv", "benign.csv", "soundness.csv"):
        shutil.copy(RESULTS / name, tmp_path / name)
    (tmp_path / "rows").mkdir()
    return tmp_path


def _own(folder: Path, **more: object) -> None:
    newest = load(RESULTS).boards[0]
    cell = {"attack": "top-k suite", "eps": 8 / 255, "seed": "all", "quantity": "topk"}
    cell |= {"images": 100, "value": 0.99, "low": None, "high": None}
    first = cell | {"seed": "0", "low": 0.98, "high": 1.0}
    row = {
        "format": 1,
        "name": "mine & yours",
        "models": ["my:net"],
        "weights": ["0123456789abcdef"],
        "data": "Fashion-MNIST",
        "list": newest.images,
        "images": 100,
        "suite": newest.suite,
        "effort": "standard",
        "cells": [cell, first],
        "provenance": dict.fromkeys(("commit", "date", "device", "versions", "seconds"), "x"),
    }
    (folder / "rows" / "mine.json").write_text(json.dumps(row | more))


def test_a_row_of_ones_own_joins_the_table(results: Path, soup: BeautifulSoup) -> None:
    _own(results)
    table = _newest(BeautifulSoup(page(load(results)), "html.parser"))
    first = table.select("tbody")[0]
    assert first["data-name"] == "mine & yours"
    assert "one seed" in first.get_text()
    assert "0.98 to 1.00" in first.get_text()
    assert "rank" not in first.get_text()
    assert len(first.find_all("tr")) == 1
    assert len(table.select("tbody")) == 1 + len(_newest(soup).select("tbody"))


@pytest.mark.parametrize("more", [{"suite": "1"}, {"effort": "quick"}, {"list": "0123abcd"}])
def test_what_cannot_be_compared_has_a_table_of_its_own(
    results: Path, more: dict[str, str]
) -> None:
    _own(results, **more)
    tables = BeautifulSoup(page(load(results)), "html.parser").select("table")
    alone = [table for table in tables if table.select_one('[data-name="mine & yours"]')]
    assert len(tables) == 1 + len(load(RESULTS).boards)
    assert [len(table.select("tbody")) for table in alone] == [1]


def test_a_table_of_a_later_suite_comes_first_and_mixes_with_no_other(results: Path) -> None:
    path = results / "recipes.csv"
    with path.open(newline="", encoding="utf-8") as file:
        old = list(csv.DictReader(file))
    later = str(int(load(RESULTS).boards[0].suite) + 1)
    new = [
        row | {"suite": later}
        for row in old
        if row["suite"] and row["recipe"] in ("natural", "madry")
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(old[0]))
        writer.writeheader()
        writer.writerows([*old, *new])
    first, *rest = BeautifulSoup(page(load(results)), "html.parser").select("table")
    assert {body["data-name"] for body in first.select("tbody")} == {"natural", "madry"}
    assert f"Version {later} of the suite" in first.find("caption").get_text()
    assert ("natural", "all") in _numbers(first, "Accuracy")
    assert len(rest) == len(load(RESULTS).boards)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "recipes.csv").unlink(), r"got no file .*recipes\.csv"),
        (lambda f: (f / "benign.csv").unlink(), r"got no file .*benign\.csv"),
        (lambda f: (f / "soundness.csv").unlink(), r"got no file .*soundness\.csv"),
        (lambda f: (f / "benign.csv").write_text("a\n1\n"), r"benign\.csv with the column recipe"),
        (
            lambda f: (f / "rows" / "a.json").write_text("{}"),
            r"a\.json: Expected the row with 'format'",
        ),
        (lambda f: _own(f, name="madry"), r"mine\.json: Expected a name that no recipe has"),
    ],
)
def test_what_is_wrong_is_named(results: Path, break_it: object, message: str) -> None:
    break_it(results)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        load(results)


def test_shipped_suite_is_shown() -> None:
    """The newest table is never of a suite that this package does not have yet."""
    assert int(load(RESULTS).boards[0].suite) <= int(SUITE)


# --- in the browser -------------------------------------------------------------------------------


@pytest.fixture
def live(browser: Browser, html: str, tmp_path: Path) -> Iterator[Page]:
    static = ROOT / "book" / "_static"
    style, script = (static / name for name in ("book.css", "leaderboard.js"))
    path = tmp_path / "page.html"
    path.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>t</title>'
        f"<style>{style.read_text()}</style><script>{script.read_text()}</script>"
        f"<article>{html}</article></html>",
        encoding="utf-8",
    )
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(path.as_uri())
    yield page
    page.close()
    assert wrong == []


def _order(page: Page) -> list[str]:
    return page.eval_on_selector_all(
        ".leaderboard:first-of-type tbody",
        "all => all.filter(b => !b.hidden).map(b => b.dataset.name)",
    )


def test_headings_sort_by_mouse_and_by_keyboard(live: Page, soup: BeautifulSoup) -> None:
    board = live.locator(".leaderboard").first
    accuracy = _numbers(_newest(soup), "Accuracy")
    expected = sorted({name for name, _ in accuracy}, key=lambda name: -accuracy[name, "all"])
    head = board.get_by_role("button", name="Accuracy", exact=True)
    head.click()
    found = [accuracy[name, "all"] for name in _order(live)]
    assert found == [accuracy[name, "all"] for name in expected]
    cell = board.locator("th[aria-sort]")
    assert cell.count() == 1
    assert cell.get_attribute("aria-sort") == "descending"
    head.press("Enter")
    assert cell.get_attribute("aria-sort") == "ascending"
    assert [accuracy[name, "all"] for name in _order(live)] == found[::-1]
    cost = _numbers(_newest(soup), "Cost of training")
    board.get_by_role("button", name="Cost of training").press("Space")  # the cheapest first
    costs = [cost[name, "all"] for name in _order(live) if (name, "all") in cost]
    assert costs == sorted(costs)
    assert (
        "Sorted by Cost of training, lowest first." in board.locator(".board-status").inner_text()
    )


def test_the_other_order_is_chosen_in_a_box(live: Page, soup: BeautifulSoup) -> None:
    title = "Identified, ε = 8/255"
    found = _numbers(_newest(soup), title)
    board = live.locator(".leaderboard").first
    before = _order(live)
    board.get_by_label("Order by").select_option(label=title.replace("ε = ", "ε\xa0=\xa0"))
    values = [found[name, "all"] for name in _order(live)]
    assert values == sorted(values, reverse=True)
    assert _order(live) != before


def test_filters_and_columns(live: Page, soup: BeautifulSoup) -> None:
    board = live.locator(".leaderboard").first
    everything = _order(live)
    board.get_by_label("Name has").fill("SSR")
    assert sorted(_order(live)) == sorted(name for name in everything if "ssr" in name)
    board.get_by_label("Name has").fill("")
    board.get_by_label("Accuracy at least").fill("0.9")
    accuracy = _numbers(_newest(soup), "Accuracy")
    assert {*_order(live)} == {name for name in everything if accuracy.get((name, "all"), 0) >= 0.9}
    board.get_by_label("Accuracy at least").fill("")
    board.get_by_label("Activation").select_option("softplus")
    assert {"softplus", "hessian"} <= {*_order(live)} < {*everything}
    assert f"{len(_order(live))} of {len(everything)} networks" in board.inner_text()
    head = board.get_by_role("button", name="JPEG")
    assert not head.is_visible()
    board.get_by_label("Benign changes").check()
    assert head.is_visible()
    seed = board.locator("tbody:not([hidden]) tr.seed").first
    assert not seed.is_visible()
    board.get_by_label("Single seeds").check()
    assert seed.is_visible()


def test_a_narrow_page_scrolls_only_the_table(live: Page) -> None:
    live.set_viewport_size({"width": 390, "height": 844})
    assert live.evaluate("document.scrollingElement.scrollWidth") <= 390
    box = live.locator(".board-scroll").first
    assert box.evaluate("e => e.scrollWidth > e.clientWidth")
    box.focus()
    box.press("ArrowRight")
    live.wait_for_function("document.querySelector('.board-scroll').scrollLeft > 0")
    name = live.locator("tbody th").first
    assert name.bounding_box()["x"] >= 0  # names stay in sight


def test_without_a_script_it_is_a_plain_table(browser: Browser, html: str, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8">{html}', encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("tr.seed").first.is_visible()
    assert page.get_by_role("columnheader", name="JPEG").is_visible()
    assert page.locator("button, input").count() == 0
    context.close()
