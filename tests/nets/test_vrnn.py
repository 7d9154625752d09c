"""The published recurrent models: their published numbers of weights, a NumPy twin, bounds in order, units, goals."""

import math

import numpy as np
import pytest
import torch

from understudy.core.errors import ConfigError, ShapeError
from understudy.core.random import generator
from understudy.core.tree import tree_map
from understudy.demos.tracks import Clips
from understudy.nets.scene import Label, SceneShape
from understudy.nets.vrnn import FAMILIES, PUBLISHED, RecurrentNet, RecurrentSceneNet

SMALL = {"hidden": 8, "memory": 6, "latent": 3, "goal_memory": 5}
LATENT = [kind for kind, family in FAMILIES.items() if family.latent != "none"]


def made(kind, agents=3, classes=4, dtype=torch.float64, **settings):
    goals = {"none": (), "agent": (Label("aim", classes, True),), "scene": (Label("aim", classes, False),)}
    shape = SceneShape(2, 0, (0,), (0,), goals[FAMILIES[kind].goals])
    net = RecurrentSceneNet(RecurrentNet(kind, **{**SMALL, **settings}), shape, agents, generator(0, kind))
    for weight in net.parameters():  # biases too, so that a twin that forgets one is found out
        weight.data += 0.3 * torch.randn(weight.shape, generator=generator(1, "weights"))
    return net.to(dtype)


def clips(kind="rnn_gauss", scenes=4, frames=6, agents=3, classes=4, scale=1.0, dtype=torch.float64):
    values = scale * torch.randn(scenes, frames, agents, 2, generator=generator(2), dtype=dtype).cumsum(1)
    shape = {"none": None, "agent": (scenes, frames, agents), "scene": (scenes, frames)}[FAMILIES[kind].goals]
    labels = {} if shape is None else {"aim": torch.randint(-1, classes, shape, generator=generator(3))}
    return Clips(values, torch.ones(values.shape[:3], dtype=torch.bool), labels)


@pytest.mark.parametrize(
    ("kind", "weights"),  # as published, of five players in the plane and 90 macro-goals
    [("rnn_gauss", 7_620_820), ("vrnn_single", 8_523_140), ("vrnn_indep", 4_367_340), ("macro_vrnn", 4_372_190)],
)
def test_published_sizes_give_the_published_numbers_of_weights(kind, weights):
    net = made(kind, agents=5, classes=90, dtype=torch.float32, **PUBLISHED[kind])
    assert sum(p.numel() for p in net.parameters()) == weights


class Twin:
    """One scene, one agent, one layer after another, in NumPy: the formulas as the page has them."""

    def __init__(self, net):
        self.net, self.kind, self.family, self.agents = net, net.config.kind, net.family, net.agents
        self.sets = range(net.streams)

    @staticmethod
    def linear(layer, i, x):
        return layer.weight.detach().numpy()[i] @ x + layer.bias.detach().numpy()[i]

    def mlp(self, net, i, x):
        for layer in net.hidden:
            x = np.maximum(self.linear(layer, i, x), 0)
        return self.linear(net.last, i, x)

    def normal(self, net, i, x, least=1e-4):
        mean, raw = np.split(self.mlp(net, i, x), 2)
        return mean, np.log1p(np.exp(raw)) + least

    def remember(self, net, i, x, layers):
        width, after = net.width, []
        for into, back, h in zip(net.into, net.back, layers, strict=True):
            fed, kept = self.linear(into, i, x), self.linear(back, i, h)
            r, s = (1 / (1 + np.exp(-(fed + kept)[a : a + width])) for a in (0, width))
            x = (1 - s) * np.tanh(fed[2 * width :] + r * kept[2 * width :]) + s * h
            after.append(x)
        return after

    def one_hot(self, goal):
        classes = self.net.shape.goals[0].classes
        return np.eye(classes)[goal] if goal >= 0 else np.zeros(classes)

    def bound(self, x, goals, noise):
        """(E_q log p - KL, log p + log p(z) - log q(z)) of every frame after the first; `noise` of [frame, stream]."""
        net, family = self.net, self.family
        memories = {i: [np.zeros(net.config.memory)] * net.config.layers for i in self.sets}
        latents = {i: np.zeros(net.config.latent if family.latent == "frame" else 0) for i in self.sets}
        out = []
        for t in range(len(x) - 1):
            if family.shared:
                told = np.concatenate([x[t].ravel(), *latents.values()])
                memories = dict.fromkeys(self.sets, self.remember(net.memory, 0, told, memories[0]))
            else:
                own = [x[t, i] if family.apart else x[t].ravel() for i in self.sets]
                memories = {
                    i: self.remember(net.memory, i, np.concatenate([own[i], latents[i]]), memories[i])
                    for i in self.sets
                }
            kl = ratio = told = 0.0
            for i in self.sets:
                coming = x[t + 1, i] if family.apart else x[t + 1].ravel()
                h = memories[i][-1]
                g = [] if goals is None else self.one_hot(goals[t + 1, i] if goals.ndim == 2 else goals[t + 1])
                prior = np.concatenate([h, x[t].ravel() if family.prior_looks else [], g])
                seen = np.concatenate([h, x[t].ravel() if family.decoder_looks else [], g])
                if family.latent == "frame":
                    p = self.normal(net.prior, i, prior)
                    q = self.normal(net.encoder, i, np.concatenate([coming, prior]))
                    z = q[0] + q[1] * noise[t, i]
                    kl, ratio = kl + divergence(q, p), ratio + density(z, *p) - density(z, *q)
                    latents[i] = z
                    seen = np.concatenate([seen, z])
                elif family.latent == "scene":
                    if t == 0 and i == 0:
                        h = self.last_memory(x)
                        q = self.normal(net.encoder, 0, h)
                        self.z = q[0] + q[1] * noise
                        p = np.zeros_like(self.z), np.ones_like(self.z)
                        kl, ratio = divergence(q, p), density(self.z, *p) - density(self.z, *q)
                    seen = np.concatenate([seen, self.z])
                told += density(coming, *self.normal(net.decoder, i, seen, net.config.least_std))
            out.append((told - kl, told + ratio))
        return out

    def last_memory(self, x):
        layers = [np.zeros(self.net.config.memory)] * self.net.config.layers
        for frame in x:
            layers = self.remember(self.net.memory, 0, frame.ravel(), layers)
        return layers[-1]

    def aimed(self, x, goals):
        net, of = self.net, self.agents if self.family.goals == "agent" else 1
        layers, out = [np.zeros(net.config.goal_memory)] * net.config.layers, []
        for t in range(len(x) - 1):
            now = [self.one_hot(g) for g in np.atleast_1d(goals[t])]
            layers = self.remember(net.goal_memory, 0, np.concatenate(now), layers)
            total = 0.0
            for i in range(of):
                logits = self.mlp(net.aim, i, np.concatenate([x[t].ravel(), layers[-1]]))
                came = np.atleast_1d(goals[t + 1])[i]
                total += 0.0 if came < 0 else logits[came] - np.log(np.exp(logits).sum())
            out.append(total)
        return out


