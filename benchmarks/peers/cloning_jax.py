"""A jitted JAX loop of our own over gradient steps, the whole set in its memory, rows drawn with replacement."""

from serving import serve

STEPS = 50


def prepare(batch, width, samples, threads=1):
    import jax
    import jax.numpy as jnp
    import optax

    key = jax.random.PRNGKey(0)
    keys, widths = jax.random.split(key, 5), [18, width, width, 5]
    seen, done = jax.random.normal(keys[0], (samples, 18)), jax.random.randint(keys[1], (samples,), 0, 5)
    weights = [
        (jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b))
        for k, a, b in zip(keys[2:], widths, widths[1:], strict=False)
    ]
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3, weight_decay=1e-4))
    inner = optimizer.init(weights)

    def loss(weights, x, y):
        for weight, bias in weights[:-1]:
            x = jnp.tanh(x @ weight + bias)
        weight, bias = weights[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ weight + bias, y).mean()

    def descend(carried, key):
        weights, inner = carried
        rows = jax.random.randint(key, (batch,), 0, samples)
        found, gradient = jax.value_and_grad(loss)(weights, seen[rows], done[rows])
        change, inner = optimizer.update(gradient, inner, weights)
        return (optax.apply_updates(weights, change), inner), found

    @jax.jit
    def many(weights, inner, key):
        key, now = jax.random.split(key)
        (weights, inner), losses = jax.lax.scan(descend, (weights, inner), jax.random.split(now, STEPS))
        return weights, inner, key, losses.mean()

    def work():
        nonlocal weights, inner, key
        weights, inner, key, found = many(weights, inner, key)
        return STEPS * batch, float(found)

    return work


if __name__ == "__main__":
    serve(prepare)
