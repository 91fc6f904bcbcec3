"""The page in headless Chromium, driven through its DevTools protocol: clicks, keys, dark, narrow, hostile names."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
import pytest_asyncio
from aiohttp import web
from fakes.archive import FakeArchive
from fakes.dicom import instance_uid, make_series, uid
from fakes.faults import delay
from fakes.mirroring import Mirror
from pydicom.data import get_testdata_file

from mirror.ledger import Ledger
from mirror.model import Scope
from mirror.serve import make_app
from mirror.serve.stock import stock

HOSTILE = "<script>document.title='owned'</script>"


class Browser:
    """One tab."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, base: str) -> None:
        self._socket, self.base = socket, base
        self._sent = 0
        self.seen: list[dict[str, Any]] = []

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._sent += 1
        await self._socket.send_json({"id": self._sent, "method": method, "params": params})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == self._sent:
                assert "error" not in message, message
                return message["result"]
            self.seen.append(message)

    async def run(self, script: str) -> Any:
        answer = await self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 20) -> None:
        with anyio.fail_after(seconds):
            while not await self.run(f"Boolean({script})"):  # noqa: ASYNC110 - a page has no event for this
                await anyio.sleep(0.05)

    async def press(self, key: str, code: int) -> None:
        text = {"text": "\r"} if key == "Enter" else {}
        await self.send("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        await self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def click(self, text: str) -> None:
        """A click with the mouse on the link of that text, once it is there."""
        link = f"[...document.querySelectorAll('main a')].find((a) => a.textContent === {json.dumps(text)})"
        await self.until(f"Boolean({link})")
        await self.run(f"{link}.scrollIntoView()")
        x, y = await self.run(f"(({{x, y}}) => [x + 5, y + 8])({link}.getClientRects()[0])")
        for kind in ("mousePressed", "mouseReleased"):
            await self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def shoot(self, name: str) -> None:
        """A screenshot for who wants to look, in the folder that PAGE_SHOTS names."""
        if folder := os.environ.get("PAGE_SHOTS"):
            data = (await self.send("Page.captureScreenshot"))["data"]
            await anyio.Path(folder, f"{name}.png").write_bytes(base64.b64decode(data))


@asynccontextmanager
async def tab_at(root: Path, profile: Path) -> AsyncIterator[Browser]:
    """A tab of a headless Chromium, and the mirror served for it."""
    chromium = shutil.which("chromium")
    assert chromium, "Debian's chromium is needed: .ci/run installs it"
    runner = web.AppRunner(make_app(root), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    async with (
        await anyio.open_process([*command, f"--user-data-dir={profile}", "about:blank"], stdout=-3, stderr=-3) as it,
        aiohttp.ClientSession() as session,
    ):
        try:
            port = anyio.Path(profile / "DevToolsActivePort")
            with anyio.fail_after(60):
                while not (await port.exists() and len((await port.read_text()).split()) == 2):  # noqa: ASYNC110 - nor a file
                    await anyio.sleep(0.05)
            number = (await port.read_text()).split()[0]
            async with session.get(f"http://127.0.0.1:{number}/json/list") as answer:
                target = next(t for t in await answer.json() if t["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Browser(socket, base)
                for domain in ("Page", "Runtime", "Network", "Log"):
                    await tab.send(f"{domain}.enable")
                yield tab
        finally:
            it.terminate()
            await it.wait()
            await runner.cleanup()


@pytest_asyncio.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    root = tmp_path / "m"
    stock(root, "Lung", make_series(patient_id=HOSTILE, series_uid=uid(1, 1, 1), instances=3), released="2020-01-31")
    for name in ("CT_small.dcm", "examples_ybr_color.dcm"):
        stock(root, "Real", [Path(str(get_testdata_file(name, download=False)))], released="2020-01-31")
    async with tab_at(root, tmp_path / "profile") as tab:
        yield tab


async def size(tab: Browser, width: int, scheme: str) -> None:
    await tab.send(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
    )
    await tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])


def nothing_wrong(tab: Browser) -> None:
    """No error in the console, and no request to another host."""
    for message in tab.seen:
        params = message.get("params", {})
        assert message["method"] != "Runtime.exceptionThrown", params
        assert params.get("entry", {}).get("level") != "error", params
        if message["method"] == "Network.requestWillBeSent":
            assert params["request"]["url"].startswith((tab.base, f"blob:{tab.base}")), params["request"]["url"]


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
async def test_clicks_from_collections_to_a_preview(browser: Browser, width: int, scheme: str) -> None:
    await size(browser, width, scheme)
    await browser.send("Page.navigate", url=browser.base)
    await browser.until("document.querySelector('tbody')")
    await browser.shoot(f"collections-{width}-{scheme}")
    dark = await browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(18, 23, 30)"
    assert dark == (scheme == "dark")
    await browser.click("Real")
    await browser.click("1CT1")
    # The address changes before what it names is there.
    await browser.until("document.querySelector('h1').textContent === '1CT1' && document.querySelector('tbody a')")
    await browser.shoot(f"patient-{width}-{scheme}")
    await browser.click(await browser.run("document.querySelector('tbody a').textContent"))
    await browser.until("document.querySelector('.view img')?.naturalWidth > 0")
    await browser.until("document.querySelectorAll('tbody tr').length > 20")
    await browser.shoot(f"series-{width}-{scheme}")
    assert await browser.run("document.documentElement.scrollWidth <= innerWidth")
    nothing_wrong(browser)


@pytest.mark.asyncio
async def test_keys_alone_and_a_hostile_name(browser: Browser) -> None:
    await size(browser, 1280, "light")
    await browser.send("Page.navigate", url=browser.base)
    await browser.until("document.querySelector('tbody')")
    for _ in range(20):
        await browser.press("Tab", 9)
        if await browser.run("document.activeElement.textContent") == "Lung":
            break
    await browser.press("Enter", 13)
    await browser.until("location.hash === '#/c/Lung' && document.querySelector('h1').textContent === 'Lung'")
    await browser.run("document.querySelector('main input[type=search]').focus()")
    await browser.send("Input.insertText", text="nobody")
    await browser.until("document.querySelector('main').textContent.includes('No patient is found')")
    await browser.run("location.hash = '#/c/Lung/script'")
    await browser.until("document.querySelector('main input').value === 'script' && document.querySelector('tbody a')")
    assert await browser.run("document.querySelector('tbody a').textContent") == HOSTILE
    assert await browser.run("document.querySelectorAll('main script').length") == 0
    await browser.click(HOSTILE)
    await browser.until("location.hash.startsWith('#/p/') && document.querySelector('h1')")
    await browser.until("document.querySelector('h1').textContent.startsWith('<script>')")
    assert await browser.run("document.title") == f"{HOSTILE} · tcia-mirror"
    nothing_wrong(browser)


@pytest.mark.asyncio
async def test_a_series_is_searched_and_a_uid_found(browser: Browser) -> None:
    await size(browser, 1280, "light")
    await browser.send("Page.navigate", url=browser.base)
    await browser.click("Real")
    await browser.until("document.querySelector('h1').textContent === 'Real'")
    await browser.click("Search its series")
    await browser.until("document.querySelector('h1').textContent === 'Series of Real'")
    await browser.run("document.querySelector('main input[type=search]').focus()")
    await browser.send("Input.insertText", text="ultrasound nothing")
    await browser.until("document.querySelector('main').textContent.includes('No series is found')")
    await browser.run("location.hash = '#/q/Real/1ct1'")
    await browser.until("document.querySelectorAll('tbody tr').length === 1")
    assert await browser.run("document.querySelectorAll('tbody a')[1].textContent") == "1CT1"
    await browser.shoot("search-1280-light")
    await browser.run("document.querySelector('#find input').focus()")
    await browser.send("Input.insertText", text=instance_uid(uid(1, 1, 1), 2))
    await browser.press("Enter", 13)
    await browser.until("document.querySelector('h1').textContent.startsWith('Found for')")
    await browser.until("document.querySelector('tbody td')?.textContent === 'Instance'")
    await browser.shoot("find-1280-light")
    await browser.click(instance_uid(uid(1, 1, 1), 2))
    await browser.until(f"document.querySelector('select')?.value === '{instance_uid(uid(1, 1, 1), 2)}'")
    await browser.until("document.querySelector('.view img')?.alt.startsWith('Instance 2,')")
    nothing_wrong(browser)


@pytest.mark.asyncio
@pytest.mark.parametrize("width", [1280, 390])
async def test_keys_step_through_a_series_and_a_window_is_chosen(browser: Browser, width: int) -> None:
    await size(browser, width, "dark")
    await browser.send("Page.navigate", url=f"{browser.base}/#/s/{uid(1, 1, 1)}")
    await browser.until("document.querySelector('.view img')?.alt.startsWith('Instance 1,')")
    await browser.run("document.querySelector('.view').focus()")
    for key, code, number in (("ArrowRight", 39, 2), ("ArrowDown", 40, 3), ("ArrowDown", 40, 3), ("ArrowLeft", 37, 2)):
        await browser.press(key, code)
        await browser.until(f"document.querySelector('.view img')?.alt.startsWith('Instance {number},')")
    await browser.until("document.querySelector('.steps .soft').textContent === '2 of 3'")
    before = await browser.run("document.querySelector('.view img').src")
    await browser.run("document.querySelectorAll('fieldset input')[0].focus()")
    await browser.send("Input.insertText", text="500")
    await browser.press("Tab", 9)
    await browser.send("Input.insertText", text="10")
    await browser.press("Tab", 9)
    await browser.until(f"document.querySelector('.view img')?.src !== {json.dumps(before)}")
    await browser.shoot(f"window-{width}-dark")
    assert await browser.run("document.documentElement.scrollWidth <= innerWidth")
    nothing_wrong(browser)


@pytest.mark.asyncio
async def test_what_is_not_complete_is_a_click_away(browser: Browser, tmp_path: Path) -> None:
    with Ledger(tmp_path / "m") as ledger, ledger.transaction() as db:
        db.execute("UPDATE series SET state = 'incomplete', findings = '[\"too few\"]' WHERE collection = 'Lung'")
    await size(browser, 390, "light")
    await browser.send("Page.navigate", url=browser.base)
    await browser.click("0 of 1")
    await browser.until("document.querySelector('h1').textContent === 'Not complete in Lung'")
    await browser.until("document.querySelector('tbody')?.textContent.includes('too few')")
    assert await browser.run("document.querySelectorAll('tbody tr').length") == 1
    await browser.shoot("unfinished-390-light")
    nothing_wrong(browser)


@pytest.mark.asyncio
async def test_a_run_is_seen_while_it_is_at_work(archive: FakeArchive, tmp_path: Path) -> None:
    mirror = Mirror(tmp_path / "mirror")
    await mirror.sync(archive, scope=Scope(collections=("Lung-Alpha",)))
    archive.faults.add("getSingleImage", delay(0.4))
    async with tab_at(mirror.root, tmp_path / "profile") as browser:
        await size(browser, 1280, "light")
        await browser.send("Page.navigate", url=browser.base)
        await browser.until("document.querySelector('tbody')")
        assert await browser.run("document.getElementById('live').textContent") == ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(mirror.sync, archive, connections=1))
            await browser.until("document.getElementById('live').textContent.startsWith('A run is at work')", 30)
            await browser.run("document.querySelector('#live a').click()")
            await browser.until("document.querySelector('progress')?.value > 0", 30)
            await browser.until("document.querySelector('dl').textContent.includes('Time left')", 30)
            await browser.shoot("live-1280-light")
            shown = await browser.run("document.querySelector('main').innerText")
            assert "of 32" in shown or "of 20" in shown
            assert "Judged last" in shown
        await browser.until("document.getElementById('live').textContent === ''", 30)
        await browser.until("document.querySelector('main').textContent.includes('No run is at work')", 30)
        await browser.run("location.hash = '#/runs'")
        await browser.until("document.querySelectorAll('tbody tr').length === 2")
        await browser.shoot("runs-1280-light")
        assert "complete" in await browser.run("document.querySelector('tbody').textContent")
        await browser.click(await browser.run("document.querySelector('tbody a').textContent"))
        await browser.until("document.querySelector('pre')?.textContent.includes('exit_code')")
        await browser.shoot("run-1280-light")
        nothing_wrong(browser)
