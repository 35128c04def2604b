"""What was probably meant by an option or a command that does not exist."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

# What other tools call an option; of several that have the same name, those of the command count.
ALIASES = {
    "activation": "act nonlinearity",
    "batch-size": "b bs batch minibatch",
    "binarize": "binary threshold",
    "channels": "conv convs filters",
    "clip-norm": "clip clip-grad grad-clip gradient-clip max-grad-norm clip-grad-norm",
    "components": "n-components num-components mixtures pseudo-inputs pseudoinputs clusters",
    "count": "n k num samples n-samples num-samples",
    "data": "d dataset input train-data",
    "data-dir": "data-path data-root download-dir root",
    "data-points": "n n-data num-data limit subset",
    "device": "gpu cuda cpu accelerator",
    "draws": "k n s samples n-samples num-samples mc-samples",
    "encoder-hidden": "encoder encoder-layers encoder-widths encoder-units enc-hidden",
    "engine": "backend compile jit",
    "epochs": "e epoch iters iterations max-iter steps",
    "estimator": "method bound",
    "guide": "q family posterior variational-family approximation",
    "hidden": "layer layers units width widths h-dim mlp",
    "kl-warmup-epochs": "beta beta-warmup kl-anneal kl-annealing kl-warmup annealing-epochs",
    "latent-dim": "z l latent latents latent-size n-latent d-latent z-dim code-size bottleneck",
    "learning-rate": "lr rate eta step-size",
    "likelihood": "decoder distribution dist noise-model",
    "likelihood-scale": "sigma std sd scale noise-scale",
    "model": "m arch architecture net network",
    "objective": "loss criterion",
    "on": "train-on phase",
    "output": "o out outdir out-dir output-dir save save-dir dest run-dir",
    "overwrite": "f force",
    "particles": "k n-particles num-particles samples n-samples num-samples mc-samples",
    "patience": "early-stop early-stopping",
    "prior": "p-z prior-distribution",
    "quick": "fast smoke",
    "repeats": "r n-repeats reps",
    "resume": "checkpoint ckpt continue restart resume-from load",
    "seed": "s random-seed random-state rng",
    "split": "subset set part",
    "temperatures": "temps betas n-temps",
    "tensorboard": "tb logdir log-dir",
    "version": "v",
    "warmup-epochs": "warm-up lr-warmup",
}
COMMANDS = {
    "train": "fit run learn start",
    "evaluate": "eval test validate elbo",
    "compare": "versus vs against rank loo better",
    "diagnose": "check diagnostics verify",
    "repair": "mend fix improve",
    "report": "html page summary",
    "refit": "retrain finetune fine-tune train-guide refit-guide",
    "gradients": "gradient grads grad",
    "inspect": "describe look peek schema columns",
    "sample": "generate gen draw draws simulate",
    "encode": "embed latents codes infer transform posterior",
    "impute": "fill fillna missing complete mice",
    "score": "anomaly outliers loglik likelihood",
    "reconstruct": "recon reconstruction decode",
    "experiment": "experiments exp claim",
    "--version": "version",
    "--help": "help",
}


def nearest(wrong: str, known: Iterable[str], aliases: Mapping[str, str]) -> list[str]:
    """Which known names may have been meant, the likeliest first; at most three.

    Arguments:
        wrong: What was written.
        known: What there is.
        aliases: Other words for some of them, with spaces in between.

    Example:
        >>> nearest("lr", ["learning-rate", "latent-dim"], ALIASES)
        ['learning-rate']
        >>> nearest("n_epochs", ["epochs", "warmup-epochs"], ALIASES)
        ['epochs']
    """
    names, plain = list(known), _plain(wrong)
    tests = (
        lambda name: plain == _plain(name),
        lambda name: plain in map(_plain, aliases.get(name, "").split()),
        lambda name: len(plain) > 2 and _plain(name).startswith(plain),
    )
    for test in tests:
        if found := [name for name in names if test(name)]:
            return found[:3]
    by_word = {_plain(word): name for name in names for word in aliases.get(name, "").split()}
    by_word |= {_plain(name): name for name in names}
    close = get_close_matches(plain, by_word, n=3, cutoff=0.7)
    return list(dict.fromkeys(by_word[word] for word in close))


def _plain(name: str) -> str:
    """A name without case, hyphens, and what counts: ``--n_epochs`` is ``epochs``."""
    words = re.split(r"[\W_]+", name.lower().strip("-_"))
    if len(words) > 1 and words[0] in ("n", "num", "max"):
        words = words[1:]
    return "".join(words)


OF_ALL = ("-v", "--verbose", "-q", "--quiet")
"""Options of the main command that may be sought in others."""


def option_hint(wrong: str, command: str, options: Mapping[str, Iterable[str]]) -> str:
    """What to write instead of an option that a command does not have.

    Arguments:
        wrong: The option, as it was written.
        command: The command; empty before one was named.
        options: The options of each command.

    Returns:
        A remedy in words, or nothing.
    """

    def flags(name: str) -> list[str]:
        known = [option.removeprefix("--") for option in options[name]]
        return [f"--{found}" for found in nearest(wrong, known, ALIASES)]

    if command and wrong in OF_ALL:
        return f"it comes before the command: ppl-vae {wrong} {command}"
    if found := flags(command):
        return f"did you mean {' or '.join(found)}?"
    for name in options:
        if wrong in options[name] or (not command and (found := flags(name))):
            return f"it is an option of ppl-vae {name}: {found[0] if found else wrong}"
    return ""
