"""The networks are Lee et al.'s, and Tan and Le's, by shape, size, names and draws; every one trains with every norm;
twins match; calibrated layers fire as asked."""
import copy,inspect,math,sys
import pytest, torch
from hypothesis import given, settings, strategies as st
from torch import nn
from torchvision.models import efficientnet_b0, efficientnet_b1, efficientnet_b4
from torchvision.models.efficientnet import MBConv
from snnkit.core import seeded
from snnkit.encoding import Direct, Encoder, poisson
from snnkit.layers import dense, use
from snnkit.layers import (IF, LIF, AvgPool2d, BatchNorm2d, Conv2d, Dropout, Flatten, Integrator, Linear, MaxPool2d,
                           Neuron, PLIF, PlainConv2d, Poisson, Residual, Subsample, norms, watch)
from snnkit.models import (MeanOverTime, build, calibrate, check_model, efficientnet, find_factor, imported, lee_init,
                           lenet, load_state, makers, models, neuron_rates, plain, resnet, resnet9, resnet11,
                           takes_trains, twin, vgg, vgg9)
from snnkit.spikebp import fire

few = settings(max_examples=30, deadline=None, derandomize=True)
kinds = [None, *norms]

def images(B, C=3, size=32, seed=0): return torch.rand(B, C, size, size, generator=seeded(seed))*2-1

def narrow(name, width):
    "What makes a net of the registry small"
    return {} if name=='lenet' else dict(width=.01, depth=.3) if name=='efficientnet' else dict(width=width)

def tiny(name, **kw):
    "A net of the registry, small, with images for it"
    torch.manual_seed(0)
    size = narrow(name, 4) | dict(size=dict(lenet=12, efficientnet=32).get(name, 16))
    if name=='vgg': size['depth'] = 5
    if name=='efficientnet': size['num_steps'] = 25 # the last of its many layers must have something to hear
    x = images(3, 1 if name=='lenet' else 3, size['size'])
    return build(name, **dict(num_steps=10, norm=None) | size | kw), x

def rate_for(name):
    "A rate all layers can be brought to: a depthwise channel hears only itself, so behind a rare one it is rare"
    return .05 if name=='efficientnet' else .15

def count(net): return sum(p.numel() for p in net.parameters())

def children(net): return [n for n,_ in net.named_children()]

def weight_names(net): return [n for n,_ in net.named_parameters()]

def has(net, kind): return any(isinstance(m, kind) for m in net.modules())

def macs(net, C, size):
    "Multiply-accumulates an image and step, from the shapes that pass"
    n = {}
    def hear(name, m, x, y): n[name] = math.prod(y.shape[2:])*m.weight[0].numel()
    with torch.no_grad(), watch(net, hear, (Conv2d, Linear)): net(torch.zeros(1, C, size, size))
    return sum(n.values())

# Shapes and sizes

@pytest.mark.parametrize('depth,want', [
    (5, (1, 1, 1)),
    (6, (1, 1, 2)),
    (7, (1, 2, 2)),
    (8, (2, 2, 2)),
    (9, (2, 2, 3)),
    (10, (2, 3, 3)),
    (11, (3, 3, 3)),
    (16, (4, 5, 5))])
def test_depth_is_shared_out(depth, want):
    convs = [m.out_channels for m in vgg(depth, 2) if isinstance(m, Conv2d)]
    assert tuple(convs.count(o) for o in (2, 4, 8))==want and convs==sorted(convs) and len(convs)==depth-2

@few
@given(st.integers(5, 40))
def test_depth_counts_layers_with_weights(depth):
    net = vgg(depth, 1)
    assert sum(isinstance(m, (Conv2d, Linear)) for m in net)==depth
    assert sum(isinstance(m, AvgPool2d) for m in net)==3 and net.fc1.out_features==16

@pytest.mark.parametrize('f,C,size,params,work', [
    (lenet, 1, 28, .5175, 5.784),
    (vgg9, 3, 32, 5.93888, 194.7),
    (resnet11, 3, 32, 17.9, 607.9)], ids=lambda o: getattr(o, '__name__', None))
def test_sizes_of_lees_nets(f, C, size, params, work):
    net = f(num_steps=1, norm=None)
    assert count(net)/1e6==pytest.approx(params, rel=.01) and macs(net, C, size)/1e6==pytest.approx(work, rel=.01)

def test_resnet11_by_hand():
    "Parameters from the table of layers: convolutions, their shortcuts, two linear layers"
    block = lambda c,o,short: 9*c*o+9*o*o+c*o*short
    blocks = block(64, 128, 1) + block(128, 256, 1) + block(256, 512, 1) + block(512, 512, 0)
    assert count(resnet11(norm=None))==27*64 + blocks + 512*16*1024 + 1024*10
    net = resnet11(width=2, norm=None)
    strides = [m.body[0].stride+m.body[-1].stride for m in (net.block1, net.block2, net.block3, net.block4)]
    assert strides==[(1, 1, 1, 1), (1, 1, 2, 2), (1, 1, 1, 1), (1, 1, 2, 2)]
    shorts = net.block1.shortcut,net.block2.shortcut,net.block3.shortcut
    assert [(m.kernel_size, m.stride) for m in shorts]==[((1, 1), (1, 1)), ((1, 1), (2, 2)), ((1, 1), (1, 1))]
    assert isinstance(net.block4.shortcut, Subsample)
    assert isinstance(resnet(((1, 1),), width=2).block1.shortcut, nn.Identity)

