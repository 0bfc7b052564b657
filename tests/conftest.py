"Where the tests find the real data sets; without them they skip and say so."
import os
from pathlib import Path
import pytest

@pytest.fixture(scope='session')
def real_data():
    "The folder with MNIST and FashionMNIST in torchvision's layout: `SNNKIT_DATA`, else ../shared/data beside the repository."
    env = os.environ.get('SNNKIT_DATA')
    root = Path(env).expanduser() if env else Path(__file__).resolve().parents[2]/'shared/data'
    if not (root/'MNIST/raw/train-images-idx3-ubyte').is_file():
        pytest.skip(f'the real MNIST is not in {root}: let SNNKIT_DATA name a folder that has MNIST/raw/train-images-idx3-ubyte')
    return root
