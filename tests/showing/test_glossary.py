import re

from mri_jax.showing import glossary, pages


def test_each_term_is_a_button_at_its_first_place_and_the_rest_is_escaped():
    shown = str(glossary.explained("Holm <b> and interval A, then Holm; interval Alpha"))
    assert shown.count("<button") == 2
    assert 'popovertarget="term-holm">Holm</button> &lt;b&gt; and <button' in shown
    assert 'popovertarget="term-interval-a">interval A</button>, then Holm; interval Alpha' in shown


def test_plurals_and_capitals_are_the_same_term():
    shown = str(glossary.explained("Baselines are grey"))
    assert shown.startswith('<button type="button" class="term" popovertarget="term-baseline">')
    assert glossary.explained("rebased foldings") == "rebased foldings"


def test_every_term_has_a_sentence_and_an_id_of_its_own():
    ids = [glossary.key(term) for term in glossary.TERMS]
    assert len(set(ids)) == len(ids)
    for term, told in glossary.TERMS.items():
        assert told[0] == told[0].upper(), term
        assert told.endswith("."), term
    macro = pages._environment().from_string(
        '{% from "showing/parts.html.j2" import glossary with context %}{{ glossary() }}'
    )
    written = macro.render(interactive=True)
    assert re.findall(r'popover id="([^"]*)"', written) == ids


def test_every_page_that_explains_words_holds_what_they_mean():
    for room, name in (
        ("reporting", "report.html.j2"),
        ("explanation", "explanation.html.j2"),
        ("prediction", "scan.html.j2"),
    ):
        template = pages.asset(room, name)
        assert "{{ glossary() }}" in template
