from __future__ import annotations

import json

from tools.release.trust import executed


def test_what_a_bundle_executes(tmp_path):
    config = {
        "imports": ["$import os"],
        "a": {
            "_target_": "Compose",
            "transforms": [{"_target_": "torch.nn.ReLU"}, {"_target_": "torch.hub.load", "x": "$os.system('ls')"}],
        },
        "b": {"_target_": "net.Thing"},
        "b#_target_": "net.Other",
        "c": "%other.json::x",
        "d": "$os.system('ls')",
        "e": "$print('\x1b[2J\n')",
        "f": "costs $5",
    }
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/train.json").write_text(json.dumps(config))
    (tmp_path / "configs/more.yaml").write_text("a: $1")
    (tmp_path / "configs/broken.json").write_text("{")
    (tmp_path / "configs/logging.conf").write_text("[handler_a]\nclass=StreamHandler\nargs=(os.system('ls'),)\n")
    (tmp_path / "net.py").write_text("")
    assert executed(tmp_path) == [
        "unreadable: broken.json is no JSON   [configs/broken.json]",
        "unreadable: more.yaml is YAML, which is not looked into   [configs/more.yaml]",
        "expression: $import os   [configs/train.json]",
        "expression: $os.system('ls')   [configs/train.json]",
        "expression: $print('\\x1b[2J\\n')   [configs/train.json]",
        "expression: %other.json::x   [configs/train.json]",
        "target: net.Other   [configs/train.json]",
        "target: torch.hub.load   [configs/train.json]",
        "target: net.Thing   [configs/train.json]",
        "logging: class = StreamHandler   [configs/logging.conf]",
        "logging: args = (os.system('ls'),)   [configs/logging.conf]",
        "code: Python files of its own   [net.py]",
    ]
