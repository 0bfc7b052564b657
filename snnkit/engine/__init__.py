"""The machine room: the layers of this kit, fast. `snnkit.layers.roads` leads here; no chapter before it imports it."""
from importlib import import_module

from ..layers import dense, has, mode, use

rooms = dict(to_train='trains', free='memory', computed_by='roads', peak_rate='roads', fused_lif='fused')

def __getattr__(name):
    "What the rooms export, loaded when it is asked for: numba takes a second, and Triton may not be there."
    if name in rooms: return getattr(import_module(f'.{rooms[name]}', __name__), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
