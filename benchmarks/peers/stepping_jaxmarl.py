"""JaxMARL: a jitted scan of steps with its own resets. Actions are drawn before; what is seen is summed, not kept."""

from serving import serve

NAMES = {"spread": "MPE_simple_spread_v3", "tag": "MPE_simple_tag_v3", "kitchen": "overcooked"}
STEPS = 25


def prepare(game, envs, threads=1):
    import jax
    import jaxmarl

    env = jaxmarl.make(NAMES[game])
    choices = 6 if game == "kitchen" else 5
    key = jax.random.PRNGKey(0)
    actions = jax.random.randint(key, (STEPS, len(env.agents), envs), 0, choices)
    _, state = jax.jit(jax.vmap(env.reset))(jax.random.split(key, envs))

    def step(carried, chosen):
        state, key, total = carried
        key, now = jax.random.split(key)
        given = dict(zip(env.agents, chosen, strict=True))
        seen, state, rewards, _, _ = jax.vmap(env.step)(jax.random.split(now, envs), state, given)
        for agent in env.agents:
            total += rewards[agent].sum() + seen[agent].sum()
        return (state, key, total), None

    @jax.jit
    def play(state, key, actions):
        (state, key, total), _ = jax.lax.scan(step, (state, key, 0.0), actions)
        return state, key, total

    def work():
        nonlocal state, key
        state, key, total = play(state, key, actions)
        return STEPS * envs, float(total)

    return work


if __name__ == "__main__":
    serve(prepare)
