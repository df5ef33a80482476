"""The search loop and the retraining loop: steps, checkpoints, progress, a clean stop. It knows no method by name."""

from __future__ import annotations

from lt_nas_ext.engine.adapt import AdaptResult, Ranked, run_adapt
from lt_nas_ext.engine.architecture import BASELINES
from lt_nas_ext.engine.classifier import Classifier, load_classifier
from lt_nas_ext.engine.consensus import run_consensus
from lt_nas_ext.engine.evaluate import evaluate
from lt_nas_ext.engine.export import export
from lt_nas_ext.engine.guard import NonFiniteError, NonFiniteWarning
from lt_nas_ext.engine.health import CollapseWarning
from lt_nas_ext.engine.predict import Prediction, UnreadableImages, predict
from lt_nas_ext.engine.processes import ProcessEnded, ProcessesDiffer
from lt_nas_ext.engine.progress import BarProgress, JsonProgress, LogProgress, Progress, Several
from lt_nas_ext.engine.recalibrate import recalibrate
from lt_nas_ext.engine.retrain import RetrainResult, run_retrain
from lt_nas_ext.engine.retrain_presets import RETRAIN_PRESETS, retrain_preset
from lt_nas_ext.engine.retrain_settings import RetrainSettings
from lt_nas_ext.engine.run_dir import read_config
from lt_nas_ext.engine.search import SearchResult, run_search
from lt_nas_ext.engine.stop import Interrupted
from lt_nas_ext.engine.tensorboard import TensorBoard

__all__ = [
    "BASELINES",
    "RETRAIN_PRESETS",
    "AdaptResult",
    "BarProgress",
    "Classifier",
    "CollapseWarning",
    "Interrupted",
    "JsonProgress",
    "LogProgress",
    "NonFiniteError",
    "NonFiniteWarning",
    "Prediction",
    "ProcessEnded",
    "ProcessesDiffer",
    "Progress",
    "Ranked",
    "RetrainResult",
    "RetrainSettings",
    "SearchResult",
    "Several",
    "TensorBoard",
    "UnreadableImages",
    "evaluate",
    "export",
    "load_classifier",
    "predict",
    "read_config",
    "recalibrate",
    "retrain_preset",
    "run_adapt",
    "run_consensus",
    "run_retrain",
    "run_search",
]
