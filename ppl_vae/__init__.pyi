# The public names. At run time each is imported at first use: `ppl-vae --help` needs no torch.
from .compiled.engine import EagerWarning as EagerWarning
from .compiled.svi import CompiledSVI as CompiledSVI
from .data.batch import Batch as Batch
from .data.dataset import DataSet as DataSet
from .data.sources import load_data as load_data
from .data.validation import make_data as make_data
from .diagnostics.diagnosis import Diagnosis as Diagnosis
from .diagnostics.diagnosis import diagnose as diagnose
from .diagnostics.questions import Effort as Effort
from .diagnostics.report import write_report as write_report
from .errors import InputError as InputError
from .evidence.annealing import Annealing as Annealing
from .evidence.annealing import anneal as anneal
from .evidence.annealing import bidirectional as bidirectional
from .evidence.scores import Estimate as Estimate
from .evidence.scores import Ledger as Ledger
from .evidence.scores import Scores as Scores
from .evidence.scores import evaluate as evaluate
from .evidence.scores import score as score
from .inference.infer import infer as infer
from .objectives.gradients import compare_gradients as compare_gradients
from .objectives.pathwise import PathwiseELBO as PathwiseELBO
from .programs.conformance import check_program as check_program
from .programs.posterior import Posterior as Posterior
from .programs.predictions import decode as decode
from .programs.predictions import posterior_predictive as posterior_predictive
from .programs.predictions import prior_predictive as prior_predictive
from .programs.protocol import Program as Program
from .runs.config import Config as Config
from .runs.directory import Run as Run
from .runs.directory import load as load
from .training.extend import extend as extend
from .training.fit import fit as fit
from .training.refit import refit_guide as refit_guide
from .training.settings import Settings as Settings

__version__: str
