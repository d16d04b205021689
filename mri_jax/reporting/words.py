"""What a report found, in a few lines for a terminal."""

import textwrap
from collections.abc import Sequence

from mri_jax.problems import counted
from mri_jax.reporting import search_words
from mri_jax.reporting.analysis import Analysis
from mri_jax.reporting.findings import Claim, Finding, findings, wrong
from mri_jax.reporting.search import SearchAnalysis
from mri_jax.showing.simulated import labelled

LINES = 12
"""At most so many lines."""
WIDTH = 110
"""Characters of a line."""
_MORE = "The report says more."


def in_words(analysis: Analysis, searched: Sequence[SearchAnalysis] = ()) -> list[str]:
    """Returns what the page's first screen says, in at most `LINES` lines.

    Of a search its verdict comes first. Where not all fits, each target's first sentence comes
    before any target's second.
    """
    found = findings(analysis)
    of = f", {found[0].cohort} ({found[0].subjects})" if len(found) == 1 else ""
    first = [f"{labelled('In short', analysis.simulated)}{of}; p is adjusted for several tests:"]
    if trouble := wrong(analysis):
        said = counted(len(trouble), "sentence")
        first.append(f"  Networks failed or have hardly learnt: {said} in the report.")
    first += [
        line
        for search in searched
        for line in _wrapped(next(search_words.claims(search)), "Search")
    ]
    chosen: list[list[Claim]] = [[] for _ in found]
    queue = [
        (place, claim)
        for rank in range(max((len(f.claims) for f in found), default=0))
        for place, f in enumerate(found)
        for claim in f.claims[rank : rank + 1]
    ]
    for number, (place, claim) in enumerate(queue):
        chosen[place].append(claim)
        rest = number + 1 < len(queue)
        if len(first) + len(_written(found, chosen)) + rest > LINES:
            chosen[place].pop()
            return [*first, *_written(found, chosen), f"  {_MORE}"]
    return [*first, *_written(found, chosen)]


def _written(found: Sequence[Finding], chosen: Sequence[Sequence[Claim]]) -> list[str]:
    tables = {f.table for f in found}
    lines = []
    for finding, claims in zip(found, chosen, strict=True):
        if claims and len(found) > 1:
            of_table = f", {finding.title.partition(':')[0]}" if len(tables) > 1 else ""
            lines.append(f"  {finding.cohort} ({finding.subjects}){of_table}")
        for claim in claims:
            lines += _wrapped(claim, claim.about)
    return lines


def _wrapped(claim: Claim, about: str) -> list[str]:
    return textwrap.wrap(
        f"{about}: {claim.text.replace('adjusted p', 'p')}", WIDTH,
        initial_indent="  - ", subsequent_indent="    ",
    )  # fmt: skip
