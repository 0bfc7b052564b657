"""Trains the spiking LeNet that comes with the package, and its twin, by two runs of the results store, and writes
their weights to snnkit/weights, as float16. Prints the digests that 05_models has to name. The runs: embedded digits,
shifted and turned at random."""
import hashlib
from dataclasses import replace
from tempfile import TemporaryDirectory
from fastcore.script import call_parse
from snnkit.experiments import Config,Store,run
from snnkit.training import read_tensors,write_tensors
from common import root

@call_parse
def main(epochs:int=30,    # of training
         num_steps:int=20): # time steps T
    base = Config(data='digits', augment='shift', epochs=epochs, num_steps=num_steps, calibrate=True,
                  schedule='warm_cosine')
    for ann,kind in ((False, 'snn'), (True, 'ann')):
        with TemporaryDirectory() as tmp:
            record = run(replace(base, ann=ann), Store(root/'results'), 'pretrained-digits', weights=f'{tmp}/weights')
            tensors,meta = read_tensors(f'{tmp}/weights')
        file = root/f'snnkit/weights/lenet-digits-{kind}.safetensors'
        file.parent.mkdir(exist_ok=True)
        write_tensors(file, {k: v.half() for k,v in tensors.items()}, meta)
        accuracy = f'test {record["test_accuracy"]:.2%}, valid {record["valid_accuracy"]:.2%}'
        written = file.read_bytes()
        print(f'{kind}: {accuracy}, {len(written):,} bytes, {hashlib.sha256(written).hexdigest()}')