@pytest.mark.parametrize('size', [28, 32, 9, 17])
@pytest.mark.parametrize('name', models)
def test_any_image_size(name, size):
    net = build(name, size=size, in_channels=2, num_classes=7, num_steps=2, **narrow(name, 2))
    assert net(images(2, 2, size)).shape==(2, 7) and twin(net)(images(2, 2, size)).shape==(2, 7)

@pytest.mark.parametrize('width,depth,theirs', [
    (1., 1., efficientnet_b0),
    (1., 1.1, efficientnet_b1),
    (1.4, 1.8, efficientnet_b4)])
def test_efficientnet_is_the_original_without_its_gates(width, depth, theirs):
    "All convolutions of torchvision's, and all shortcuts"
    def convs(net):
        found = [m for n,m in net.named_modules() if isinstance(m, nn.Conv2d) and '.fc' not in n]
        return [(*m.weight.shape, *m.stride, *m.padding, m.groups) for m in found]
    net,other = efficientnet(width, depth, size=224),theirs()
    assert convs(net)==convs(other)
    shortcuts = [isinstance(m, Residual) for n,m in net.named_children() if 'block' in n]
    assert shortcuts==[m.use_res_connect for m in other.modules() if isinstance(m, MBConv)]
    assert net.pool1.kernel_size==7

# Names and draws

def test_names_of_plain_nets():
    assert children(lenet())=='encoder conv1 lif1 pool1 if1 conv2 lif2 pool2 if2 flatten fc1 lif3 fc2 readout'.split()
    stage1,stage2 = 'conv1 lif1 conv2 lif2 pool1 if1','conv3 lif3 conv4 lif4 pool2 if2'
    stage3 = 'conv5 lif5 conv6 lif6 conv7 lif7 pool3 if3'
    assert children(vgg9(norm=None))==f'encoder {stage1} {stage2} {stage3} flatten fc1 lif8 fc2 readout'.split()
    stage1,stage2 = 'conv1 norm1 lif1 drop1 pool1 if1','conv2 norm2 lif2 drop2 pool2 if2'
    full = children(lenet(norm='shared', dropout=.1))
    assert full==f'encoder {stage1} {stage2} flatten fc1 norm3 lif3 drop3 fc2 readout'.split()
    assert [*lenet(norm='shared', norm_head=False)._modules]==[o for o in lenet(norm='shared')._modules if o!='norm3']

def test_names_of_efficientnet():
    net = efficientnet(.01, .3, norm='shared', dropout=.1, narrow_neurons=True)
    blocks = ' '.join(f'block{i} drop{3*i}' for i in range(1, 9))
    first,last = 'conv1 norm1 lif1 drop1','conv25 norm25 lif25 drop25'
    assert children(net)==f'encoder {first} {blocks} {last} pool1 if1 flatten fc readout'.split()
    assert children(net.block1.body)=='conv2 norm2 lif2 drop2 conv3 norm3'.split()
    assert children(net.block2.body)=='conv4 norm4 lif4 drop4 conv5 norm5 lif5 drop5 conv6 norm6'.split()
    plain = efficientnet(.01, .3, norm='shared', dropout=.1)
    assert [o for o in children(plain) if 'drop' in o]==['drop1', 'drop25']
    assert weight_names(plain)==weight_names(net)

def test_between_efficientnets_blocks_go_currents_or_spikes():
    for spiking in (False, True):
        net,x = tiny('efficientnet', norm='shared', narrow_neurons=spiking)
        out = {}
        with watch(net, lambda n,m,x,y: out.update({n: dense(y)}), (Residual, nn.Sequential)): net(x)
        for n in ('block1', 'block2', 'block5'): assert (((out[n]==0) | (out[n]==1)).all().item()) is spiking

def test_where_shortcuts_join():
    "Membranes and currents leave spikes to every synapse; added spikes are twos where both ways fire, then threes"
    x = images(4, 3, 12)
    for join,values in dict(membrane={0, 1}, spikes={0, 1, 2, 3}, currents=None).items():
        torch.manual_seed(0)
        blocks = (2, 1),(2, 1),(4, 2)
        net = resnet(blocks, width=4, num_steps=20, size=12, join=join, norm=None, reset='subtract')
        calibrate(net, x, .1)
        out,into = {},{}
        with watch(net, lambda n,m,x,y: out.update({n: dense(y)}), Residual): net(x)
        with watch(net, lambda n,m,x,y: into.update({n: dense(x)}), Conv2d): net(x)
        met = set().union(*(o.unique().tolist() for o in out.values()))
        assert met==values if values else len(met)>10
        inside = [o for n,o in into.items() if n!='conv1']
        assert all(o.unique().numel()==2 for o in inside) is (join!='spikes')

def test_shortcuts_by_hand():
    "Behind the neurons, spikes to spikes, and the current of every block before"
    x = images(2, 3, 12)
    for join in ('spikes', 'currents'):
        torch.manual_seed(0)
        net = resnet(((1, 1), (2, 2)), width=3, num_steps=5, size=12, join=join)
        one,two = net.block1,net.block2
        s = poisson(torch.rand(2, 3, 6, 6, generator=seeded(1)), 5, seeded(2))
        b = one.body
        if join=='spikes': body = b.lif3(b.norm3(b.conv3(b.lif2(b.norm2(b.conv2(s))))))
        else: body = b.norm3(b.conv3(b.lif2(b.norm2(b.conv2(b.lif1(s))))))
        assert torch.allclose(dense(one(s)), dense(body)+s)
        if join=='spikes':
            conv,norm,neuron = two.shortcut
            assert torch.allclose(dense(two(s)), dense(two.body(s))+dense(neuron(norm(conv(s)))))
        else:
            fired = two.lif3(s*2)
            assert torch.allclose(dense(two(s*2)), dense(two.ways.body(fired))+dense(two.ways.shortcut(fired)))

