"""What a user writes, for `test_types.py`: mypy reads it, and nobody runs it. A line with `type: ignore` has a mistake
that mypy must find: if it does not, mypy says that the comment is not needed, and the test fails."""
from pathlib import Path
import torch
from torch import Tensor, nn
from snnkit.data import Data, batches, load
from snnkit.encoding import poisson
from snnkit.experiments import Config, Store, run_all, table
from snnkit.layers import LIF, AvgPool2d, Conv2d, Flatten, Integrator, Linear, Poisson
from snnkit.measures import firing_rates
from snnkit.models import build, calibrate, lenet, twin
from snnkit.plots import plot_rasters
from snnkit.spikebp import lif
from snnkit.training import evaluate, fit, load_weights, save_weights, set_seed

# Data, and a network of the kit
data: Data = load('digits', valid=.1, seed=1)
data = load(Path('pictures'), size=28)
load('digits', seed='one')            # type: ignore[arg-type]
load('digits', shuffle=True)          # type: ignore[call-arg]
snn: nn.Sequential = lenet(num_steps=10, norm='batch', dropout=.2)
ann: nn.Module = twin(snn)
lenet(num_steps='ten')                # type: ignore[arg-type]
lenet(norm=3)                         # type: ignore[arg-type]
build('vgg9', num_classes=10)

# A network of one's own
mine = nn.Sequential(
    Poisson(10), Conv2d(1, 8, 5), LIF(leak=.95, threshold=1.), AvgPool2d(2),
    Flatten(), Linear(1152, 10), Integrator())
LIF(leek=.95)                         # type: ignore[call-arg]
LIF(leak='slow')                      # type: ignore[arg-type]
images, labels = next(iter(batches(data.train, 100)))
calibrate(mine, images)

# Training, and what is measured
set_seed(1)
run = fit(mine, data, epochs=2, lr=1e-3, out=Path('out'), quiet=True)
fit(mine, data, epoch=2)              # type: ignore[call-arg]
run.histories                         # type: ignore[attr-defined]
accuracy: float = evaluate(mine, data.test).accuracy
evaluate(mine, data.test).acuracy     # type: ignore[attr-defined]
save_weights(mine, Path('weights.safetensors'))
load_weights(mine, Path('weights.safetensors'))
firing_rates(mine, data.test)
plot_rasters(mine, torch.rand(1, 28, 28))

# Functions on spike trains
train: Tensor = poisson(torch.rand(2, 1, 28, 28), 10)
spikes: Tensor = lif(train, leak=.9)
name: str = lif(train)                # type: ignore[assignment]

# Experiments
found = run_all([Config(data='digits', epochs=1), Config(data='digits', ann=True)], jobs=2)
table(found)
Config(epoch=1)                       # type: ignore[call-arg]
Store(Path('results')).read()
