"""Programs of ranks: pytest looks for doctests in files of any name, but only ranks may begin MPI."""

from pathlib import Path

collect_ignore = [path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")]
