"""What the words of the pages mean, a sentence each, for readers who are no statisticians."""

import re

from markupsafe import Markup, escape

TERMS = {
    "ACC": "Accuracy: the share of subjects that are decided rightly.",
    "adaptation part": "The part of a target's subjects, a fifth by default, on which networks are "
    "fine-tuned; the others test.",
    "AUC": "Area under the ROC curve: the chance that a randomly chosen patient gets a higher "
    "score than a randomly chosen control; 50% is guessing.",
    "BAC": "Balanced accuracy: the mean of sensitivity and specificity; 50% is guessing, whatever "
    "the share of patients.",
    "SEN": "Sensitivity: the share of patients that are recognised.",
    "SPE": "Specificity: the share of controls that are recognised.",
    "argmax": "The decision for the class of higher probability: a threshold of 50%.",
    "baseline": "A plain method that any network should beat, such as a regression on age and sex.",
    "bootstrap": "Scores computed again on subjects drawn anew from those at hand, many times, "
    "which shows how much they vary.",
    "Brier": "Mean squared distance between the predicted probability and what was true; lower is "
    "better.",
    "calibration": "Whether subjects given a probability of 70% are patients in 70 of 100 cases.",
    "corrected t": "A t-test that allows for the overlap of the folds' training subjects.",
    "DeLong": "A formula for the variance of the AUC, and for comparing two of them.",
    "ECE": "Expected calibration error: the mean distance between predicted probabilities and "
    "observed shares; lower is better.",
    "ensemble": "The networks of all folds as one classifier, by their mean probability.",
    "exploratory": "Not planned for inference: of so many comparisons the largest is partly luck.",
    "fold": "A fifth of the source subjects, held out from the training of one network.",
    "Holm": "An adjustment of p-values for the number of tests of a table: with many tests some p "
    "are small by chance.",
    "interval A": "95% interval of these networks on new subjects of the same kind.",
    "interval B": "95% interval of networks trained anew and tested on new subjects.",
    "McNemar": "A test of whether two classifiers err on different subjects.",
    "permutation": "A test that swaps the two methods' scores of subjects at random, to see how "
    "large a difference chance alone makes.",
    "refitted threshold": "The probability above which a subject is called a patient, chosen again "
    "on the target's adaptation part.",
    "target's statistics": "BatchNorm's means and variances were estimated on the "
    "target's scans, while fine-tuning or in one pass, and are not the source's.",
    "temperature": "The number by which scores are divided before they become probabilities: above "
    "1 the network was too sure of itself.",
    "Wilson": "A formula for the interval of a share, such as 40 of 50.",
    "η²": "The share of the scores' variance that lies between methods, corrected for chance.",
    "trained anew": "With other subjects and another start, as another group would train them.",
}
"""A term, as texts write it, and what it means."""


def key(term: str) -> str:
    """Returns the id of a term on a page."""
    return "term-" + re.sub(r"[^a-z]+", "-", term.lower()).strip("-")


def explained(text: str) -> Markup:
    """Returns a text whose terms, each at its first place, are buttons that open what they mean.

    The page must hold the `TERMS` (``showing/parts.html.j2``).

    >>> explained("Holm within the table; Holm < 0.05")
    Markup('<button type="button" class="term" popovertarget="term-holm">Holm</button> within \
the table; Holm &lt; 0.05')
    """
    parts: list[Markup] = []
    end, seen = 0, set()
    for found in _ANY.finditer(text):
        term = _BY_WORDS[found[0].lower()]
        if term in seen:
            continue
        seen.add(term)
        parts.append(escape(text[end : found.start()]))
        parts.append(_BUTTON.format(key(term), found[0]))
        end = found.end()
    return Markup("").join([*parts, escape(text[end:])])


_BUTTON = Markup('<button type="button" class="term" popovertarget="{}">{}</button>')
_BY_WORDS = {f"{term.lower()}{end}": term for term in TERMS for end in ("", "s")}
_ANY = re.compile(
    r"\b(?:" + "|".join(sorted(map(re.escape, TERMS), key=len, reverse=True)) + r")s?\b",
    re.IGNORECASE,
)