@pytest.mark.parametrize('join', ['spikes', 'currents'])
def test_twins_of_residual_forms(join):
    torch.manual_seed(0)
    net = resnet11(width=2, size=12, num_steps=3, join=join)
    ann,x = twin(net),images(2, 3, 12)
    assert ann(x).shape==(2, 10) and not any(isinstance(m, Neuron) for m in ann.modules())
    assert [n for n,_ in net.named_parameters()]==[n for n,_ in ann.named_parameters()]

def test_options_of_a_network_that_hands_on_currents():
    "Its pool is of currents, of the kind that is asked for; all hidden neurons have dropout behind them"
    net = resnet(((1, 1), (2, 2)), width=2, size=12, join='currents', max_pools=True, dropout=.2)
    blocks = 'conv1 norm1 pool1 block1 block2 lif5 drop5'
    assert children(net)==f'encoder {blocks} flatten fc1 norm6 lif6 drop6 fc2 readout'.split()
    drops,lifs = (sum(isinstance(m, o) for m in net.modules()) for o in (Dropout, LIF))
    assert isinstance(net.pool1, MaxPool2d) and drops==lifs==6

def test_a_current_that_was_fitted_may_join():
    "Along an identity the currents of all blocks before come to each block; each layer's own weights are scaled"
    torch.manual_seed(0)
    net = resnet(((1, 1), (1, 1), (1, 1)), width=4, num_steps=10, size=12, join='currents', norm=None)
    t = calibrate(net, images(4, 3, 12), .1)
    assert t.after.between(.09, .11).all() and len(t)==8

def test_names_of_residual_nets():
    net = resnet9(width=2, norm='shared', dropout=.25)
    blocks = 'conv1 norm1 lif1 drop1 pool1 if1 block1 drop3 block2 drop5 block3 drop7'
    assert children(net)==f'encoder {blocks} flatten fc1 norm8 lif8 drop8 fc2 readout'.split()
    assert children(net.block2.body)=='conv4 norm4 lif4 drop4 conv5 norm5'.split()
    assert {m.p for m in net.modules() if isinstance(m, Dropout)}=={.25}
    shortcuts = [o for o in weight_names(resnet11(width=2)) if 'shortcut' in o]
    assert shortcuts==[f'block{i}.shortcut.weight' for i in (1, 2, 3)]

def test_vgg9_is_lees_net_to_the_bit():
    "Layer by layer, drawn in the order of the layers"
    torch.manual_seed(5)
    net = vgg9(norm=None)
    after = torch.rand(3)
    torch.manual_seed(5)
    shapes = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 256)]
    convs = [Conv2d(c, o, 3, padding=1, bias=False) for c,o in shapes]
    hand = lee_init(nn.Sequential(*convs, Linear(4096, 1024, bias=False), Linear(1024, 10, bias=False)))
    assert all(p.equal(q) for p,q in zip(net.parameters(), hand.parameters(), strict=True))
    assert torch.rand(3).equal(after)

@pytest.mark.parametrize('name', models)
def test_norms_and_dropout_draw_nothing(name):
    a,b = tiny(name, norm=None, kappa=1.)[0],tiny(name, norm='scaled', dropout=.2, kappa=1., readout=1.)[0]
    weights = dict(b.named_parameters())
    for n,p in a.named_parameters(): assert p.equal(weights[n])

@pytest.mark.parametrize('name', [o for o in models if o!='lenet'])
def test_weights_are_drawn_with_the_nets_kappa(name):
    "Lee et al.'s without a norm, torch's own behind one, and what is asked for"
    shape,lees = dict(width=1 if name=='efficientnet' else 8),2 if 'vgg' in name else 1
    for kw,kappa in (dict(norm=None), lees),({}, 1/3),(dict(kappa=3.), 3):
        torch.manual_seed(0)
        for m in build(name, readout=1., **shape, **kw).modules():
            if isinstance(m, (Conv2d, Linear)) and m.weight.numel()>4000:
                assert m.weight.std().item()==pytest.approx((kappa/m.weight[0].numel())**.5, rel=.05)

@pytest.mark.parametrize('name', models)
def test_first_scores_may_be_small(name):
    "Of the network and of its twin: the last layer alone is smaller"
    kind = dict(width=.1, depth=.3) if name=='efficientnet' else {} if name=='lenet' else dict(width=2)
    torch.manual_seed(1)
    net = build(name, readout=1., **kind)
    torch.manual_seed(1)
    small = build(name, readout=.1, **kind)
    for other,twins in ((small, False), (twin(net, readout=.1), True)):
        weights = [*(twin(net) if twins else net).parameters()]
        others = [*other.parameters()]
        assert all(p.equal(q) for p,q in zip(weights[:-1], others)) and others[-1].equal(.1*weights[-1])
    with pytest.raises(ValueError, match='`readout` is 0'): twin(net, readout=0)
    with pytest.raises(ValueError, match='`readout` is -1'): build(name, readout=-1, **kind)

