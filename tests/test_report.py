"""The report: one page that asks nothing of the network, seen by a browser where there is one."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch

import ppl_vae
from ppl_vae.diagnostics.diagnosis import Diagnosis
from ppl_vae.diagnostics.report import OlderWeightsWarning, render, write_report
from ppl_vae.diagnostics.verdicts import Verdict
from ppl_vae.models import VAE
from ppl_vae.plots.drawing import PictureWarning

QUICK = ppl_vae.Effort(data_points=120, draws=400, simulations=500, gap_points=40, nuts_points=2)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-dev-shm-usage", "--enable-logging=stderr"),
]


class Page(HTMLParser):
    """Tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, attrs))

    def all(self, tag):
        return [dict(attrs) for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def run_and_diagnosis(tmp_path_factory):
    data = ppl_vae.load_data("digits", binarize="dynamic")
    arguments = {"latent_dim": 3, "hidden": [16]}
    torch.manual_seed(0)
    vae = VAE(data.shape, **arguments)
    settings = ppl_vae.Settings(epochs=2)
    path = tmp_path_factory.mktemp("runs") / "digits"
    run = ppl_vae.Run.create(
        path, ppl_vae.Config.of("ppl_vae.models:VAE", arguments, data, settings)
    )
    ppl_vae.fit(vae, data, settings, run=run, progress=False)
    return run, ppl_vae.diagnose(vae, data, QUICK)


@pytest.fixture(scope="module")
def page(run_and_diagnosis):
    run, diagnosis = run_and_diagnosis
    return render(diagnosis, run)


def test_a_diagnosis_of_older_weights_says_so(run_and_diagnosis, tmp_path):
    run, diagnosis = run_and_diagnosis
    fitted = ppl_vae.Run.open(shutil.copytree(run.path, tmp_path / "run"))
    weights = run.load().state_dict()
    name = next(iter(weights))
    fitted.save_weights({**weights, name: weights[name] + 1})
    with pytest.warns(OlderWeightsWarning, match="older weights") as told:
        write_report(tmp_path / "page.html", diagnosis, fitted)
    assert len(told) == 1
    assert "older weights" in (tmp_path / "page.html").read_text()
    (fitted.path / "weights.safetensors").write_bytes(b"torn")
    with pytest.warns(OlderWeightsWarning, match="not known"):
        write_report(tmp_path / "page.html", diagnosis, fitted)


def test_the_verdicts_come_first_and_every_picture_is_inside(page, run_and_diagnosis):
    _, diagnosis = run_and_diagnosis
    places = [page.index(f'id="{key}"') for key in diagnosis.verdicts]
    assert places == sorted(places)
    assert places[-1] < page.index("<img")
    pictures = Page(page).all("img")
    assert len(pictures) >= 10
    assert all(p["src"].startswith("data:image/png;base64,") and p["alt"] for p in pictures)
    headings = re.findall("<h2>(.*?)</h2>", page)
    for words in ("The fit", "Reconstructions", "highest", "Pareto", "Ranks", "gap", "Latent map"):
        assert any(words in heading for heading in headings), words


def test_it_may_load_nothing_and_runs_no_script(page):
    parsed = Page(page)
    assert not parsed.all("script")
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "url(" not in page
    policy = [m for m in parsed.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy[0]["content"].startswith("default-src 'none'")
    assert any(m.get("name") == "viewport" for m in parsed.all("meta"))


def test_names_cannot_inject_markup(run_and_diagnosis):
    run, diagnosis = run_and_diagnosis
    evil = "<img src=http://example.com/x onerror=alert(1)>"
    verdict = Verdict(evil, "cannot say", evil, evil, remedy=evil)
    hostile = replace(
        diagnosis, verdicts={evil: verdict}, about={**diagnosis.about, "data": evil, evil: evil}
    )
    page = render(hostile, run)
    assert "<img src=http" not in page
    assert all(p["src"].startswith("data:") for p in Page(page).all("img"))


def test_a_diagnosis_of_nothing_still_has_a_page(run_and_diagnosis, tmp_path):
    run, _ = run_and_diagnosis
    from ppl_vae.storage.arviz_io import as_inference_data

    empty = Diagnosis(
        {"coverage": Verdict("?", "cannot say", "there was no datum")},
        as_inference_data({}, {}),
        {},
    )
    gone = ppl_vae.Run(tmp_path, run.config)  # without metrics
    page = render(empty, gone)
    assert "there was no datum" in page.lower()
    assert not Page(page).all("img")


def test_the_seed_is_that_of_the_diagnosis(run_and_diagnosis):
    run, diagnosis = run_and_diagnosis
    page = render(replace(diagnosis, about={**diagnosis.about, "seed": 77}), run)
    assert "<td>seed</td><td>77</td>" in page.split("The settings of the fit")[0]


def test_a_single_class_keeps_its_name(tmp_path):
    data = ppl_vae.make_data(torch.randn(1200, 5), ["cat"] * 1200)
    torch.manual_seed(0)
    vae = VAE(data.shape, latent_dim=2, hidden=(8,), likelihood="gaussian")
    from ppl_vae.diagnostics.diagnosis import read_diagnosis, write_diagnosis

    write_diagnosis(tmp_path, ppl_vae.diagnose(vae, data, QUICK))
    read = read_diagnosis(tmp_path)
    assert json.loads(read.inference_data.diagnostics.attrs["label_names"]) == ["cat"]
    assert len(Page(render(read)).all("img")) >= 6


def test_tables_are_reported_too(tmp_path):
    torch.manual_seed(0)
    data = ppl_vae.make_data(torch.randn(1200, 5))
    vae = VAE(data.shape, latent_dim=1, hidden=(8,), likelihood="gaussian")
    config = ppl_vae.Config.of("ppl_vae.models:VAE", {}, data)
    page = render(ppl_vae.diagnose(vae, data, QUICK), ppl_vae.Run(tmp_path, config))
    assert len(Page(page).all("img")) >= 6


@pytest.mark.parametrize("harm", ["attribute", "shape"])
def test_a_picture_that_fails_is_left_out_and_said(run_and_diagnosis, tmp_path, harm):
    run, diagnosis = run_and_diagnosis
    idata = diagnosis.inference_data.copy()
    if harm == "attribute":
        idata.diagnostics.attrs.pop("k_hat_threshold")
    else:
        idata.nuts = idata.nuts.isel(datum=slice(0, 0))
    heading = "Pareto k-hat of each data point" if harm == "attribute" else "The guide and NUTS"
    with pytest.warns(PictureWarning, match=f"^{heading!r} of the report was not drawn ") as told:
        write_report(tmp_path / "a.html", replace(diagnosis, inference_data=idata), run)
    assert len(told) == 1
    write_report(tmp_path / "b.html", diagnosis, run)
    one, other = (Page((tmp_path / f"{n}.html").read_text()).all("img") for n in "ab")
    assert len(one) == len(other) - 1


def test_names_are_no_mathematics(run_and_diagnosis):
    run, diagnosis = run_and_diagnosis
    idata = diagnosis.inference_data.copy()
    odd = {
        "calibration": "quantity",
        "latents": "unit",
        "nuts": "unit",
        "posterior_sbc": "quantity",
    }
    for group, name in odd.items():
        found = idata[group]
        names = [rf"$\frac{{{i}$" for i in range(found.sizes[name])]
        setattr(idata, group, found.assign_coords({name: names}))
    whole, renamed = (
        Page(render(replace(diagnosis, inference_data=found), run)).all("img")
        for found in (diagnosis.inference_data, idata)
    )
    assert len(renamed) == len(whole)


def test_a_diagnosis_that_lacks_something_is_refused_in_one_line(run_and_diagnosis, tmp_path):
    run, diagnosis = run_and_diagnosis
    idata = diagnosis.inference_data.copy()
    idata.calibration = idata.calibration.drop_vars("rank")
    with pytest.raises(ppl_vae.InputError) as error:
        write_report(tmp_path / "report.html", replace(diagnosis, inference_data=idata), run)
    assert error.value.remedy == "diagnose-again"
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said(run_and_diagnosis, tmp_path):
    run, diagnosis = run_and_diagnosis
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ppl_vae.InputError, match="report.html cannot be written"):
        write_report(tmp_path / "report.html", diagnosis, run)
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>')


@needs_browser
def test_a_browser_shows_it_without_a_request_or_an_error(page, tmp_path):
    _, requests, complaints = browse(page, tmp_path)
    assert requests == []
    assert complaints == []
    # A copy with a script of the test's own, which the page itself would not allow.
    probe = (
        "<script>onload = () => { document.title = JSON.stringify({"
        "loaded: [...document.images].map(i => i.complete && i.naturalWidth > 0),"
        "wide: document.documentElement.scrollWidth - innerWidth}) }</script></body>"
    )
    copy = POLICY.sub("", page).replace("</body>", probe)
    shown, _, _ = browse(copy, tmp_path, "--window-size=500,900")
    title = re.search("<title>(.*?)</title>", shown).group(1)
    found = json.loads(title.replace("&quot;", '"'))
    assert len(found["loaded"]) == len(Page(page).all("img"))
    assert all(found["loaded"])
    assert found["wide"] <= 0  # nothing to scroll sideways on a phone


@needs_browser
def test_the_browser_would_have_noticed(page, tmp_path):
    harm = '<img src="http://127.0.0.1:9/x.png"><script>console.error("harm")</script></body>'
    _, requests, complaints = browse(POLICY.sub("", page).replace("</body>", harm), tmp_path)
    assert requests == ["http://127.0.0.1:9/x.png"]
    assert any("harm" in line for line in complaints)
    _, requests, complaints = browse(page.replace("</body>", harm), tmp_path)
    assert requests == []  # the page's own policy forbids it, and says so
    assert any("Content Security Policy" in line for line in complaints)


def browse(text, folder, *options):
    """Open a page in headless Chromium.

    Returns:
        What it became, the URLs that it asked for, and what it said to the console. What the
        browser asks for on its own behalf has no origin.
    """
    file, log = folder / "page.html", folder / "net.json"
    file.write_text(text, encoding="utf-8")
    own = [f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"]
    done = subprocess.run(
        [
            CHROMIUM,
            *QUIET,
            *own,
            *options,
            "--virtual-time-budget=5000",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    events = [e.get("params", {}) for e in json.loads(log.read_text())["events"]]
    requests = [
        e["url"]
        for e in events
        if "url" in e and e.get("initiator", "not an origin") != "not an origin"
    ]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, requests, complaints
