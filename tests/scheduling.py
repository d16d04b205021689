"""What runs where and when: tests that share what takes long on one worker, the longest first."""

from xdist.scheduler import LoadFileScheduling

# The template of simulated scans, and the programs that draw from it, are made once a process.
_SIMULATION = "tests/simulation/"
_TOGETHER = (_SIMULATION, "tests/study/test_making.py", "tests/test_examples.py")
# In descending order of processor time; one that is begun last would run alone at the end.
_LONGEST = (
    *_TOGETHER,
    "tests/models/test_reference_results.py",
    "tests/explanation/test_explain.py",
    "tests/reporting/test_report.py",
    "tests/training/test_objectives.py",
    "tests/abuse/test_abuse.py",
    "tests/models/test_conv_layer.py",
    "tests/training/test_step.py",
    "tests/test_cluster.py",
    "tests/models/test_measuring.py",
    "tests/study/test_choosing.py",
    "tests/test_launch.py",
    "tests/reporting/test_analysis.py",
    "tests/models/test_first_block.py",
    "tests/prediction/test_predict.py",
    "tests/training/",
    "tests/prediction/",
    "tests/study/",
    "tests/explanation/",
    "tests/models/",
    "tests/volumes/",
)


class LongestFirst(LoadFileScheduling):
    """A file, and files that share what takes long, stay on one worker."""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return _SIMULATION if file.startswith(_TOGETHER) else file


def place(nodeid: str) -> int:
    """Returns the place of a test in the order; equal places keep their order."""
    return next((i for i, name in enumerate(_LONGEST) if nodeid.startswith(name)), len(_LONGEST))
