"""Pyro's own tests and examples with CompiledSVI in the place of SVI.

    python benchmarks/pyro_suite.py CHECKOUT examples [--steps 100] [--only hmm]
    python benchmarks/pyro_suite.py CHECKOUT tests [--only test_enum] [--seconds 60]

CHECKOUT is a checkout of github.com/pyro-ppl/pyro; nothing of it is copied. Each example runs
twice, each time in another process, until it has taken so many steps. Printed are how many of its
SVIs compiled, why others did not, the largest relative difference of the losses of the first 20
steps, and the time of a step beside stock SVI's, in the median over the second half. What they
would download is made up, see pyro_data.py. Each test file runs twice; printed is how many tests
pass. Their graphs run one operation after the other: compiling hundreds would take hours.
"""

import argparse
import json
import math
import multiprocessing
import os
import re
import runpy
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyro.infer.svi
from pyro_data import FOLDER, make_data, use_data

EXAMPLE = re.compile(r'"([\w/-]+\.py[^"]*)"')
COUNTS = re.compile(r"--(num-steps|num-epochs|epochs|num-vi-steps|max_epochs)[= ]\d+")
COMPARED, TO_COMPILE = 20, 300
DRIFT = 1e-6  # relative, of losses in double precision, after some hundred steps
LONG_TEST = 40  # steps
WATCH: dict[str, Any] = {}
TESTS = ("tests/infer", "tests/optim", "tests/contrib/easyguide")


class Enough(BaseException):
    """An example has taken its steps."""


def replace_svi(ours: bool, steps: int, seconds: float, record: dict) -> None:
    """Put an SVI that counts and times its steps in the place of Pyro's."""
    from ppl_vae import CompiledSVI

    record.update(losses=[], seconds=[], svis=0, compiled=0, reasons=[])
    # Not in closures, which would be a part of the program.
    WATCH.update(record=record, made=[], begun=[], steps=steps, longest=seconds)
    WATCH["options"] = {"engine": "compiled"} if ours else {}
    stock = pyro.infer.svi.SVI
    base: Any = CompiledSVI if ours else stock

    class Timed(base):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs, **WATCH["options"])
            WATCH["made"].append(self)

        def step(self, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            loss = super().step(*args, **kwargs)
            note_step(loss, time.perf_counter() - start)
            return loss

    put_in_place(Timed)


def put_in_place(kind: Any) -> None:
    """Put a class in the place of SVI, wherever Pyro has that."""
    stock = pyro.infer.svi.SVI
    for name, module in list(sys.modules.items()):
        if name.startswith("pyro.") and getattr(module, "SVI", None) is stock:
            setattr(module, "SVI", kind)  # noqa: B010


def note_step(loss: Any, seconds: float) -> None:
    """Record a step, and end the example after the last."""
    record, made, begun = WATCH["record"], WATCH["made"], WATCH["begun"]
    record["seconds"].append(seconds)
    record["losses"].append(loss if isinstance(loss, float) else math.nan)
    record["svis"] = len(made)
    counts = [svi.gradients.graphs or svi.losses.graphs for svi in made if hasattr(svi, "losses")]
    record["compiled"] = sum(map(bool, counts))
    if len(record["losses"]) == 3:  # by then it has been compiled
        begun.append(time.perf_counter())
    late = begun and time.perf_counter() - begun[0] > WATCH["longest"]
    if len(record["losses"]) >= WATCH["steps"] or late:
        raise Enough


def run_example(run: str, words: list[str], output: str, arguments: argparse.Namespace) -> None:
    """In a process of its own: run one example, and write what was recorded."""
    import pyro.contrib.epidemiology
    import pyro.contrib.forecast  # modules that have imported SVI by name

    from ppl_vae import EagerWarning

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os.chdir(Path(output).parent)
    use_data()
    script, *words = words
    # Examples assert that they belong to the version that is installed.
    source = Path(arguments.checkout, "pyro/__init__.py").read_text()
    pyro.__version__ = re.findall(r'version_prefix = "(.+)"', source)[0]
    record: dict = {}
    replace_svi(run == "ours", arguments.steps, arguments.seconds, record)
    pyro.set_rng_seed(0)
    sys.argv, sys.path[0] = [script, *words], str(Path(script).parent)
    sys.path.insert(1, arguments.checkout)  # examples import each other
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            runpy.run_path(script, run_name="__main__")
        except Enough:
            pass
        except BaseException as error:
            record["error"] = f"{type(error).__name__}: {error}".partition("\n")[0][:150]
    record["reasons"] = [str(w.message) for w in told if issubclass(w.category, EagerWarning)]
    Path(output).write_text(json.dumps(record))


def examples(checkout: Path, only: str) -> list[str]:
    """Command lines of Pyro's examples, one for each script, or model of a script."""
    found = {}
    for line in EXAMPLE.findall((checkout / "tests/test_examples.py").read_text()):
        script = line.split()[0]
        text = (checkout / "examples" / script).read_text()
        if ("SVI(" not in text and "--svi" not in line) or "tmc" in line or "--jit" in line:
            continue
        model = re.search(r"(--model=|-m |--guide )\S+", line)
        key = script, model and model[0]
        if re.search(only, line) and key not in found:
            found[key] = COUNTS.sub(lambda count: f"--{count[1]}=1000000", line)
    return list(found.values())


def child(run: str, words: list[str], arguments: argparse.Namespace) -> dict:
    """Run an example in a process of its own, a copy of this one, and return what it recorded."""
    with tempfile.TemporaryDirectory() as folder:
        output = str(Path(folder, "record.json"))
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=run_example, args=(run, words, output, arguments))
        process.start()
        process.join(arguments.seconds + TO_COMPILE)
        if process.is_alive():
            process.kill()
            process.join()
            return {
                "error": f"it took more than {TO_COMPILE} s longer",
                "losses": [],
                "seconds": [],
            }
        if not Path(output).exists():
            return {"error": f"exit code {process.exitcode}", "losses": [], "seconds": []}
        return json.loads(Path(output).read_text())


