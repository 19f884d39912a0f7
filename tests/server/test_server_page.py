"""The page in a real browser: by keyboard alone, in the dark, on a narrow screen; and what its files may do."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ctxkit.server import ServeOptions, Service
from ctxkit.server.sessions.database import open_database
from ctxkit.server.sessions.store import SessionStore
from ctxkit.testing import ScriptedModel
from tests.server.running import RunningServer

Start = Callable[[Service], RunningServer]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Browser, url: str, wrong: list[str], **settings: object) -> Page:
    page = browser.new_context(**settings).new_page()  # type: ignore[arg-type]
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(url)
    return page


@pytest.fixture
def server(serve: Start, tmp_path: Path) -> RunningServer:
    model = ScriptedModel(lambda request: f"<b>Answer</b> to {len(request.messages)} messages.", window_tokens=200)
    return serve(Service({"m": model}, store=SessionStore(open_database(str(tmp_path / "sessions.db")))))


def test_a_conversation_by_keyboard_alone(browser: Browser, server: RunningServer) -> None:
    wrong: list[str] = []
    page = opened(browser, server.root, wrong)
    page.locator("#health.good").wait_for()
    page.keyboard.press("Tab")
    assert page.locator(".skip").evaluate("(one) => one === document.activeElement")
    page.keyboard.press("Enter")
    for turn in range(4):
        page.keyboard.type(f"Question {turn} " + "with many words " * 12)
        page.keyboard.press("Enter")
        page.locator(".message .bar").nth(turn).wait_for()
    assert "<b>Answer</b> to" in page.locator(".message .text").nth(1).inner_text()  # as text, not as markup
    assert "left out" in page.locator(".message").last.inner_text()
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator("#window").evaluate("(one) => one === document.activeElement"):
            break
    before = page.locator("#window-tokens").inner_text()
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
    page.locator("#planned .bar").wait_for()
    assert int(page.locator("#window-tokens").inner_text().replace(",", "")) < int(before.replace(",", ""))
    assert page.locator("#sessions li").count() == 1
    assert not wrong


def test_a_session_is_found_again_and_can_be_deleted(browser: Browser, server: RunningServer) -> None:
    wrong: list[str] = []
    page = opened(browser, server.root, wrong, color_scheme="dark", viewport={"width": 400, "height": 800})
    page.locator("#health.good").wait_for()
    page.fill("#draft", "Remember me")
    page.press("#draft", "Enter")
    page.locator(".message .bar").wait_for()
    page.reload()
    page.locator("#sessions-box summary").click()
    page.locator("#sessions li button").first.click()
    page.locator(".message").nth(1).wait_for()
    assert page.locator(".message .text").first.inner_text() == "Remember me"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 400
    assert page.locator("body").evaluate("(one) => getComputedStyle(one).backgroundColor") == "rgb(20, 23, 28)"
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Delete Remember me").click()
    page.locator("#sessions li").wait_for(state="detached")
    assert not wrong


def test_a_key_is_asked_for(browser: Browser, serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel(["Hello."])}, options=ServeOptions(api_keys=("secret",))))
    page = opened(browser, server.root, [])
    page.locator("#health.bad").wait_for()
    page.fill("#key", "secret")
    page.press("#key", "Enter")
    page.locator("#health.good").wait_for()
    page.fill("#draft", "Hi")
    page.press("#draft", "Enter")
    page.locator(".message .bar").wait_for()
    assert page.locator(".message .text").nth(1).inner_text() == "Hello."


def test_an_error_is_shown_where_the_answer_would_be(browser: Browser, serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel([], window_tokens=40)}))
    page = opened(browser, server.root, [])
    page.locator("#health.good").wait_for()
    page.fill("#draft", "word " * 100)
    page.press("#draft", "Enter")
    assert "tokens" in page.locator(".message .error").inner_text()


def test_the_page_may_load_nothing_from_elsewhere_and_has_no_other_files(serve: Start) -> None:
    server = serve(Service({"m": ScriptedModel([])}))
    index = httpx.get(server.root)
    policy = index.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for name in ("style.css", "app.js", "api.js", "budget.js"):
        assert httpx.get(f"{server.root}/page/{name}").status_code == 200
        assert "://" not in httpx.get(f"{server.root}/page/{name}").text
    for name in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "nothing.js"):
        assert httpx.get(f"{server.root}/page/{name}").status_code == 404
