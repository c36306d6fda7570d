"""Checkpoints that qquant writes and its peers load, and the other way round: perplexity by the peer's own kernels against qppl's. `make interop` runs it.
usage: interop.py [ROW...]       prints a line a row, the greatest difference allowed being 0.1 %; exit status 1 when a row fails
Environment: B (build folder); DATA (folder with wikitext-2-raw-v1/test.jsonl and c4/sample.jsonl; without it the texts of pipelines/data);
TOKENS (of the text, 2048); INTEROP_ENV (a folder of existing Python environments, named as requirements/*.txt; nothing is installed there);
INTEROP_KEEP=1 (keep the checkpoints); XDG_CACHE_HOME. What is installed and made goes to the user's cache, but for the checkpoints: build/interop."""
import hashlib, json, os, pathlib, shutil, subprocess, sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = ROOT / os.environ.get("B", "build/release") / "bin"
WORK = ROOT / "build/interop"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "quantpipe"
LIMIT, TOKENS = 0.1, os.environ.get("TOKENS", "2048")
PEERS = {"bitsandbytes": "bitsandbytes", "gptqmodel": "gptqmodel", "llmcompressor": "compressed-tensors"}  # environment: the package that loads
ENV = {**os.environ, "GPTQMODEL_CPU_WORKERS": "2", "HF_HUB_OFFLINE": "1", "QP_MODEL": ""}  # the demo's model alone; GPTQModel cannot start with the one worker that it takes on two cores

# name: environment; "ours" and qquant's options, or "theirs" and write.py's arguments; what ppl.py is told beside them
ROWS = {
    "nf4": ("bitsandbytes", "ours", "--method nf4"),
    "nf4-dq": ("bitsandbytes", "ours", "--method nf4 --double-quant"),
    "fp4": ("bitsandbytes", "ours", "--method fp4"),
    "int8": ("bitsandbytes", "ours", "--method int8", "weights"),
    "gptq": ("gptqmodel", "ours", "--method gptq"),
    "gptq-asym": ("gptqmodel", "ours", "--method gptq --asym"),
    "gptq-mixed": ("gptqmodel", "ours", "--method gptq --keep *.v_proj=w8g32"),
    "awq": ("gptqmodel", "ours", "--method awq --format awq"),
    "ct-pack": ("llmcompressor", "ours", "--method gptq --format compressed-tensors"),
    "ct-pack-asym": ("llmcompressor", "ours", "--method rtn --asym --format compressed-tensors"),
    "ct-int": ("llmcompressor", "ours", "--method int8 --outlier-threshold 0 --format compressed-tensors"),
    "ct-float": ("llmcompressor", "ours", "--method fp8"),
    "ct-float-block": ("llmcompressor", "ours", "--method fp8 --fp8-scales block"),
    "from-bnb-nf4": ("bitsandbytes", "theirs", "bitsandbytes nf4"),
    "from-bnb-int8": ("bitsandbytes", "theirs", "bitsandbytes int8", "weights"),
    "from-gptqmodel": ("gptqmodel", "theirs", "gptqmodel gptq"),
    "from-gptqmodel-act": ("gptqmodel", "theirs", "gptqmodel gptq-act"),
    "from-llmc-gptq": ("llmcompressor", "theirs", "llmcompressor gptq"),
    "from-llmc-w4a16": ("llmcompressor", "theirs", "llmcompressor w4a16"),
    "from-llmc-fp8": ("llmcompressor", "theirs", "llmcompressor fp8"),
    "from-llmc-int8": ("llmcompressor", "theirs", "llmcompressor int8"),
}


class Skip(Exception):
    pass


class Failed(Exception):
    pass


def run(*argv, **kw):
    """Standard output of a command that must succeed; its log is in build/interop/log."""
    with open(WORK / "log", "a") as log:
        print("+", *argv, file=log, flush=True)
        r = subprocess.run([str(a) for a in argv], stdout=subprocess.PIPE, stderr=log, cwd=WORK, env=ENV, **kw)
    if r.returncode:
        raise Failed(f"{pathlib.Path(str(argv[0])).name} {' '.join(str(a) for a in argv[1:3])}: exit status {r.returncode}, see build/interop/log")
    return r.stdout


def environments():
    if "INTEROP_ENV" in os.environ:
        return pathlib.Path(os.environ["INTEROP_ENV"]).resolve()
    pins = b"".join(p.read_bytes() for p in sorted((HERE / "requirements").glob("*.txt")))
    return CACHE / f"interop-{hashlib.sha256(pins).hexdigest()[:8]}"