def density(x, mean, std):
    return float((-0.5 * ((x - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)).sum())


def divergence(q, p):
    return float((np.log(p[1] / q[1]) + (q[1] ** 2 + (q[0] - p[0]) ** 2) / (2 * p[1] ** 2) - 0.5).sum())


@pytest.mark.parametrize("kind", FAMILIES)
def test_bounds_and_goals_are_those_of_a_twin(kind):
    net, scenes = made(kind), clips(kind)
    with torch.no_grad():
        bound = net.elbo(scenes, generator(5))
        weighed = net(scenes, generator(5))
    shape = (4, net.streams, 3) if net.family.latent == "frame" else (4, 1, 3)
    draws = 1 if net.family.latent == "scene" else 5
    chance = generator(5)
    noise = torch.stack([torch.randn(shape, generator=chance, dtype=torch.float64) for _ in range(draws)], 1).numpy()
    goals = next(iter(scenes.labels.values())).numpy() if scenes.labels else None
    for k in range(4):
        of = noise[k, 0, 0] if net.family.latent == "scene" else noise[k]
        x = scenes.values[k].numpy()
        found = Twin(net).bound(x, None if goals is None else goals[k], of)
        np.testing.assert_allclose(bound[k], [each[0] for each in found], rtol=1e-9)
        np.testing.assert_allclose(weighed.frames[k, 1:], [each[1] for each in found], rtol=1e-9)
        if goals is not None:
            np.testing.assert_allclose(weighed.goals[k, 1:], Twin(net).aimed(x, goals[k]), rtol=1e-9)
    assert (weighed.frames[:, 0] == 0).all() and not weighed.counted[:, 0].any() and weighed.counted[:, 1:].all()


@pytest.mark.parametrize("kind", LATENT)
def test_more_latents_give_a_tighter_bound(kind):
    net, chance = made(kind), generator(7)
    many = tree_map(lambda x: x.repeat(100, *[1] * (x.dim() - 1)), clips(kind))
    with torch.no_grad():
        one, eight = (net(many, chance, samples).frames.sum(1) for samples in (1, 8))
        closed = net.elbo(many, chance).sum(1)
    tighter, same = (eight - one).unflatten(0, (100, 4)).mean(1), (one - closed).unflatten(0, (100, 4)).mean(1)
    assert tighter.mean() > 4 * tighter.std() / 10
    assert same.mean().abs() < 4 * same.std() / 10  # the divergence in closed form, and as it is drawn


@pytest.mark.parametrize("steps", [False, True])
def test_a_likelihood_is_in_the_unit_of_the_recordings(steps):
    """In tenths of a unit each number's density is a tenth; the model is fitted anew, its weights are the same."""
    net = made("vrnn_indep", steps=steps)
    found = []
    for scale in (1.0, 10.0):
        scenes = clips("vrnn_indep", scale=scale)
        net.fit(scenes)
        with torch.no_grad():
            found.append(net(scenes, generator(0)).frames[:, 1:])
    torch.testing.assert_close(found[1], found[0] - 3 * 2 * math.log(10))


@pytest.mark.parametrize("steps", [False, True])
def test_what_is_sampled_is_as_likely_as_it_says(steps):
    """Without a latent the next frame is normal: mean of log p is minus the entropy of what the decoder says."""
    net, past = made("rnn_gauss", steps=steps, least_std=0.05), clips(scenes=1, frames=3)
    net.fit(clips())
    many = Clips(past.values.expand(4000, -1, -1, -1), past.present.expand(4000, -1, -1))
    drawn = net.sample(many, net.noise(4000, 1, 3, generator(4)))
    again = Clips(drawn.values, drawn.present)
    with torch.no_grad():
        found = net(again).frames[:, -1]
        mean = drawn.values[:, -1].flatten(1).mean(0)
        spread = drawn.values[:, -1].flatten(1).std(0)
    entropy = (spread.log() + 0.5 * math.log(2 * math.pi * math.e)).sum()
    assert found.mean().item() == pytest.approx(-entropy.item(), abs=0.15)
    assert mean.isfinite().all() and torch.equal(drawn.values[:, :3], many.values)


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_sample_is_a_function_of_its_noise_and_goals_act_from_their_frame_on(kind):
    net, past = made(kind), clips(kind, frames=3)
    noise = net.noise(4, 5, 3, generator(1))
    free = net.sample(past, noise)
    assert torch.equal(free.values, net.sample(past, noise).values)
    assert not torch.equal(free.values, net.sample(past, net.noise(4, 5, 3, generator(2))).values)
    assert free.values.shape == (4, 8, 3, 2) and torch.equal(free.values[:, :3], past.values)
    if not net.shape.goals:
        return
    wish = free.labels["aim"][:, 3:].clone()
    assert wish.min() >= 0  # what was not set is drawn
    wish[:, 2] = (wish[:, 2] + 1) % 4
    wish[:, 3:] = -1
    asked = net.sample(past, noise, goals={"aim": wish})
    assert torch.equal(asked.labels["aim"][:, 3:6], wish[:, :3])
    assert torch.equal(asked.values[:, :5], free.values[:, :5])
    assert (asked.values[:, 5] != free.values[:, 5]).any()


def test_goals_are_drawn_as_often_as_the_model_says():
    net, past = made("macro_shared_vrnn"), clips("macro_shared_vrnn", scenes=1, frames=2)
    many = Clips(past.values.expand(3000, -1, -1, -1), past.present.expand(3000, -1, -1), {
        "aim": past.labels["aim"].expand(3000, -1)
    })  # fmt: skip
    drawn = net.sample(many, net.noise(3000, 1, 3, generator(6))).labels["aim"][:, -1]
    values = torch.cat([past.values, past.values[:, :1]], dim=1).expand(4, -1, -1, -1)
    labels = torch.cat([past.labels["aim"].expand(4, -1), torch.arange(4).unsqueeze(-1)], dim=1)
    with torch.no_grad():
        chance = net.aimed(Clips(values, torch.ones(4, 3, 3, dtype=torch.bool), {"aim": labels}))[:, -1].exp()
    assert chance.sum().item() == pytest.approx(1)
    assert (torch.bincount(drawn, minlength=4) / 3000).tolist() == pytest.approx(chance.tolist(), abs=0.04)


def test_what_does_not_fit_is_refused():
    shape = SceneShape(2, 0, (0,), (0,), (Label("aim", 3, True),))
    with pytest.raises(ConfigError, match=r"macro_shared_vrnn has one goal of the scene; named are \['aim'\]"):
        RecurrentSceneNet(RecurrentNet("macro_shared_vrnn"), shape, 3, generator(0))
    with pytest.raises(ConfigError, match="likelihood has no bound"):
        RecurrentNet(least_std=0.0)
    net = made("macro_vrnn")
    with pytest.raises(ShapeError, match="4 agents, and this model has weights for each of its 3"):
        net(clips("macro_vrnn", agents=4))
    past = clips("macro_vrnn")
    with pytest.raises(ShapeError, match=r"aim: expected \[4, 2, 3\] of classes below 4"):
        net.sample(past, net.noise(4, 2, 3, generator(0)), goals={"aim": torch.full((4, 2, 3), 4)})
    nothing = Clips(past.values[:, :0], past.present[:, :0], {"aim": past.labels["aim"][:, :0]})
    with pytest.raises(ShapeError, match="from a frame at least"):
        net.sample(nothing, net.noise(4, 2, 3, generator(0)))
