"""A training in a process of its own, for test_training.py to kill: `small_training.py OUT [EPOCHS]`.
It resumes what it finds. In plain torch: what is killed is then the training, not the compilation of kernels,
and no choice of the engine differs from life to life."""
import sys, torch
from snnkit.data import Data, Images
from snnkit.core import seeded
from snnkit.layers import use
from snnkit.models import lenet
from snnkit.training import fit, set_seed

torch.set_num_threads(1)

def images(n, *seed):
    "Noise with a bright bar, whose row is its class: quick to make and to learn"
    y = torch.randint(3, (n,), generator=seeded('y', *seed))
    x = torch.randint(40, (n, 1, 12, 12), generator=seeded('x', *seed))
    x[torch.arange(n), 0, 2+3*y] += 200
    return Images(x.to(torch.uint8), y)

def data():
    classes = ['high', 'middle', 'low']
    return Data('bars', classes, images(240, 0), images(60, 1), images(60, 2), dict(test=0, valid=0))

def model(): return lenet(num_classes=3, size=12, num_steps=10, kappa=4.)

if __name__=='__main__':
    set_seed(7)
    net = model()
    print('ready', flush=True)
    epochs = int(sys.argv[2]) if len(sys.argv)>2 else 6
    with use('torch'): run = fit(net, data(), epochs=epochs, seed=7, out=sys.argv[1], resume=True, save_every=2)
    print('stopped' if run.stopped else 'done', flush=True)
