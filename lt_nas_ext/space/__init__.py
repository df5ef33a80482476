"""The search space: genotype, supernet, the network derived from it, and what it is compared with."""

from __future__ import annotations

from lt_nas_ext.space.auxiliary_skip import AuxiliarySkipCell
from lt_nas_ext.space.baselines import DARTS_V2, FAIR_DARTS_A, ResNet32, SmallConvNet
from lt_nas_ext.space.bbn_genotype import AnyGenotype, BbnGenotype, genotype_from_json, load_genotype
from lt_nas_ext.space.bbn_network import BbnNetwork
from lt_nas_ext.space.bbn_supernet import BbnSupernet, SupernetHead
from lt_nas_ext.space.control import random_genotype_of_size
from lt_nas_ext.space.cost import genotype_param_count, multiply_adds, param_count
from lt_nas_ext.space.derive import RULES, EmptyCellError, GateTieWarning, derive, random_genotype
from lt_nas_ext.space.fused_cell import FusedCell
from lt_nas_ext.space.genotype import CellGenotype, Edge, Genotype
from lt_nas_ext.space.network import Network
from lt_nas_ext.space.partial import PartialSupernet
from lt_nas_ext.space.per_edge import PerEdgeCell
from lt_nas_ext.space.runners_up import distinct, from_gates, runners_up
from lt_nas_ext.space.sub_network import sub_network
from lt_nas_ext.space.supernet import Supernet
from lt_nas_ext.space.two_heads import Branches, TwoHeads

__all__ = [
    "DARTS_V2",
    "FAIR_DARTS_A",
    "RULES",
    "AnyGenotype",
    "AuxiliarySkipCell",
    "BbnGenotype",
    "BbnNetwork",
    "BbnSupernet",
    "Branches",
    "CellGenotype",
    "Edge",
    "EmptyCellError",
    "FusedCell",
    "GateTieWarning",
    "Genotype",
    "Network",
    "PartialSupernet",
    "PerEdgeCell",
    "ResNet32",
    "SmallConvNet",
    "Supernet",
    "SupernetHead",
    "TwoHeads",
    "derive",
    "distinct",
    "from_gates",
    "genotype_from_json",
    "genotype_param_count",
    "load_genotype",
    "multiply_adds",
    "param_count",
    "random_genotype",
    "random_genotype_of_size",
    "runners_up",
    "sub_network",
]
