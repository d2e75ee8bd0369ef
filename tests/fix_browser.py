"""A real browser, Debian's chromium, driven by Selenium: fixture ``browser``.

Its screenshots go to build/screenshots.  Where no chromium is to be had, VINYL_TEST_WAIVE=browser
skips its tests and says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fix_postgres import waived
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

SCREENSHOTS = Path(__file__).parents[1] / "build" / "screenshots"
SECONDS = 60.0
OPTIONS = (
    "--headless=new",
    "--no-sandbox",  # as root there is none, and in containers none can be had
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
    "--window-size=1440,1040",
    "--lang=en",
)


class Browser:
    """A page of the admin, and somebody's hands on it."""

    def __init__(self, driver: webdriver.Chrome, directory: Path) -> None:
        self.driver = driver
        self._directory = directory

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.all(selector)]

    def write(self, selector: str, text: str) -> None:
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def choose(self, selector: str, text: str) -> None:
        Select(self.one(selector)).select_by_visible_text(text)

    def press(self, selector: str) -> None:
        """Clicks on what leads to another page, and waits until it is there."""
        page = self.one("html")
        self.one(selector).click()
        wait = WebDriverWait(self.driver, SECONDS)
        wait.until(lambda _driver: self._is_gone(page))
        wait.until(lambda driver: driver.execute_script("return document.readyState") == "complete")

    @staticmethod
    def _is_gone(page: WebElement) -> bool:
        from selenium.common.exceptions import StaleElementReferenceException

        try:
            page.is_enabled()
        except StaleElementReferenceException:
            return True
        return False

    def until(self, selector: str) -> WebElement:
        """The element, once a script has made it."""
        wait = WebDriverWait(self.driver, SECONDS)
        return wait.until(lambda _driver: next(iter(self.all(selector)), None))

    def show(self, selector: str) -> None:
        """Scrolls it into the middle of the window."""
        script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
        self.driver.execute_script(script, self.one(selector))

    def shot(self, name: str) -> Path:
        path = self._directory / f"{name}.png"
        assert self.driver.save_screenshot(str(path))
        return path

    def errors(self) -> list[str]:
        """What the browser's console has to complain of since it was asked last."""
        return [
            each["message"]
            for each in self.driver.get_log("browser")
            if each["level"] in ("SEVERE", "WARNING")
        ]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    if "browser" in waived():
        pytest.skip("the browser is waived by VINYL_TEST_WAIVE")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.fail("apt-get install chromium chromium-driver fonts-dejavu-core")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for each in (*OPTIONS, f"--user-data-dir={tmp_path / 'chromium'}"):
        options.add_argument(each)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    driver.set_page_load_timeout(SECONDS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    try:
        yield Browser(driver, SCREENSHOTS)
    finally:
        driver.quit()
