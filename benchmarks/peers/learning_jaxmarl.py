"""A jitted IPPO of our own over JaxMARL's spread: playing, advantages and all gradient steps are one compiled function.

Its wheel carries no learner. Rates as in its repository's own script (2.5e-4, clip 0.2, discount 0.99, mix 0.95, bonus
0.01, norm 0.5) but for a learning rate of 1e-3, by which it learns faster here.
"""

from serving import serve

PASSES, MINIBATCHES, WIDTH, CHOICES = 4, 4, 64, 5
RATE, CLIP, DISCOUNT, MIX, BONUS, NORM = 1e-3, 0.2, 0.99, 0.95, 0.01, 0.5


def prepare(envs, segment, threads=1):
    import jax
    import jax.numpy as jnp
    import jaxmarl
    import optax

    env = jaxmarl.make("MPE_simple_spread_v3")
    names, agents = env.agents, len(env.agents)
    optimizer = optax.chain(optax.clip_by_global_norm(NORM), optax.adam(RATE, eps=1e-5))

    def together(each):
        return jnp.stack([each[name] for name in names], axis=1)  # [env, agent, ...]

    def network(key, outputs, gain):
        keys, widths = jax.random.split(key, 3), [18, WIDTH, WIDTH, outputs]
        gains = [2**0.5, 2**0.5, gain]
        return [
            (jax.nn.initializers.orthogonal(g)(k, (a, b)), jnp.zeros(b))
            for k, a, b, g in zip(keys, widths, widths[1:], gains, strict=False)
        ]

    def through(layers, x):
        for weight, bias in layers[:-1]:
            x = jnp.tanh(x @ weight + bias)
        weight, bias = layers[-1]
        return x @ weight + bias

    def play(carried, _):
        weights, state, seen, key = carried
        key, acting, stepping = jax.random.split(key, 3)
        logits = jax.nn.log_softmax(through(weights["policy"], seen))
        actions = jax.random.categorical(acting, logits)
        log_prob = jnp.take_along_axis(logits, actions[..., None], -1)[..., 0]
        values = through(weights["values"], seen)[..., 0]
        given = {name: actions[:, i] for i, name in enumerate(names)}
        after, state, rewards, over, _ = jax.vmap(env.step)(jax.random.split(stepping, envs), state, given)
        ended = jnp.broadcast_to(over["__all__"][:, None], (envs, agents))
        kept = (seen, actions, log_prob, values, together(rewards), ended)
        return (weights, state, together(after), key), kept

    def advantage(carried, step):
        following, after = carried
        values, rewards, ended = step
        delta = rewards + DISCOUNT * after * (1 - ended) - values
        following = delta + DISCOUNT * MIX * (1 - ended) * following
        return (following, values), following

    def loss(weights, batch):
        seen, actions, old, advantages, returns = batch
        logits = jax.nn.log_softmax(through(weights["policy"], seen))
        ratio = jnp.exp(jnp.take_along_axis(logits, actions[..., None], -1)[..., 0] - old)
        gain = jnp.minimum(ratio * advantages, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantages)
        entropy = -(jnp.exp(logits) * logits).sum(-1)
        error = jnp.square(through(weights["values"], seen)[..., 0] - returns)
        return -gain.mean() - BONUS * entropy.mean() + 0.5 * error.mean()

    def descend(carried, batch):
        weights, inner = carried
        change, inner = optimizer.update(jax.grad(loss)(weights, batch), inner)
        return (optax.apply_updates(weights, change), inner), None

    @jax.jit
    def update(weights, inner, state, seen, key):
        (_, state, seen, key), kept = jax.lax.scan(play, (weights, state, seen, key), None, segment)
        _, _, _, values, rewards, ended = kept
        last = through(weights["values"], seen)[..., 0]
        begin = (jnp.zeros_like(last), last)
        _, advantages = jax.lax.scan(advantage, begin, (values, rewards, ended), reverse=True)
        returns = advantages + values
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        whole = (*kept[:3], advantages, returns)

        def one_pass(carried, key):
            order = jax.random.permutation(key, envs)  # whole envs, as ours
            parts = jax.tree.map(lambda x: jnp.take(x, order, axis=1), whole)
            parts = jax.tree.map(
                lambda x: x.reshape(segment, MINIBATCHES, envs // MINIBATCHES, *x.shape[2:]).swapaxes(0, 1), parts
            )
            return jax.lax.scan(descend, carried, parts)

        key, shuffling = jax.random.split(key)
        (weights, inner), _ = jax.lax.scan(one_pass, (weights, inner), jax.random.split(shuffling, PASSES))
        return weights, inner, state, seen, key, rewards.mean()

    key = jax.random.PRNGKey(0)
    keys = jax.random.split(key, 3)
    weights = {"policy": network(keys[0], CHOICES, 0.01), "values": network(keys[1], 1, 1.0)}
    inner = optimizer.init(weights)
    seen, state = jax.vmap(env.reset)(jax.random.split(keys[2], envs))
    seen = together(seen)

    def work():
        nonlocal weights, inner, state, seen, key
        weights, inner, state, seen, key, reward = update(weights, inner, state, seen, key)
        return envs * segment, env.max_steps * float(reward)

    return work


if __name__ == "__main__":
    serve(prepare)
