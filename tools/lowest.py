"""Print the lowest versions that setup.cfg allows, as constraints for pip."""

import configparser
import re
from pathlib import Path

config = configparser.ConfigParser()
config.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
requirements = config["options"]["install_requires"] + config["options.extras_require"]["redis"]
for requirement in filter(None, requirements.splitlines()):
    match = re.match(r"([A-Za-z0-9._-]+)>=([0-9.]+)", requirement)
    if match is None:
        raise SystemExit(f"setup.cfg has no lower bound for: {requirement}")
    print(f"{match[1]}=={match[2]}")
