from __future__ import annotations

from tools.__main__ import main
from tools.release.export import Answer


def test_what_was_compared_is_told(monkeypatch, tmp_path, capsys):
    given = []

    def write(bundle, to, *options):
        given.append((bundle, *options))
        (tmp_path / "net.onnx").write_bytes(bytes(1_500_000))
        return [Answer("pred", (1, 1, 32, 48), 2.5e-6)]

    monkeypatch.setattr("tools.commands.export.write_export", write)
    path = str(tmp_path / "net.onnx")
    assert main(["export", "net", "--to", path, "--network", "union", "--model_dir", "m", "--domain", "1e3"]) == 0
    assert given == [("net", "union", "m", "1e3")]
    lines = ["pred: at 1 x 1 x 32 x 48 within 2.5e-06 of its largest value in PyTorch", f"written: {path} (1.5 MB)"]
    assert capsys.readouterr().out.splitlines() == lines


def test_a_fault_is_one_line(tmp_path, capsys):
    assert main(["export", "net", "--to", "net.pt"]) == 2
    assert capsys.readouterr().err == "net.pt: an ONNX file ends in .onnx\n"
