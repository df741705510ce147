"""Every block of docs/python.md runs as it stands, one after the other."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "python.md"


def test_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)
    scores = namespace["scores"][0]
    assert scores["test/figures/questions"] == 20
    assert (
        scores["test/figures/accuracy_low"] <= scores["test/figures/accuracy"] <= scores["test/figures/accuracy_high"]
    )
    answer = namespace["answer"]
    assert answer.caption
    assert answer.response
    assert set(answer.seconds) == {"caption", "tentative", "response"}
    assert (tmp_path / "my_adapter" / "adapter_model.safetensors").is_file()
