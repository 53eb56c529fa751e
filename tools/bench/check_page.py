# SPDX-License-Identifier: GPL-2.0
"""Open a page in headless Chromium and check layout, text alternatives, ids and print colours."""

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

# Pictures without a text alternative.
NAMELESS = """() => [...document.querySelectorAll('svg, img')].filter(picture => {
    const ids = (picture.getAttribute('aria-labelledby') || '').split(' ');
    const words = ids.map(id => document.getElementById(id)?.textContent.trim() || '');
    return picture.tagName === 'IMG'
        ? !picture.alt
        : picture.getAttribute('role') !== 'img' || !words.every(word => word);
}).length"""

# Duplicate ids: a reference finds the first element only.
TWICE = """() => {
    const ids = [...document.querySelectorAll('[id]')].map(element => element.id);
    return ids.filter((id, index) => ids.indexOf(id) !== index);
}"""

WIDTH = "() => document.documentElement.scrollWidth"

# Width of A4 without the margins set in page.css, in CSS pixels.
PAPER = round((210 - 2 * 12) / 25.4 * 96)

# Elements wider than the paper. Content that a scrolling box hides is lost in print, so it counts.
CUT = """(paper) => [...document.querySelectorAll('body *')].filter(element =>
    !element.ownerSVGElement && element.getBoundingClientRect().right > paper + 1
).map(element => element.tagName.toLowerCase())"""

# Custom properties of :root, by name.
COLOURS = """() => {
    const style = getComputedStyle(document.documentElement);
    const names = [...document.styleSheets]
        .flatMap(sheet => [...sheet.cssRules])
        .flatMap(rule => [...(rule.style || [])])
        .filter(name => name.startsWith('--'));
    return Object.fromEntries(names.map(name => [name, style.getPropertyValue(name).trim()]));
}"""


def check_screen(page: Page, address: str, width: int, pictures: int) -> list[str]:
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(address)
    found = []
    if (wide := page.evaluate(WIDTH)) > width:
        found.append(f"the page is {wide} pixels wide on a screen of {width}")
    if nameless := page.evaluate(NAMELESS):
        found.append(f"{nameless} pictures have no text alternative")
    if twice := page.evaluate(TWICE):
        found.append(f"ids are not unique: {' '.join(twice[:5])}")
    if (count := page.locator("svg").count()) < pictures:
        found.append(f"the page has {count} pictures, expected at least {pictures}")
    return found


def check_print(page: Page, address: str) -> tuple[list[str], dict[str, str]]:
    """Return the problems found on A4, and the colours used there."""
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    page.goto(address)
    found = []
    if cut := page.evaluate(CUT, PAPER):
        found.append(f"wider than the paper: {', '.join(sorted(set(cut)))}")
    return found, page.evaluate(COLOURS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pictures", type=int, default=1, help="minimum number of pictures (default: 1)"
    )
    parser.add_argument("--screenshots", type=Path, help="save screenshots to this folder")
    parser.add_argument("--chromium", required=True, help="path of the Chromium binary")
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()

    found = []
    address = arguments.page.resolve().as_uri()
    printed: dict[str, dict[str, str]] = {}
    with sync_playwright() as playwright:
        # Chromium refuses to sandbox as root. The page is our own.
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
                    else found.append(f"the page asks the network for {request.url}")
                ),
            )
            for width in (360, 1200):
                for problem in check_screen(page, address, width, arguments.pictures):
                    found.append(f"{scheme}, {width} pixels: {problem}")
                if arguments.screenshots:
                    picture = arguments.screenshots / f"{scheme}-{width}.png"
                    page.screenshot(path=picture, full_page=True)
            wrong, printed[scheme] = check_print(page, address)
            found.extend(f"{scheme}, print: {problem}" for problem in wrong)
            if arguments.screenshots:
                page.screenshot(path=arguments.screenshots / f"{scheme}-print.png", full_page=True)
                page.pdf(path=arguments.screenshots / f"{scheme}.pdf", format="A4")
        browser.close()
    # Paper is white in dark mode as well.
    if differ := [
        name for name, value in printed["light"].items() if printed["dark"].get(name) != value
    ]:
        found.append(f"print: other colours where the screen is dark: {' '.join(differ)}")
    for problem in found:
        print(f"{arguments.page}: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
