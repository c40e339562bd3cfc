"""The page that shows the API, in a real browser."""

import re
from collections.abc import Iterator

import pytest

from app import ROUTES
from tests.conftest import TEST_SETTINGS, StartService
from tests.support.browser import Browser
from tests.support.service import Service


@pytest.fixture(scope="module")
def fresh() -> Iterator[Service]:
    """On SQLite, with no account yet."""
    with Service(TEST_SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def page(fresh: Service) -> Iterator[Browser]:
    """The page, opened."""
    with Browser() as browser:
        browser.open(f"{fresh.url}/docs")
        yield browser


def execute(page: Browser, operation: str) -> list[str]:
    """Sends the example that the page shows; the statuses of the answer."""
    block = f"#operations-{operation}"
    page.click(f"{block} .opblock-summary-control")
    page.click(f"{block} .execute")
    return page.texts(f"{block} .live-responses-table tbody .response-col_status")


def test_the_page_lists_every_route(page: Browser) -> None:
    listed = {path.replace("\u200b", "") for path in page.texts(".opblock-summary-path")}  # where a line may break
    assert listed == {route.path for route in ROUTES}


def test_the_examples_on_the_page_register_an_account_and_log_it_in(page: Browser) -> None:
    assert "201" in execute(page, "accounts-register")[0]
    assert "200" in execute(page, "sessions-log_in")[0]


def open_authorization(page: Browser) -> None:
    """Shows the dialog; what belongs to the accounts' own token is then #access-token."""
    page.click(".btn.authorize")
    page.texts(".auth-container")
    found = "[...document.querySelectorAll('.auth-container')].find(one => one.innerText.includes('access_token'))"
    page.run(f"{found}.id = 'access-token'")


def test_the_token_outlives_a_reload_and_not_the_tab(page: Browser, fresh: Service) -> None:
    open_authorization(page)
    page.type("#access-token input", fresh.sign_up(username="grace").access_token)
    page.click("#access-token .authorize")
    page.open(f"{fresh.url}/docs")
    page.texts(".btn.authorize.locked")
    assert "200" in execute(page, "accounts-read_me")[0]
    assert page.run("return [sessionStorage.length, localStorage.length]") == [1, 0]
    open_authorization(page)
    page.click("#access-token .modal-btn:not(.btn-done)")  # log out
    page.open(f"{fresh.url}/docs")
    assert page.texts(".btn.authorize.unlocked")


def test_the_page_needs_no_other_host(page: Browser, fresh: Service) -> None:
    page.texts(".opblock")
    loaded = page.run("return performance.getEntriesByType('resource').map(one => one.name)")
    assert f"{fresh.url}/docs/swagger-ui-bundle.js" in loaded
    assert [url for url in loaded if not url.startswith(fresh.url)] == []


def test_the_page_does_nothing_that_its_policy_forbids(page: Browser) -> None:
    page.texts(".opblock")
    assert page.console() == []


def test_the_policy_allows_only_what_comes_from_here(fresh: Service) -> None:
    policy = fresh.client.get("/docs").headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
    assert "unsafe" not in policy


def test_what_a_browser_has_already_is_not_sent_again(fresh: Service) -> None:
    for path in ("/docs", "/docs/swagger-ui-bundle.js", "/openapi.json"):
        first = fresh.client.get(path)
        again = fresh.client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


@pytest.mark.parametrize("name", ["", "/page.js", "/swagger-ui-bundle.js", "/swagger-ui.css"])
def test_a_text_says_that_it_is_utf_8(fresh: Service, name: str) -> None:
    media_type = fresh.client.get(f"/docs{name}").headers["content-type"]
    assert re.fullmatch(r"text/\w+; charset=utf-8", media_type)


@pytest.mark.parametrize("name", ["nothing.js", "fetch.sh", "page.html", "..%2f..%2fapp.py", "%2e%2e"])
def test_no_other_file_is_served(fresh: Service, name: str) -> None:
    assert fresh.client.get(f"/docs/{name}").status_code == 404


def test_without_docs_enabled_there_is_neither_page_nor_document(start_service: StartService) -> None:
    service = start_service(DOCS_ENABLED="false")
    paths = ["/docs", "/docs/swagger-ui.css", "/openapi.json"]
    assert [service.client.get(path).status_code for path in paths] == [404, 404, 404]
    assert "docs" not in service.client.get("/").json()["links"]
