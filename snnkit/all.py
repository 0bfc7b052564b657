"""What a notebook needs, in one line: `from snnkit.all import *`"""
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from .core import *
from .encoding import *
from .neuron import *
from .spikebp import *
from .layers import *
from .models import *
from .data import *
from .training import *
from .measures import *
from .plots import *
from .store import *
from .experiments import *
from .studies import *