def test_options_arrive():
    net = resnet9(width=2, leak=.9, threshold=.7, refractory=1, grad='atan', norm='threshold')
    lifs = [m for m in net.modules() if type(m) is LIF]
    assert len(lifs)==8 and {(m.leak, m.threshold, m.refractory, m.grad) for m in lifs}=={(.9, .7, 1, 'atan')}
    assert net.if1.grad=='atan' and net.readout.leak==.9
    assert {m.threshold for m in net.modules() if isinstance(m, norms['threshold'])}=={.7}
    assert vgg9(width=2, max_rate=.5).encoder.max_rate==.5
    assert type(vgg9(width=2, encoder=Direct(3)).encoder) is Direct

def test_a_norm_per_step_takes_the_encoders_steps():
    for f in (vgg, resnet9):
        net = f(width=2, encoder=Direct(3), norm='step', size=8)
        assert net(images(2, 3, 8)).shape==(2, 10)

def test_neurons_of_another_class_and_max_pools():
    "In every family; what is between the layers is spikes, and the twin is made"
    for name in models:
        net,x = tiny(name, cell='snnkit.layers:PLIF', grad='atan', max_pools=True, norm='shared', leak=.8)
        hidden = [m for m in net.modules() if isinstance(m, PLIF)]
        assert hidden and all(m.leak.item()==pytest.approx(.8) for m in hidden) and net.readout.leak==.8
        assert not any(isinstance(m, LIF) and not isinstance(m, IF) for m in net.modules())
        assert has(net, MaxPool2d)==has(tiny(name)[0], AvgPool2d)
        net(x).square().sum().backward()
        assert all(m.w.grad is not None for m in hidden) and any(m.w.grad.abs()>0 for m in hidden)
        ann = twin(net)
        assert ann(x).shape==(3, 10) and not any(isinstance(m, Neuron) for m in ann.modules())

def test_behind_a_max_pool_nothing_has_to_fire():
    net = tiny('vgg', max_pools=True)[0]
    assert not any(isinstance(m, IF) for m in net.modules()) and sum(isinstance(m, MaxPool2d) for m in net)==3

no_neurons = ['PLIF', 'nowhere:PLIF', 'snnkit.layers:', 'snnkit.layers:fold', 3, None, Encoder, LIF()]

@pytest.mark.parametrize('cell', no_neurons, ids=str)
def test_what_is_no_class_of_neurons(cell):
    with pytest.raises(ValueError, match='`cell` is .*, but '): lenet(cell=cell)

def test_signatures_name_every_option():
    for f,g in ((vgg9, vgg), (resnet9, resnet), (resnet11, resnet)):
        own,all_ = inspect.signature(f).parameters,inspect.signature(g).parameters
        assert set(all_)-set(own) <= {'depth', 'blocks', 'neuron'} and all(own[n].default==all_[n].default for n in own)

# Training

@pytest.mark.parametrize('norm,dropout', [(None, 0), (None, .3), *((o, .3) for o in norms)])
@pytest.mark.parametrize('name', models)
def test_a_training_step_changes_every_weight(name, norm, dropout):
    net,x = tiny(name, norm=norm, dropout=dropout)
    calibrate(net, x, rate_for(name))
    before = copy.deepcopy(net)
    loss = (net(x)-torch.eye(10)[[0, 1, 2]]).square().sum()/2
    loss.backward()
    torch.optim.SGD(net.parameters(), .1).step()
    for (n,p),q in zip(net.named_parameters(), before.parameters()): assert p.isfinite().all() and not p.equal(q), n
    assert net.eval()(x).isfinite().all()

# Twins

@pytest.mark.parametrize('norm', kinds)
@pytest.mark.parametrize('name', models)
def test_twin_has_the_same_weights(name, norm):
    net,x = tiny(name, norm=norm, dropout=.2)
    ann = twin(net)
    assert ann(x).shape==(3, 10) and not has(ann, LIF)
    ours = [m for m in ann.modules() if type(m).__module__=='snnkit.layers']
    assert all(isinstance(m, (PlainConv2d, Residual, Subsample)) for m in ours)
    per_step = norm in ('step', 'scaled')                 # those have parameters for every step
    def weights(o): return {n: p for n,p in o.named_parameters() if not (per_step and 'norm' in n)}
    a,b = weights(net),weights(ann)
    assert a.keys()==b.keys() and all(a[n].equal(b[n]) and a[n] is not b[n] for n in a)
    if not per_step: assert count(net)==count(ann)
    kind = [type(m).__name__ for m in ann.modules()]
    assert kind.count('ReLU')==sum(type(m) is LIF for m in net.modules())
    assert kind.count('BatchNorm2d')==sum(isinstance(m, tuple(norms.values())) for m in net.modules())

# Calibration

states = [(o, True) for o in kinds] + [(o, False) for o in (None, 'threshold', 'step')]

