"""Put apps/ on the path, as it is when a script there runs: the scripts import their siblings by plain name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "apps"))
