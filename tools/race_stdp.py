"""Times the learning of Diehl and Cook's network in this kit and in BindsNET (`pip install bindsnet==0.3.4`), on the
same images and one core, taking turns. BindsNET's network is that of its own example: 250 steps of a millisecond. This
kit takes 700 of half a millisecond, so BindsNET's is also timed with these."""
import statistics,time
import torch
from bindsnet.encoding import poisson
from bindsnet.models import DiehlAndCook2015
from fastcore.script import call_parse
from snnkit.data import load
from snnkit.stdp import DiehlCook

class BindsNet:
    "Its network of so many neurons, as its example `eth_mnist.py` has it"
    def __init__(self, neurons, steps, dt):
        self.steps,self.dt = steps,dt
        shape = dict(n_inpt=784, inpt_shape=(1, 28, 28))
        self.net = DiehlAndCook2015(n_neurons=neurons, exc=22.5, inh=120, dt=dt, norm=78.4, theta_plus=.05, **shape)

    def learn(self, images):
        for x in images:
            spikes = poisson(128*x, time=int(self.steps*self.dt), dt=self.dt).view(self.steps, 1, 1, 28, 28)
            self.net.run(inputs=dict(X=spikes), time=int(self.steps*self.dt))
            self.net.reset_state_variables()

class Kit:
    "This kit's network of so many neurons"
    def __init__(self, neurons): self.net = DiehlCook(neurons)
    def learn(self, images): self.net.run(images.flatten(1), self.net.seeds_of('race', range(len(images))), True)

def seconds(network, images):
    "For an image"
    start = time.perf_counter()
    network.learn(images)
    return (time.perf_counter()-start)/len(images)

@call_parse
def main(neurons:int=400, # that compete
         turns:int=7,     # of each network
         images:int=10):  # a turn of BindsNET; this kit's has ten times as many
    "Compare the time of an image with BindsNET"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    train = load('digits').train
    x = torch.stack([train[i][0] for i in range(10*images)])
    rivals = {'BindsNET, 250 steps': BindsNet(neurons, 250, 1.), 'BindsNET, 700 steps': BindsNet(neurons, 700, .5)}
    rivals['snnkit, 700 steps'] = Kit(neurons)
    for o in rivals.values(): o.learn(x[:2]) # once without a clock
    took = {k: [] for k in rivals}
    for _ in range(turns):
        for k,o in rivals.items(): took[k].append(seconds(o, x if isinstance(o, Kit) else x[:images]))
    median = {k: statistics.median(v) for k,v in took.items()}
    ours = median['snnkit, 700 steps']
    for k,v in median.items(): print(f'{k}: {1000*v:.2f} ms an image, {v/ours:.0f} times this kit')