@pytest.mark.parametrize('norm,training', states)
@pytest.mark.parametrize('name', models)
def test_calibrated_layers_fire_as_asked(name, norm, training):
    net,x = tiny(name, norm=norm, dropout=.2)
    net.train(training)
    rest = {n: b.clone() for n,b in net.named_buffers()}
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    rate,mode = rate_for(name),'auto'
    if name=='efficientnet': mode = 'torch' # in a chain that long one rounded spike changes most of the last layers'
    with use(mode): t,again = calibrate(net, x, rate),neuron_rates(net, x)
    assert torch.rand(2).equal(want) and net.training is training
    assert all(b.equal(rest[n]) for n,b in net.named_buffers())
    assert list(t)==['layer', 'before', 'after'] and list(t.layer)==[n for n,m in net.named_modules() if type(m) is LIF]
    assert t.after.between(.9*rate, 1.1*rate).all()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert {n: again[n] for n in t.layer}==dict(zip(t.layer, t.after))

def test_deep_plain_nets_are_calibrated():
    "Eleven layers without a norm, which are silent as they are drawn"
    torch.manual_seed(0)
    net,x = vgg(11, 8, in_channels=1, size=28, num_steps=10, norm=None),images(16, 1, 28).relu()
    found = calibrate(net, x, .05, fresh=True)
    assert (found.before.iloc[-3:]==0).all() and found.after.between(.045, .055).all()
    with pytest.raises(ValueError, match=r"`rate` is 0.9.*'lif1' comes no nearer to it than 0\.\d+"):
        calibrate(net, x, .9)

@pytest.mark.parametrize('threshold', [1., 50.])
def test_a_fresh_norm_is_left_alone_if_its_neurons_fire(threshold):
    "Behind a threshold that they do not reach in the window it is scaled like any synapse"
    torch.manual_seed(0)
    net,x = lenet(norm='shared', size=12, num_steps=10, threshold=threshold),images(16, 1, 12).relu()
    old = copy.deepcopy(net.state_dict())
    found = calibrate(net, x, fresh=True)
    changed = {n for n,o in old.items() if not o.equal(net.state_dict()[n])}
    if threshold==1: assert (found.before==found.after).all() and not changed
    else:
        assert found.before.max()==0 and found.after.between(.045, .055).all()
        assert changed=={'norm1.weight', 'norm2.weight', 'norm3.weight'}

def test_a_network_without_neurons_is_not_calibrated():
    torch.manual_seed(0)
    net,x = nn.Sequential(nn.Flatten(), nn.Linear(144, 20), nn.ReLU(), nn.Linear(20, 3)),images(4, 1, 12)
    old = copy.deepcopy(net.state_dict())
    assert len(calibrate(net, x, fresh=True))==0 and all(o.equal(net.state_dict()[n]) for n,o in old.items())

def test_calibration_scales_and_does_nothing_else():
    net,x = tiny('resnet11', norm='shared')
    old = copy.deepcopy(net)
    calibrate(net, x, .1)
    scale = [*(f'norm{i}' for i in range(1, 11)), 'shortcut'] # neither convolutions before a norm nor the readout
    for (n,p),q in zip(net.named_parameters(), old.parameters()):
        f = p.norm()/q.norm() if q.any() else torch.tensor(1.)
        assert torch.allclose(p, f*q, rtol=1e-5), n
        scaled = n.split('.')[-2] in scale and q.any()
        assert (f!=1)==bool(scaled), n
    def grown(name): return (net.get_submodule(name).weight.norm()/old.get_submodule(name).weight.norm()).item()
    ratio = grown('block2.body.norm5')/grown('block2.shortcut')
    assert ratio==pytest.approx(1, rel=1e-5) # both halves of a current by one factor

def test_calibration_works_in_nests_and_with_bias():
    torch.manual_seed(0)
    conv,inner = Conv2d(6, 6, 3, padding=1),nn.Sequential(Conv2d(6, 6, 3, padding=1), BatchNorm2d(6))
    block = Residual(nn.Sequential(conv, LIF(.9), inner), LIF(reset='subtract'))
    first = nn.Sequential(Conv2d(3, 6, 3), AvgPool2d(2), LIF())
    last = Flatten(),Linear(6*25, 40),LIF(refractory=1),Linear(40, 3),Integrator()
    net = nn.Sequential(Direct(10), first, block, *last)
    t = calibrate(net, images(4, 3, 12), .2)
    assert t.after.between(.18, .22).all() and len(t)==4

def test_calibration_refuses():
    net,x = tiny('resnet9', refractory=3)
    old = copy.deepcopy(net)
    for rate in (0, 1, -1, 2, float('nan')):
        with pytest.raises(ValueError, match='above 0 and below 1'): calibrate(net, x, rate)
    with pytest.raises(ValueError, match="'lif1' comes no nearer to it than 0.[0-9]+"): calibrate(net, x, .8)
    assert all(p.equal(q) for p,q in zip(net.parameters(), old.parameters()))
    with pytest.raises(ValueError, match="no weights make the current of '1'"):
        calibrate(nn.Sequential(Direct(3), LIF()), x)
    with pytest.raises(ValueError, match="no weights make the current of '3'"):
        calibrate(nn.Sequential(Direct(3), Conv2d(3, 4, 1), BatchNorm2d(4, affine=False), LIF()), x)
    fire = LIF()
    with pytest.raises(ValueError, match="'2' stands in `model` twice"):
        calibrate(nn.Sequential(Direct(3), Conv2d(3, 3, 1), fire, Conv2d(3, 3, 1), fire), x)
    one = Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'1.weight' makes the currents of '2' and '4'"):
        calibrate(nn.Sequential(Direct(3), one, LIF(), one, LIF()), x)

