"""`python -m tests.project.whole_copies`: `make lint` and `make test` in a copy, and in one without accounts.

Takes as long as three whole runs of the tests. Arguments: what to leave out of a single copy (`accounts,events`).
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.service import ROOT


def main(ways: list[str]) -> int:
    for without in ways or ["", "accounts"]:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "harbour"
            command = [
                "make",
                "new",
                "NAME=harbour-master",
                f"DIR={copy}",
                f"WITHOUT={without}",
                f"PYTHON={sys.executable}",
            ]
            subprocess.run(command, cwd=ROOT, check=True)
            for target in ("lint", "test"):
                if status := subprocess.run(["make", target], cwd=copy, check=False).returncode:
                    return status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
