"""`make docs`: every page is there, nothing leads nowhere, nothing is called from elsewhere."""

import importlib.util
import inspect
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from playwright.sync_api import sync_playwright

from deeplung_nb.stats import agreement
from tests.browser import ARGUMENTS, CHROMIUM

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.nightly


class Links(HTMLParser):
    """Anchors of a page, where it leads, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.leads, self.loads = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.leads.append(given["href"])
        if tag in ("script", "img", "iframe") and given.get("src"):
            self.loads.append(given["src"])
        if tag == "link" and "stylesheet" in given.get("rel", ""):
            self.loads.append(given["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages, with the notebooks as they are written."""
    place = ROOT / "tools" / "make_site.py"
    spec = importlib.util.spec_from_file_location("make_site", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    target = tmp_path_factory.mktemp("site") / "site"
    assert module.main(target, quick=True) == 0, "a warning: see what the generator said"
    return target


@pytest.fixture(scope="module")
def pages(site):
    return {path.relative_to(site).as_posix(): Links(path.read_text(encoding="utf-8"))
            for path in site.rglob("*.html")}


def test_the_pages_are_there(pages):
    assert {"index.html", "docs/statistics.html", "docs/numbers.html", "docs/segment.html",
            "api/stats.html", "api/top.html", "notebooks/07_agreement.html",
            "data_manifests/README.html", "CONTRIBUTING.html"} <= set(pages)


def test_no_link_is_broken(site, pages):
    broken = []
    for page, found in pages.items():
        for link in (*found.leads, *found.loads):
            if re.match(r"[a-z]+:", link):
                continue
            path, anchor = urldefrag(unquote(link).partition("?")[0])
            target = (site / page).parent / path if path else site / page
            name = target.resolve().relative_to(site.resolve()).as_posix()
            if not target.is_file() or (
                    anchor and name in pages and anchor not in pages[name].ids):
                broken.append(f"{page}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    assert [link for found in pages.values() for link in found.loads
            if re.match(r"(https?:)?//", link)] == []


def test_a_card_of_each_statistic_keeps_its_sections(site, pages):
    named = [name for name, value in inspect.getmembers(agreement, inspect.isfunction)
             if value.__module__ == agreement.__name__ and not name.startswith("_")]
    assert {f"deeplung_nb.stats.agreement.{name}" for name in named} <= pages["api/stats.html"].ids
    text = (site / "api" / "stats.html").read_text(encoding="utf-8")
    card = text[text.index('id="deeplung_nb.stats.agreement.bland_altman"'):]
    for section in ("Parameters", "Formula", "Source", "Checked against", "Examples"):
        assert section in card[:60_000], section


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_pages_open_in_a_browser_without_a_call(site):
    asked = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((site / "index.html").as_uri())
        assert "deeplung_nb" in page.title()
        page.get_by_role("link", name="Which statistic when").first.click()
        page.wait_for_load_state()
        assert page.locator("h1").inner_text().startswith("Which statistic when")
        browser.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