def test_an_identity_alone_may_fire_too_much():
    "Spikes that join as they are cannot be scaled: here each of them is worth five thresholds"
    conv,block = Conv2d(3, 4, 1),Residual(nn.Sequential(Conv2d(4, 4, 1)), LIF(threshold=.2, reset='subtract'))
    net = nn.Sequential(Direct(20), conv, LIF(), block)
    torch.manual_seed(0)
    lee_init(net)
    with pytest.raises(ValueError, match="'3.neuron' comes no nearer to it than 0.1"): calibrate(net, images(2), .05)

@few
@given(st.floats(.01, .99), st.floats(-12, 12))
def test_factor_is_found(rate, log):
    f,r = find_factor(lambda f: min(1., f*2**log), rate)
    assert r==pytest.approx(rate, rel=.01) and f*2**log==pytest.approx(rate, rel=.01)

# Bad input

@pytest.mark.parametrize('f,kw,match', [
    (vgg, dict(depth=4), 'at least 5'),
    (vgg, dict(depth=9.), 'integer'),
    (vgg, dict(width=0), 'width'),
    (vgg9, dict(size=7), 'at least 8'),
    (resnet11, dict(width=0), 'width'),
    (resnet9, dict(size=1), 'size'),
    (resnet, dict(blocks=((2, 0),)), 'stride'),
    (resnet, dict(blocks=((.5, 1),)), 'channels'),
    (lenet, dict(num_classes=0), '`num_classes` is 0'),
    (vgg9, dict(num_classes=True), '`num_classes` is True'),
    (resnet9, dict(in_channels=0), 'in_channels'),
    (efficientnet, dict(num_classes=-1), 'num_classes'),
    (lenet, dict(encoder='poisson'), '`encoder` is str'),
    (vgg9, dict(encoder=Direct), '`encoder` is'),
    (lenet, dict(num_steps='x'), 'num_steps'),
    (lenet, dict(size=None), 'size'),
    (lenet, dict(dropout='x'), 'dropout'),
    (lenet, dict(kappa=-1.), 'kappa'),
    (resnet9, dict(kappa=0), 'kappa'),
    (resnet9, dict(join='sum'), 'join'),
    (lenet, dict(leak=2), 'leak'),
    (resnet9, dict(reset='none'), 'reset'),
    (vgg9, dict(num_steps=0), 'num_steps'),
    (efficientnet, dict(width=0), '`width` is 0'),
    (efficientnet, dict(depth=-.5), '`depth` is -0.5'),
    (efficientnet, dict(width=math.inf), 'finite'),
    (efficientnet, dict(size=1), 'size')], ids=lambda o: getattr(o, '__name__', str(o)))
def test_bad_arguments(f, kw, match):
    with pytest.raises(ValueError, match=match): f(**kw)

@pytest.mark.parametrize('name', models)
def test_bad_parts(name):
    with pytest.raises(ValueError, match="'shared', 'threshold', 'step', 'scaled'"): build(name, norm='batch')
    for p in (-.1, 1, 2.):
        with pytest.raises(ValueError, match=r'\[0, 1\)'): build(name, dropout=p)
    with pytest.raises(ValueError, match="'lenet', 'vgg9', 'vgg', 'resnet9', 'resnet11'"): build('resnet50')

@pytest.mark.parametrize('f', [
    lee_init,
    twin,
    lambda o: calibrate(o, images(2)),
    lambda o: makers(o, images(2)),
    lambda o: check_model(o, images(2)),
    lambda o: load_state(o, {}, 'a file')])
def test_odd_models(f):
    for odd in (None, 'lenet', True, 3, [], nn.ReLU, torch.zeros(3)):
        with pytest.raises(ValueError, match='`model`'): f(odd)

@pytest.mark.parametrize('rate', [None, 'x', True, 0, 1, -1, math.nan, [], torch.tensor(.1)])
def test_odd_rates(rate):
    with pytest.raises(ValueError, match='`rate`'): calibrate(lenet(), images(2, 1, 28), rate)

@pytest.mark.parametrize('state', [None, 'x', 3, [], dict(a=3), {3: torch.zeros(2)}])
def test_odd_states(state):
    with pytest.raises(ValueError, match='a file holds'): load_state(nn.Linear(2, 2), state, 'a file')

# What a user writes

class Adaptive(Neuron):
    "A neuron of one's own"
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.))
    def step(self, x, m):
        u = x if m is None else m + x
        s = fire(u-1)
        return s, self.w.sigmoid()*(u-s)

class Joined(nn.Module):
    "Wired as no `Sequential` is: two ways that are summed, spikes put beside a current, a neuron of one's own"
    def __init__(self, norm=False):
        super().__init__()
        self.encoder,self.a,self.fire_a = Direct(12),Conv2d(3, 8, 3, padding=1),Adaptive()
        self.b,self.c,self.norm = Conv2d(8, 8, 3, padding=1),Conv2d(8, 8, 1),BatchNorm2d(8) if norm else nn.Identity()
        self.fire_b,self.pool,self.d,self.fire_d = LIF(),MaxPool2d(2),Linear(16*36, 30),Adaptive()
        self.flatten,self.out,self.readout = Flatten(),Linear(30, 4),Integrator()
    def forward(self, x):
        one = self.fire_a(self.a(self.encoder(x)))
        two = self.fire_b(self.norm(self.b(one)) + .5*self.c(one) + one)
        both = torch.cat([self.pool(one), self.pool(two)], -3)
        return self.readout(self.out(self.fire_d(self.d(self.flatten(both)))))

