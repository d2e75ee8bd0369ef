"""The admin in a real browser, served by uvicorn under vinyl's ASGI handler.

What a person does there: log in, search, edit, an inline, a bulk action, a validation error.
"""

from __future__ import annotations

from typing import Any

from fix_browser import Browser
from fix_engine import Engine
from fix_served import Visitor
from recordshop.models import Record

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_day_in_the_shop(engine: Engine, served: Any, browser: Browser) -> None:
    with served("uvicorn") as server:
        browser.driver.get(f"{server.url}/admin/")
        shots = [browser.shot(f"{engine.name}-1-login")]
        browser.write("#id_username", "admin")
        browser.write("#id_password", "wrong")
        browser.press("[type=submit]")
        assert "correct username" in browser.one(".errornote").text
        browser.write("#id_username", "admin")
        browser.write("#id_password", "pw")
        browser.press("[type=submit]")
        assert browser.one("#content h1").text == "Behind the counter"
        shots.append(browser.shot(f"{engine.name}-2-behind-the-counter"))

        browser.press("a[href='/admin/recordshop/record/']")
        assert len(browser.all("#result_list tbody tr")) == 12
        shots.append(browser.shot(f"{engine.name}-3-records"))
        browser.write("#searchbar", "miles davis")
        browser.press("#changelist-search [type=submit]")
        titles = browser.texts("#result_list .field-title")
        assert titles == ["Milestones", "Kind of Blue", "In a Silent Way"]
        shots.append(browser.shot(f"{engine.name}-4-search"))

        browser.press("#result_list tr:nth-child(2) .field-title a")
        edit(browser)
        shots.append(browser.shot(f"{engine.name}-5-an-inline"))
        browser.press("[name=_continue]")
        assert "was changed successfully" in browser.one(".success").text
        assert browser.one("#id_tracks-0-title").get_attribute("value") == "So What (take 3)"
        shots.append(browser.shot(f"{engine.name}-6-saved"))

        browser.write("#id_price", "0.50")
        browser.press("[name=_save]")
        assert "Please correct the error" in browser.one(".errornote").text
        assert "greater than or equal to 1" in browser.one(".field-price .errorlist").text
        browser.show(".field-price")
        shots.append(browser.shot(f"{engine.name}-7-a-validation-error"))
        browser.write("#id_price", "28.50")
        browser.press("[name=_save]")

        for box in browser.all("#result_list .action-select"):
            box.click()
        browser.choose("select[name=action]", "Put the selected records in the window")
        shots.append(browser.shot(f"{engine.name}-8-a-bulk-action"))
        browser.press("button[name=index]")
        assert "2 records are in the window now" in browser.one(".messagelist .info").text
        shots.append(browser.shot(f"{engine.name}-9-in-the-window"))
        # The login that was refused is not an error of the page.
        assert browser.errors() == []
        assert Visitor(server).json("/threads")["started"] == 0
    assert server.log.read_text() == ""
    record = Record.objects.get(title="Kind of Blue")
    assert (str(record.price), record.copies, record.is_featured) == ("28.50", 9, True)
    assert [each.title for each in record.tracks.filter(side="B")][-1] == "Flamenco Sketches II"
    assert not Record.objects.get(title="In a Silent Way").is_featured  # sold out
    assert all(path.read_bytes().startswith(PNG) for path in shots)


def edit(browser: Browser) -> None:
    """Other copies, a style more, a track's title, and one track more, in a row of the inline."""
    browser.write("#id_copies", "9")
    style = "#id_styles_from option[title='Fusion']"
    browser.until(style).click()
    browser.one("#id_styles_add, #id_styles_add_link").click()
    assert "Fusion" in browser.texts("#id_styles_to option")
    browser.write("#id_tracks-0-title", "So What (take 3)")
    browser.until("#tracks-group .add-row a").click()
    browser.choose("#id_tracks-5-side", "B")
    browser.write("#id_tracks-5-number", "3")
    browser.write("#id_tracks-5-title", "Flamenco Sketches II")
    browser.write("#id_tracks-5-seconds", "572")
    browser.show("#tracks-group")
