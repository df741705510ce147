import subprocess
import sys


def test_text_and_reward_import_nothing_heavy():
    code = (
        "import sys, racro_pl.reward, racro_pl.text, racro_pl.text.choices, racro_pl.text.answers\n"
        "from racro_pl.reward import HttpReasoner, InProcessReasoner, Scorer\n"
        "Scorer(HttpReasoner()), InProcessReasoner('a/b')\n"
        "print([m for m in ('torch', 'transformers', 'sympy', 'math_verify', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=250, check=True)
    assert done.stdout.strip() == "[]"