def compare(line: str, arguments: argparse.Namespace) -> dict:
    """One example under both."""
    script, *words = line.split()
    path = str(Path(arguments.checkout, "examples", script))
    found = {run: child(run, [path, *words], arguments) for run in ("stock", "ours")}
    stock, ours = found["stock"], found["ours"]
    count = min(len(stock["seconds"]), len(ours["seconds"]))
    result = {"example": line, "steps": count, "errors": [f.get("error") for f in found.values()]}
    if count >= 2:
        pairs = list(zip(stock["losses"], ours["losses"], strict=False))[:COMPARED]
        result["difference"] = max(abs(a - b) / (abs(a) + 1e-12) for a, b in pairs)
        medians = [statistics.median(f["seconds"][count // 2 : count]) for f in (stock, ours)]
        result["speed-up"] = medians[0] / medians[1]
        result |= {name: ours[name] for name in ("svis", "compiled", "reasons")}
    return result


def main_examples(arguments: argparse.Namespace) -> None:
    import ppl_vae  # noqa: F401  # once, for all examples

    checkout, results = Path(arguments.checkout), []
    data = tempfile.TemporaryDirectory()
    make_data(Path(data.name))
    os.environ[FOLDER] = data.name
    for line in examples(checkout, arguments.only):
        result = compare(line, arguments)
        results.append(result)
        if "speed-up" not in result:
            print(f"- {line}: not run ({result['errors']})", flush=True)
            continue
        why = "; ".join(result["reasons"])[:150]
        print(
            f"- {line}: {result['steps']} steps, "
            f"{result['compiled']} of {result['svis']} compiled, "
            f"difference {result['difference']:.1e}, speed-up {result['speed-up']:.2f} {why}",
            flush=True,
        )
    ran = [result for result in results if "speed-up" in result]
    compiled = [result["speed-up"] for result in ran if result["compiled"]]
    print(f"{len(ran)} of {len(results)} examples ran, {len(compiled)} of these compiled")
    if compiled:
        low, high = min(compiled), max(compiled)
        print(f"speed-up: {statistics.median(compiled):.2f} ({low:.2f} to {high:.2f})")


def run_tests(
    file: Path, run: str, arguments: argparse.Namespace, only: Iterable[str] = ()
) -> dict[str, dict]:
    """What was recorded of each test of a file, or of some, as far as they came in time."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "records.jsonl")
        output.touch()
        Path(folder, "only").write_text("\n".join(only))
        paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
        environment = os.environ | {
            "PYRO_SUITE": run,
            "PYRO_SUITE_OUTPUT": str(output),
            "PYRO_SUITE_SECONDS": str(arguments.seconds),
            "PYRO_SUITE_ONLY": str(Path(folder, "only")),
            "PYTHONPATH": paths,
        }
        # Pyro is the one that is installed, and imported by now.
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-p", "pyro_plugin", "-W", "default", *arguments.pytest, str(file)]
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                cwd=arguments.checkout,
                env=environment,
                timeout=arguments.file_seconds,
                check=False,
                **quiet,
            )
        records = [json.loads(line) for line in output.read_text().splitlines()]
    return {record["test"]: record for record in records}


def differences(stock: dict, ours: dict) -> list[str]:
    """In what a test differs between the two, if it was through under both."""
    found = []
    if stock["outcome"] != ours["outcome"]:
        found.append(f"{stock['outcome']} became {ours['outcome']} ({ours['error'][:150]})")
    pairs = list(zip(stock["losses"], ours["losses"], strict=False))
    for step, (some, others) in enumerate(pairs):
        if not all(map(near, some, others)):
            found.append(f"loss {step} of {len(pairs)} is {others}, and was {some}")
            break
    if len(stock["losses"]) != len(ours["losses"]):
        found.append(f"{len(ours['losses'])} losses, not {len(stock['losses'])}")
    some, others = stock["parameters"] or {}, ours["parameters"] or {}
    if some.keys() != others.keys() or not all(near(some[name], others[name]) for name in some):
        found.append("the parameters at the end")
    return found


def near(one: float, other: float) -> bool:
    """Whether numbers are the same but for rounding that many steps have carried on."""
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return math.isclose(one, other, rel_tol=DRIFT, abs_tol=DRIFT)


def speed_up(stock: dict, ours: dict) -> float | None:
    """How much less a step takes, in the median over the second half of a test."""
    count = min(len(stock["seconds"]), len(ours["seconds"]))
    if count < LONG_TEST or not ours["compiled"]:
        return None
    medians = [statistics.median(f["seconds"][count // 2 : count]) for f in (stock, ours)]
    return medians[0] / medians[1]


def tell_tests(name: str, stock: dict[str, dict], ours: dict[str, dict]) -> list[str]:
    """Print what a file comes to, and return the tests that differ."""
    late = [t for t in stock if "too long" in (stock[t]["outcome"], ours.get(t, {}).get("outcome"))]
    both = [test for test in stock if test in ours and test not in late]
    with_svi = sum(bool(record["svis"]) for record in stock.values())
    passed = [sum(run[t]["outcome"] == "passed" for t in both) for run in (stock, ours)]
    svis, compiled = (sum(ours[t][key] for t in both) for key in ("svis", "compiled"))
    speeds = [s for t in both if (s := speed_up(stock[t], ours[t])) is not None]
    took = [sum(run[t]["took"] for t in both) for run in (stock, ours)]
    speed = (
        f"{statistics.median(speeds):.2f} over {len(speeds)} tests" if speeds else "not measured"
    )
    print(
        f"- {name}: {len(stock)} tests ran, {with_svi} use SVI, {len(both)} of these ran under "
        f"both, {len(late)} took too long; passed: stock {passed[0]}, ours {passed[1]}; "
        f"{compiled} of {svis} SVIs had graphs, in {sum(bool(ours[t]['compiled']) for t in both)} "
        f"tests; speed-up {speed}; {took[0]:.0f} s became {took[1]:.0f} s",
        flush=True,
    )
    reasons = Counter(re.sub(r"\d+", "N", r) for t in both for r in set(ours[t]["reasons"]))
    for reason, count in reasons.most_common(8):
        print(f"    {count} times: {reason[:160]}", flush=True)
    differ = []
    for test in both:
        if told := differences(stock[test], ours[test]):
            differ.append(test)
            print(f"    DIFFERS {test}: {'; '.join(told)}", flush=True)
    return differ


def main_tests(arguments: argparse.Namespace) -> None:
    checkout, differ, count = Path(arguments.checkout), [], 0
    for file in sorted(f for folder in TESTS for f in (checkout / folder).rglob("test_*.py")):
        if "SVI" not in file.read_text() or not re.search(arguments.only, file.name):
            continue
        stock = run_tests(file, "stock", arguments)
        with_svi = [test for test in stock if stock[test]["svis"]]
        ours = run_tests(file, "ours", arguments, with_svi) if with_svi else {}
        differ += tell_tests(str(file.relative_to(checkout)), stock, ours)
        count += len(stock.keys() & ours.keys())
    print(f"{count} tests, of which {len(differ)} differ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout")
    parser.add_argument("what", choices=("examples", "tests"))
    parser.add_argument("--only", default="", help="those whose command or name has it")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0, help="the most for one of them")
    parser.add_argument("--file-seconds", type=float, default=900.0, help="for a file of tests")
    parser.add_argument("--pytest", nargs="*", default=[], help="what else pytest is given")
    arguments = parser.parse_args()
    arguments.checkout = str(Path(arguments.checkout).resolve())
    if arguments.what == "examples":
        main_examples(arguments)
    else:
        main_tests(arguments)


if __name__ == "__main__":
    main()
