# SPDX-License-Identifier: GPL-2.0
"""Shows a page in headless Chromium and fails on what a reader would stumble over."""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

# What has no name for who does not see it.
NAMELESS = """() => [...document.querySelectorAll('svg, img')].filter(picture => {
    const ids = (picture.getAttribute('aria-labelledby') || '').split(' ');
    const words = ids.map(id => document.getElementById(id)?.textContent.trim() || '');
    return picture.tagName === 'IMG'
        ? !picture.alt
        : picture.getAttribute('role') !== 'img' || !words.every(word => word);
}).length"""

# A name that two elements have leads to the wrong one.
TWICE = """() => {
    const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
    return ids.filter((id, index) => ids.indexOf(id) !== index);
}"""

WIDTH = "() => document.documentElement.scrollWidth"

# A4 within the margins of page.css, in pixels of CSS.
PAPER = round((210 - 2 * 12) / 25.4 * 96)

# On paper nobody scrolls: what a box cuts off counts too.
CUT = """(paper) => [...document.querySelectorAll('body *')].filter(element =>
    !element.ownerSVGElement && element.getBoundingClientRect().right > paper + 1
).map(element => element.tagName.toLowerCase())"""

# The properties of :root, by name.
COLOURS = """() => {
    const style = getComputedStyle(document.documentElement);
    const names = [...document.styleSheets]
        .flatMap(sheet => [...sheet.cssRules])
        .flatMap(rule => [...(rule.style || [])])
        .filter(name => name.startsWith('--'));
    return Object.fromEntries(names.map(name => [name, style.getPropertyValue(name).trim()]));
}"""


def look(page: Page, address: str, width: int, pictures: int) -> list[str]:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    found = []
    if (wide := page.evaluate(WIDTH)) > width:
        found.append(f"it is {wide} pixels wide on a screen of {width}")
    if nameless := page.evaluate(NAMELESS):
        found.append(f"{nameless} pictures have no text alternative")
    if twice := page.evaluate(TWICE):
        found.append(f"ids are not unique: {' '.join(twice[:5])}")
    if (there := page.locator("svg").count()) < pictures:
        found.append(f"it has {there} pictures, and {pictures} are wanted")
    return found


def look_at_print(page: Page, address: str) -> tuple[list[str], dict[str, str]]:
    """What is wrong on A4, and the colours there."""
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    page.goto(address)
    found = []
    if cut := page.evaluate(CUT, PAPER):
        found.append(f"wider than the paper: {', '.join(sorted(set(cut)))}")
    return found, page.evaluate(COLOURS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--pictures", type=int, default=1, help="the least number of them")
    parser.add_argument("--screenshots", type=Path, help="folder")
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()

    found = []
    address = arguments.page.resolve().as_uri()
    printed: dict[str, dict[str, str]] = {}
    with sync_playwright() as playwright:
        # Chromium as root has no sandbox; the page is our own.
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            page = browser.new_page(color_scheme=scheme)
            page.on("console", lambda message: found.append(f"console: {message.text}"))
            page.on("pageerror", lambda error: found.append(f"error: {error}"))
            page.on(
                "request",
                lambda request: (
                    None
                    if request.url.startswith(("file:", "data:"))
                    else found.append(f"it asks the network for {request.url}")
                ),
            )
            for width in (360, 1200):
                for what in look(page, address, width, arguments.pictures):
                    found.append(f"{scheme}, {width} pixels: {what}")
                if arguments.screenshots:
                    picture = arguments.screenshots / f"{scheme}-{width}.png"
                    page.screenshot(path=picture, full_page=True)
            wrong, printed[scheme] = look_at_print(page, address)
            found.extend(f"{scheme}, print: {what}" for what in wrong)
            if arguments.screenshots:
                page.screenshot(path=arguments.screenshots / f"{scheme}-print.png", full_page=True)
                page.pdf(path=arguments.screenshots / f"{scheme}.pdf", format="A4")
        browser.close()
    # Paper is as white where the screen is dark.
    if differ := [
        name for name, value in printed["light"].items() if printed["dark"].get(name) != value
    ]:
        found.append(f"print: other colours where the screen is dark: {' '.join(differ)}")
    for what in found:
        print(f"{arguments.page}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