@pytest.mark.parametrize('norm', [False, True])
def test_what_makes_a_current_is_found_however_a_net_is_wired(norm):
    torch.manual_seed(0)
    net = Joined(norm)
    found = makers(net, images(4, 3, 12))
    body = ['norm.weight', 'norm.bias'] if norm else ['b.weight', 'b.bias']
    assert list(found)==['fire_a', 'fire_b', 'fire_d'] and [o.joined for o in found.values()]==[False, True, False]
    assert found['fire_a'].weights==['a.weight', 'a.bias']
    assert set(found['fire_b'].weights)=={*body, 'c.weight', 'c.bias'}
    assert found['fire_d'].weights==['d.weight', 'd.bias']
    old = copy.deepcopy(net)
    t = calibrate(net, images(4, 3, 12), .25)
    assert t.after.between(.24, .26).all()
    scaled = {w for o in found.values() for w in o.weights}
    for (n,p),q in zip(net.named_parameters(), old.parameters()):
        assert p.equal(q) == (n not in scaled or not q.any()), n

def test_users_net_has_a_twin():
    net = Joined()
    ann = twin(net)
    assert ann(images(4, 3, 12)).shape==(4, 4) and type(ann.fire_a) is nn.ReLU and type(ann.pool) is nn.MaxPool2d
    assert ann.a.weight.equal(net.a.weight) and ann.a.weight is not net.a.weight

@pytest.mark.parametrize('depth', [11, 13])
@pytest.mark.parametrize('norm', kinds)
def test_calibration_of_deep_nets(depth, norm):
    torch.manual_seed(0)
    net = vgg(depth, 4, norm=norm, size=16)
    assert calibrate(net, images(4, 3, 16)).after.between(.045, .055).all()

def test_calibration_tells_of_currents_that_do_not_grow():
    class Squash(nn.Module):
        def forward(self, x): return .2*torch.tanh(x)
    torch.manual_seed(0)
    net = nn.Sequential(Direct(20), Flatten(), Linear(3*64, 30), Squash(), LIF())
    with pytest.raises(ValueError, match="'4' fires at .* in place of 0.5"): calibrate(net, images(4, 3, 8), .5)

def test_deep_models_have_a_norm():
    with_norm = {n for n,f in models.items() if inspect.signature(f).parameters['norm'].default=='shared'}
    assert with_norm==set(models)-{'lenet'}

def test_contiguous_weights_begin_with_the_bits_of_channels_last():
    "Stored results began with weights that were drawn where they lay, channels last"
    conv = Conv2d(16, 20, 3, bias=False)
    torch.manual_seed(3)
    lee_init(conv)
    torch.manual_seed(3)
    old = torch.empty(20, 16, 3, 3).to(memory_format=torch.channels_last).normal_(0, math.sqrt(2/144))
    assert conv.weight.equal(old) and conv.weight.is_contiguous() and not old.is_contiguous()

def test_a_fresh_twin_shares_nothing():
    torch.manual_seed(0)
    net = vgg9(width=4)
    net(images(2))
    a,b,copied = twin(net, fresh=True),twin(net, fresh=True),twin(net)
    assert copied.norm1.running_mean.equal(net.norm1.running_mean) and net.norm1.running_mean.any()
    assert not a.norm1.running_mean.any() and a(images(2)).shape==(2, 10)
    for n,p in a.named_parameters():
        if p.ndim>1: assert not p.equal(net.get_parameter(n)) and not p.equal(b.get_parameter(n)), n
    with pytest.raises(ValueError, match='only one of these'): twin(lenet(), 'digits', fresh=True)

def test_layers_used_twice_have_one_counterpart():
    "In one parent and in two"
    conv = Conv2d(3, 3, 1)
    ann = twin(nn.Sequential(Direct(3), conv, LIF(), conv, LIF(), nn.Sequential(conv, LIF())))
    assert ann[1] is ann[3] is ann[5][0] and type(ann[1]) is PlainConv2d and ann(images(2)).shape==(2, 3, 32, 32)
    tied = nn.Sequential(Direct(3), Linear(4, 4), LIF(), Linear(4, 4), Integrator())
    tied[3].weight = tied[1].weight
    ann = twin(tied)
    assert ann[3].weight is ann[1].weight is not tied[1].weight

def test_a_twin_does_not_guess():
    class Odd(nn.Module):
        def forward(self, x): return x
    with pytest.raises(ValueError, match="'1.0' is a Odd, but nobody knows"):
        twin(nn.Sequential(Direct(3), nn.Sequential(Odd()), Integrator()))
    class Same(Odd):
        def counterpart(self): return self
    assert type(twin(nn.Sequential(Direct(3), Same()))[1]) is Same
    class Bad(Odd):
        def counterpart(self): return 3
    with pytest.raises(ValueError, match='`counterpart of 1` is int'): twin(nn.Sequential(Direct(3), Bad()))

# Spike trains in place of images

def seen(): return plain((4, 'P'), 3, 20, 5, 2, 6, 8, encoder=nn.Identity())

