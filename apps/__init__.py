"""The scripts. They import their siblings by plain name, also as modules: `python -m apps.train`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
