"""pytest imports test files by their names: of two with one name it collects neither."""

from collections import Counter
from pathlib import Path


def test_no_two_test_files_have_one_name():
    counts = Counter(file.name for file in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in counts.items() if count > 1] == []
