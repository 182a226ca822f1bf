"""What docs/testing.md shows works as it stands there."""

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "testing.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def test_every_example_runs(run_pytest):
    assert len(EXAMPLES) >= 6
    code, said = run_pytest(**{f"test_{number}": text for number, text in enumerate(EXAMPLES)})
    assert code == 0, said
    assert f"{sum(text.count('def test_') for text in EXAMPLES)} passed" in said