def test_a_net_without_encoder():
    "Takes spike trains, is calibrated, checked, and has a twin that takes them too"
    torch.manual_seed(0)
    net,x = seen(),(torch.rand(6, 3, 2, 8, 8, generator=seeded(0))<.3).float()
    assert takes_trains(net) and net(x).shape==(3, 5) and not takes_trains(lenet()) and not takes_trains(twin(lenet()))
    assert calibrate(net, x, .2).after.between(.18, .22).all()
    check_model(net, x)
    ann = twin(net)
    check_model(ann, x)
    assert takes_trains(ann) and type(ann[0]) is MeanOverTime and list(ann.state_dict())==list(net.state_dict())
    assert ann(x).equal(ann[1:](x.mean(0)))
    with pytest.raises(ValueError, match='takes spike trains'): ann(x[0])
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net
        def forward(self, x): return self.net(x)
    assert twin(Own())(x).equal(ann(x)) and takes_trains(Own())

# Is it a network?

head = lambda: [Flatten(), Linear(3*64, 5), Integrator()]

@pytest.mark.parametrize('layers,says', [
    (lambda: [Direct(4), nn.Conv2d(3, 3, 3, padding=1), LIF(), *head()],
     "'1' is torch's own Conv2d .*Use `snnkit.layers.Conv2d`"),
    (lambda: [Direct(4), Conv2d(3, 3, 1), nn.BatchNorm2d(3), LIF(), *head()], "'2' is torch's own BatchNorm2d"),
    (lambda: [Direct(4), LIF(), nn.MaxPool2d(1), *head()], "'2' is torch's own MaxPool2d"),
    (lambda: [Direct(4), LIF(), nn.AvgPool2d(1), *head()], "'2' is torch's own AvgPool2d"),
    (lambda: [Direct(4), LIF(), nn.Dropout(.1), *head()], "'2' is torch's own Dropout"),
    (lambda: [Direct(4), LIF(), nn.Flatten(), *head()[1:]], "'2' is torch's own Flatten"),
    (lambda: [Direct(4), Conv2d(3, 3, 1), nn.ReLU(), LIF(), *head()],
     "'2' is torch's own ReLU .*Use `snnkit.layers.LIF`"),
    (lambda: [Direct(4), LIF(), *head()[:2]], r'gives \(4, 2, 5\) .*Put an `Integrator\(\)` last'),
    (lambda: [nn.Flatten(), nn.Linear(192, 5), nn.Unflatten(1, (5, 1))], r'gives \(2, 5, 1\)')])
def test_check_model_names_what_is_wrong(layers, says):
    with pytest.raises(ValueError, match=says): check_model(nn.Sequential(*layers()), images(3, 3, 8))

@pytest.mark.parametrize('name', models)
def test_check_model_lets_nets_be(name):
    "Nothing is said, and nothing changes: weights, statistics, mode, random numbers, hooks"
    net,x = tiny(name, norm='shared', dropout=.2)
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(4)
    want = torch.rand(2)
    torch.manual_seed(4)
    check_model(net, x)
    check_model(twin(net), x)
    assert torch.rand(2).equal(want) and net.training and all(v.equal(before[k]) for k,v in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

def test_check_model_lets_people_fold_time_themselves():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())
        def forward(self, x): return self.net(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    check_model(nn.Sequential(Direct(4), Folded(), LIF(), *head()), images(3, 3, 8))
    linear = nn.Sequential(Direct(4), Flatten(), nn.Linear(192, 5), LIF(), Integrator())
    check_model(linear, images(3, 3, 8))                  # torch's own does the same

# Models by import path

@pytest.fixture
def module(tmp_path, monkeypatch):
    "A module of the user's"
    (tmp_path/'nets_of_mine.py').write_text("""
from torch import nn
from snnkit.layers import Flatten, Integrator, LIF, Linear, Poisson
size = 3
def mine(num_steps=5): return nn.Sequential(Poisson(num_steps), Flatten(), Linear(64, 5), LIF(), Integrator())
def nothing(): pass
class Group:
    made = staticmethod(mine)
""")
    (tmp_path/'broken_nets.py').write_text('import a_package_nobody_has')
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for n in ('nets_of_mine', 'broken_nets'): sys.modules.pop(n, None)

def test_models_by_import_path(module):
    assert build('nets_of_mine:mine', num_steps=3)(torch.rand(2, 1, 8, 8)).shape==(2, 5)
    assert build('nets_of_mine:Group.made')[0].num_steps==5
    assert build('torch.nn:Linear', in_features=2, out_features=3).out_features==3
    assert imported('nets_of_mine:size')==3

@pytest.mark.parametrize('name,says', [
    ('no_such_nets:mine', "no module 'no_such_nets'.*PYTHONPATH"),
    ('nets_of_mine.sub:mine', "no module 'nets_of_mine.sub'"),
    ('nets_of_mine:yours', "'nets_of_mine' has no 'yours'"),
    ('nets_of_mine:size', 'is int, but it must be a function or class'),
    ('nets_of_mine:nothing', 'gives NoneType, but it must give a torch module'),
    (':mine', 'looks like'),
    ('nets_of_mine:', 'looks like'),
    ('.nets:mine', 'looks like'),
    ('resnet50', "'lenet', 'vgg9', 'vgg'.*import path"),
    (None, '`name` is None'),
    (True, '`name` is True'),
    ([], '`name`')])
def test_what_is_no_model(module, name, says):
    with pytest.raises(ValueError, match=says): build(name)

def test_what_a_users_module_lacks_is_not_hidden(module):
    with pytest.raises(ModuleNotFoundError, match='a_package_nobody_has'): build('broken_nets:mine')
