"""runc for a Docker Engine without CAP_SYS_RESOURCE: a negative oom_score_adj can't be set there, so it is 0."""

import json
import os
import sys

words = sys.argv[1:]
bundles = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("--bundle", "-b")]
for path in (os.path.join(bundle, "config.json") for bundle in bundles):
    with open(path) as stream:
        config = json.load(stream)
    if config["process"].get("oomScoreAdj", 0) < 0:
        config["process"]["oomScoreAdj"] = 0
        with open(path, "w") as stream:
            json.dump(config, stream)
os.execvp("runc", ["runc", *words])
