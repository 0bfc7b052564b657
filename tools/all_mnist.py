"""Diehl and Cook's network on all 60,000 training images of MNIST, as they have it: the studies of this kit keep 6,000
of them for validation. Nothing is chosen here. Stopped and called again with `--out`, it goes on."""
from fastcore.script import call_parse
from torch.utils.data import ConcatDataset
from snnkit.data import load
from snnkit.stdp import DiehlCook

@call_parse
def main(neurons:int=400,       # that compete
         inhibition:float=17.,  # what a spike adds to that of all others
         epochs:int=3,          # times that all images are shown
         first:int=42,          # seed
         seeds:int=3,           # how many, counted from the first
         out:str=None):         # folder for checkpoints; none if None
    "Learn MNIST without labels, and print the accuracy on its test images"
    mnist = load('MNIST')
    images = ConcatDataset([mnist.train, mnist.valid])
    for seed in range(first, first+seeds):
        net = DiehlCook(neurons, inhibition=inhibition, seed=seed)
        net.learn(images, epochs, out and f'{out}/{neurons}-{inhibition:g}-{seed}', quiet=True)
        right = net.evaluate(mnist.test).accuracy
        told = f'{neurons} neurons, inhibition {inhibition:g}, seed {seed}: {right:.2%}'
        print(told, flush=True)
