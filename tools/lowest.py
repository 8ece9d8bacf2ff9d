"""Print the lowest versions that setup.cfg declares, as constraints for pip."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
declared = config["options"]["install_requires"] + config["options.extras_require"]["redis"]
for requirement in filter(None, declared.splitlines()):
    bounded = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
    if bounded is None:
        raise SystemExit(f"setup.cfg declares no lower bound: {requirement}")
    print(f"{bounded[1]}=={bounded[2]}")
