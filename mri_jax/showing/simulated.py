"""The word SIMULATED: every sentence, label and mark that says that no patient was scanned."""

WORD = "SIMULATED"
SCANS = f"{WORD} scans"
COHORTS = f"{WORD} cohorts"
MARK = SCANS.upper()
"""What stands in a corner of every figure."""
BANNER = f"{MARK}: nothing here is about patients"
"""What stands above every page about scans."""
TRAINING_BANNER = (
    f"{WORD} TRAINING DATA: the networks know no patient; this says nothing about a disease"
)
"""What stands above a page about a real scan that networks of simulated scans judge."""
SCORES = f"{COHORTS}: these scores test the software and say nothing about patients."


def caution(scans: str = "scans") -> str:
    """Returns the sentence that warns of conclusions about a disease."""
    return (
        f"{WORD}: the {scans} were made by a program. Nothing here says how well a network "
        "recognises a disease."
    )


def labelled(title: str, simulated: bool) -> str:
    """Returns a title with the words behind it where its scans are simulated.

    >>> labelled("Scores", True), labelled("Scores", False)
    ('Scores (SIMULATED scans)', 'Scores')
    """
    return f"{title} ({SCANS})" if simulated else title


def prefixed(text: str, simulated: bool) -> str:
    """Returns a short text, such as the description in a header, with the word before it."""
    return f"{WORD} {text}" if simulated else text
