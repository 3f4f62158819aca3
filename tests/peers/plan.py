"""Does `quant plan` choose better than llama-quantize's mixes of the same size? Both are converted, and llama.cpp itself says.

For each mix: its size; a plan of at most that size; both files; perplexity and Kullback-Leibler divergence from the model in
16 bits, by llama-perplexity. The rows are those of docs/plan.md, the lost ones too.

Run:   python plan.py --llama BIN --quant BIN --text FILE [--context N] [--chunks N] MODEL.gguf [--imatrix FILE] [--mix NAME ...]
       --llama   the folder with llama-perplexity of llama.cpp 0.5.0-dev
Exits 1 if a plan has the larger expected error or the larger divergence.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

FIGURES = {"ppl": r"Mean PPL\(Q\)\s*:\s*([\d.]+)", "kl": r"Mean\s+KLD:\s*([\d.]+)"}
# llama-perplexity may end before its log is written.
TRIES = 16


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr, done.stdout


class Judge:
    """llama-perplexity with the logits of the model in 16 bits."""

    def __init__(self, args, folder):
        self.command = [args.llama / "llama-perplexity", "-f", args.text, "-c", args.context, "--kl-divergence-base", folder / "base.kl"]
        self.command += ["--chunks", args.chunks] if args.chunks else []
        run(*self.command, "-m", args.model)

    def figures(self, file):
        for _ in range(TRIES):
            text, _ = run(*self.command, "-m", file, "--kl-divergence")
            found = {name: re.search(pattern, text) for name, pattern in FIGURES.items()}
            if all(found.values()):
                return {name: float(match.group(1)) for name, match in found.items()}
        sys.exit(f"{file}: llama-perplexity gave no figures")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama", type=Path, required=True)
    parser.add_argument("--quant", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--context", default="128")
    parser.add_argument("--chunks")
    parser.add_argument("--imatrix", type=Path)
    parser.add_argument("--mix", nargs="+", default=["q3_k_m", "q4_k_m", "q5_k_m"])
    args = parser.parse_args()
    weighed = ["--imatrix", args.imatrix] if args.imatrix else []
    lost = False
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        judge = Judge(args, folder)
        plan = lambda *more: json.loads(run(args.quant, "plan", args.model, *more, *weighed, "--json")[1])
        mixes = {row["mix"]: row for row in plan("--target-bpw", "8")["mixes"]}
        print("| mix | bytes fixed | plan | expected error % | plan | KL | plan | PPL | plan | |")
        print("|---|---|---|---|---|---|---|---|---|---|")
        for name in args.mix:
            fixed, recipe, files = mixes[name], folder / "recipe.toml", (folder / "fixed.gguf", folder / "planned.gguf")
            planned = plan(recipe, "--target-bpw", repr(fixed["bits_per_weight"] + 1e-9), "--force")
            run(args.quant, "convert", args.model, files[0], "--type", name, "--force", *weighed)
            run(args.quant, "convert", args.model, files[1], "--recipe", recipe, "--force", *weighed)
            a, b = (judge.figures(file) for file in files)
            verdict = "both lower" if b["kl"] < a["kl"] and b["ppl"] < a["ppl"] else "KL lower" if b["kl"] < a["kl"] else "lost"
            lost |= b["kl"] >= a["kl"] or planned["error"] >= fixed["error"]
            errors = f"{100 * fixed['error']:.3f} | {100 * planned['error']:.3f}"
            figures = f"{a['kl']:.6f} | {b['kl']:.6f} | {a['ppl']:.4f} | {b['ppl']:.4f}"
            print(f"| {name} | {fixed['bytes']} | {planned['bytes']} | {errors} | {figures} | {verdict} |", flush=True)
    sys.exit(lost)


if __name__ == "__main__":
    main()
