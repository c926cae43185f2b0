"""The report in a browser: it opens without an error, and charts and film follow what is chosen."""

import pytest


@pytest.fixture(params=[1200, 390], ids=["desktop", "phone"])
def page(request, browser, written):
    page = browser.new_page(viewport={"width": request.param, "height": 800})
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(written.as_uri())
    yield page
    page.close()
    assert errors == []


def curve(page):
    return page.locator("[data-chart=vrmse] path.curve").first.get_attribute("d")


def test_a_chart_follows_its_choices(page):
    before = curve(page)
    page.select_option("[data-chart=vrmse] select[name=field]", "density")
    assert curve(page) != before
    page.select_option("[data-chart=vrmse] select[name=metric]", "spread_skill_ratio")
    assert page.locator("[data-chart=vrmse] path.curve").count() == 1
    assert page.locator("[data-chart=vrmse] .mark").count() == 1
    about = page.locator("[data-chart=vrmse] .plot").get_attribute("aria-label")
    assert "spread / skill of Diffusion" in about


def test_axes_have_numbers_however_narrow_their_range(page):
    numbers = "[data-chart=vrmse] svg text[text-anchor=end]"
    page.evaluate(
        """() => document.querySelectorAll("[data-chart=vrmse] .legend button").forEach((button, i) => {
            if (i) button.click();
        })"""
    )
    values = [float(text) for text in page.locator(numbers).all_text_contents()]
    assert len(values) >= 3
    assert values == sorted(values)


def test_the_legend_hides_a_curve(page):
    curves = page.locator("[data-chart=vrmse] path.curve")
    count = curves.count()
    page.click("[data-chart=vrmse] .legend button:has-text('Persistence')")
    assert curves.count() == count - 1
    page.click("[data-chart=vrmse] .legend button:has-text('Persistence')")
    assert curves.count() == count


def test_arrow_keys_read_the_values(page):
    page.focus("[data-chart=vrmse] .plot")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    text = page.inner_text("[data-chart=vrmse] .readout")
    assert text.startswith("lead time (simulation steps): 8")
    assert "Diffusion" in text
    inside = """() => { const [box, plot] = ['.readout', '.plot'].map((part) =>
        document.querySelector('[data-chart=vrmse] ' + part).getBoundingClientRect());
        return box.left >= plot.left - 1 && box.right <= plot.right + 1; }"""
    assert page.evaluate(inside)


def test_the_film_plays_fields_rates_and_differences(page):
    tiles = page.locator(".tiles canvas")
    page.wait_for_function("document.querySelector('.film output').textContent === 'lead time 4'")
    assert tiles.count() == 5
    truth, *pairs = (tiles.nth(number).bounding_box() for number in range(5))
    for above, mean, deviation in ((truth, *pairs[:2]), (pairs[0], *pairs[2:])):
        assert above["y"] < mean["y"] == deviation["y"]  # a row for a method
        assert above["x"] == mean["x"] < deviation["x"]  # columns line up
    pixels = "() => document.querySelectorAll('.tiles canvas')[1].toDataURL()"
    first = page.evaluate(pixels)
    page.locator(".film [name=frame]").evaluate("e => { e.value = 2; e.dispatchEvent(new Event('input')); }")
    page.wait_for_function("document.querySelector('.film output').textContent === 'lead time 12'")
    second = page.evaluate(pixels)
    assert second != first
    page.check(".film [name=differ]")
    page.wait_for_function("label => document.querySelectorAll('.tiles canvas')[1].ariaLabel.includes(label)",
                           arg="minus truth")  # fmt: skip
    assert page.evaluate(pixels) != second
    page.select_option(".film [name=rate]", "32")
    assert page.locator(".tiles figcaption").all_inner_texts() == ["Truth", "Else"]


def test_the_page_is_as_wide_as_its_window(page):
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_everything_that_is_chosen_or_seen_has_a_name(page):
    seen = "select, input, button, img, canvas, [role=img]"
    nameless = "e => !(e.labels?.length || e.ariaLabel || e.alt || e.textContent.trim())"
    page.wait_for_function("document.querySelector('.film output').textContent === 'lead time 4'")
    assert page.locator(seen).evaluate_all(f"all => all.filter({nameless}).length") == 0