def python(name):
    """An environment's interpreter; made from requirements/NAME.txt where nobody gave one."""
    folder = environments() / name
    if not (folder / "bin/python").exists() if "INTEROP_ENV" in os.environ else not (folder / "complete").exists():
        if "INTEROP_ENV" in os.environ:
            raise Skip(f"INTEROP_ENV has no {name}/bin/python")
        print(f"interop: installing {name} and PyTorch into {folder} (several GB)", file=sys.stderr, flush=True)
        try:
            run(sys.executable, "-m", "venv", "--clear", folder)
            run(folder / "bin/python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / f"requirements/{name}.txt")
        except Failed as e:
            raise Skip(f"{name} could not be installed ({e})")
        (folder / "complete").touch()
    return folder / "bin/python"


def version(interpreter, package):
    """The peer's version, or Skip: the environment is not ours to change."""
    code = f"import importlib.metadata as m; print(m.version('{package}'))"
    try:
        return run(interpreter, "-c", code, text=True).strip()
    except Failed:
        raise Skip(f"{package} is not installed in {interpreter.parent.parent}")


def text():
    data = os.environ.get("DATA")
    if not data:
        return ROOT / "pipelines/data/general-eval.txt"
    path = pathlib.Path(data).resolve() / "wikitext-2-raw-v1/test.jsonl"
    if not path.exists():
        sys.exit(f"interop: DATA={data} has no wikitext-2-raw-v1/test.jsonl")
    return path


def model():
    """The demo's model, its channels permuted, in float16; kept in the cache."""
    path = CACHE / f"interop-model-{hashlib.sha256((HERE / 'model.py').read_bytes()).hexdigest()[:8]}"
    if not path.exists():
        shutil.rmtree(f"{path}.part", ignore_errors=True)
        run(python("bitsandbytes"), HERE / "model.py", run(ROOT / "scripts/fetch_model.sh", text=True).strip(), path)
    return path


def calibration_text():
    return pathlib.Path(os.environ["DATA"]).resolve() / "c4/sample.jsonl" if os.environ.get("DATA") else ROOT / "pipelines/data/general.txt"


def calibration():
    """Few samples, made once a run: how well a method quantizes is not asked here."""
    out = WORK / "calibration.qp"
    if not out.exists():
        out.write_bytes(run(BIN / "qcalib", "-q", "--model", model(), "--general", calibration_text(), "--samples", "12", "--seq-len", "256", "--exclude", text()))
    return out


def write(name, environment, how, options, out):
    if how == "theirs":
        run(python(environment), HERE / "write.py", *options.split(), model(), out, calibration_text())
    elif any(m in options for m in ("gptq", "awq")):
        with open(calibration(), "rb") as samples:
            run(BIN / "qquant", "-q", *options.split(), "-o", out, stdin=samples)
    else:
        run(BIN / "qquant", "-q", "--model", model(), *options.split(), "-o", out)


def perplexities(environment, path, more):
    theirs = json.loads(run(python(environment), HERE / "ppl.py", path, TOKENS, text(), "float32", *more, text=True).splitlines()[-1])
    stream = run(BIN / "qppl", "-q", "--model", path, "--text", text(), "--name", "text", "--max-tokens", TOKENS, "--window", "2048", "--stride", "512", "--compute", "f32")
    records = [json.loads(l) for l in run(BIN / "qcat", "--type", "result", input=stream).splitlines()]
    ours = next(r for r in records if r.get("metric") == "ppl/text")
    if ours["n"] != theirs["scored"]:
        raise Failed(f"qppl scored {ours['n']} tokens, the peer {theirs['scored']}")
    return theirs["ppl"], ours["value"]


def row(name):
    """PASS, FAIL or SKIP."""
    environment, how, options, *more = ROWS[name]
    out = WORK / name
    for old in (out, f"{out}.part"):
        shutil.rmtree(old, ignore_errors=True)
    try:
        peer = f"{PEERS[environment]} {version(python(environment), PEERS[environment])}"
        write(name, environment, how, options, out)
        theirs, ours = perplexities(environment, out, more)
    except Skip as e:
        print(f"{name:18} SKIP  {e}", flush=True)
        return "SKIP"
    except Failed as e:
        print(f"{name:18} FAIL  {e}", flush=True)
        return "FAIL"
    difference = 100 * abs(theirs / ours - 1)
    verdict = "PASS" if difference <= LIMIT else "FAIL"
    print(f"{name:18} {verdict}  {('qquant ' if how == 'ours' else 'written by ') + options:44} {peer:28} {theirs:10.4f} {ours:10.4f} {difference:8.3f} %", flush=True)
    if verdict == "PASS" and not os.environ.get("INTEROP_KEEP"):
        shutil.rmtree(out)
    return verdict


def main():
    names = sys.argv[1:] or list(ROWS)
    for n in names:
        if n not in ROWS:
            sys.exit(f"interop: no row '{n}'; there are {' '.join(ROWS)}")
    WORK.mkdir(parents=True, exist_ok=True)
    for old in ("log", "calibration.qp"):
        (WORK / old).unlink(missing_ok=True)
    print(f"{'row':18} {'':4}  {'checkpoint':44} {'loaded by':28} {'their PPL':>10} {'qppl':>10} {'difference':>10}", flush=True)
    verdicts = [row(n) for n in names]
    print(f"interop: {len(names)} rows, {verdicts.count('PASS')} passed, {verdicts.count('FAIL')} failed, {verdicts.count('SKIP')} skipped")
    return verdicts.count("FAIL") > 0


sys.exit(main())
