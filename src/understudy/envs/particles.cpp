// The particle games' physics, what their agents see, fresh starts, and the rewards of spread and tag: those of
// `particles_physics.py` and of the scenarios, where the rules and the names are told. `particles_native.py` builds,
// loads and calls it.
//
// The state lies in memory as rows, one number of all envs each. BLOCK envs at a time go through everything while their
// rows are in the nearest cache, and each loop over them is made vectors of by the compiler. Soft contacts, which cost
// most, are computed only for those pairs that are near enough to feel one: they are listed, and then taken as they
// stand in the list, whichever env they are of.
//
// Operations and their order are torch's, none contracted (-ffp-contract=off), so that its bits are found wherever no
// exponential is needed.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

struct Game {  // as in particles_native.py
    int64_t agents, bodies, solid, paper, continuous, size, pays, hunters;
    double together, alone, reach;  // weights in COVER, of the shared distance and of one's own overlaps; see `pay`
    const float *radius, *scope;    // [body] the scope is where it starts
    const float *push, *mass, *top; // [agent] the last two null where all are 1, or unlimited
};

struct State {  // rows of all envs: [body or agent, x or y, env]
    float *position, *velocity, *landmark;
};

namespace {

enum { BY_TORCH, COVER, CATCH };  // how agents are paid, as in particles_native.py
constexpr int BLOCK = 64;
constexpr float DT = 0.1f, KEPT = 0.75f, MARGIN = 1e-3f, FORCE = 0.1f;  // FORCE of a contact one margin deep
constexpr float FELT = 20 * MARGIN;  // where a gap is wider, a push is less than 3e-10 of what a full move is

struct alignas(64) Row {
    float of[BLOCK];
    float& operator[](int e) { return of[e]; }
};

#define EACH(e) _Pragma("GCC ivdep") for (int e = 0; e < BLOCK; e++)

// A point of all that is in a block: bodies, then the velocities of agents, then nothing.
struct Point { Row x, y; };

void read(Row& row, const float* from, int64_t count) { std::memcpy(row.of, from, count * sizeof(float)); }
void write(float* to, const Row& row, int64_t count) { std::memcpy(to, row.of, count * sizeof(float)); }

std::vector<Point> points(const Game& g) { return std::vector<Point>(g.bodies + g.agents + 1); }

void read(const Game& g, const State& state, int64_t envs, int64_t from, int64_t count, Point* points) {
    const auto all = [&](const float* rows, int64_t many, Point* to) {
        for (int64_t i = 0; i < many; i++) {
            read(to[i].x, rows + 2 * i * envs + from, count);
            read(to[i].y, rows + (2 * i + 1) * envs + from, count);
        }
    };
    all(state.position, g.agents, points);
    all(state.landmark, g.bodies - g.agents, points + g.agents);
    all(state.velocity, g.agents, points + g.bodies);
}

// ---- numbers ----

float square(Point& a, Point& b, int e) {
    const float x = a.x[e] - b.x[e], y = a.y[e] - b.y[e];
    return x * x + y * y;
}

// For a from -80 to 3, or NaN; to an ulp or so.
float exponential(float a) {
    const float shifted = a * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;  // the nearest whole number
    const float r = (a - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) p = p * r + c;
    int32_t bits;
    std::memcpy(&bits, &shifted, 4);
    bits = int32_t(uint32_t(bits) << 23) + 0x3f800000;
    float power;
    std::memcpy(&power, &bits, 4);
    return (p * r * r + r + 1.0f) * power;
}

// log(1 + e^a), by log(1 + t) = 2 artanh(t / (2 + t))
float softplus(float a) {
    const float below = a < 0 ? a : -a;
    const float t = exponential(below < -80 ? -80 : below), s = t / (2 + t), z = s * s;
    float p = 1.0f / 13;
    for (float c : {1.0f / 11, 1.0f / 9, 1.0f / 7, 1.0f / 5, 1.0f / 3}) p = p * z + c;
    return (a > 0 ? a : 0) + (2 * s + 2 * s * z * p);
}

// ---- physics ----

// Where each agent's move pushes it.
void pushed(const Game& g, const void* actions, int64_t from, int64_t count, Point* force) {
    for (int64_t i = 0; i < g.agents; i++) {
        const float push = g.paper ? -g.push[i] : g.push[i];
        if (g.continuous) {
            for (int e = 0; e < count; e++) {
                const float* a = static_cast<const float*>(actions) + ((from + e) * g.agents + i) * g.size;
                const auto part = [a](int k) { return a[k] < 0 ? 0 : a[k] > 1 ? 1 : a[k]; };
                force[i].x[e] = (part(2) - part(1)) * push;
                force[i].y[e] = (part(4) - part(3)) * push;
            }
            continue;
        }
        int32_t move[BLOCK] = {};
        for (int e = 0; e < count; e++) {
            const int64_t a = static_cast<const int64_t*>(actions)[(from + e) * g.agents + i];
            move[e] = uint64_t(a) < 5 ? int32_t(a) : 0;
        }
        EACH(e) {
            force[i].x[e] = float((move[e] == 2) - (move[e] == 1)) * push;
            force[i].y[e] = float((move[e] == 4) - (move[e] == 3)) * push;
        }
    }
}

// Pairs that may feel each other, in the order in which they are to be summed.
struct Contacts {
    static constexpr int ROOM = 1024;
    int count = 0;
    int32_t one[ROOM], other[ROOM], env[ROOM];
    float x[ROOM], y[ROOM], touch[ROOM];  // the offset, and the sum of both radii

    // Adds their forces to `force`, of which there are so many agents, and forgets them.
    void settle(Point* force, int64_t agents) {
        const int full = (count + 15) & ~15;
#pragma GCC ivdep
        for (int k = 0; k < full; k++) {
            const float apart = std::sqrt(x[k] * x[k] + y[k] * y[k]);
            const float depth = softplus((touch[k] - apart) / MARGIN) * FORCE;
            const float pull = depth / (apart < 1e-12f ? 1e-12f : apart);
            x[k] *= pull;
            y[k] *= pull;
        }
        for (int k = 0; k < count; k++) {
            force[one[k]].x[env[k]] += x[k];
            force[one[k]].y[env[k]] += y[k];
            if (other[k] >= agents) continue;
            force[other[k]].x[env[k]] -= x[k];
            force[other[k]].y[env[k]] -= y[k];
        }
        count = 0;
    }
};

// The sum of all contacts of each agent.
void contacts(const Game& g, Point* body, int64_t count, Point* force) {
    static thread_local Contacts found;
    for (int64_t i = 0; i < g.agents; i++)
        EACH(e) {  // itself: nothing, unless it is nowhere
            const float nothing = (body[i].x[e] - body[i].x[e]) + (body[i].y[e] - body[i].y[e]);
            force[i].x[e] = force[i].y[e] = nothing + 0.0f;
        }
    for (int64_t i = 0; i < g.agents; i++)
        for (int64_t j = i + 1; j < g.solid; j++) {
            const float touch = g.radius[i] + g.radius[j], far = (touch + FELT) * (touch + FELT);
            alignas(64) uint8_t near[BLOCK];
            EACH(e) {
                const float apart = square(body[i], body[j], e);
                near[e] = !(apart > far && apart < INFINITY);  // from nowhere, and from infinity, all is NaN
            }
            if (found.count + BLOCK > Contacts::ROOM) found.settle(force, g.agents);
            for (int eight = 0; eight < count; eight += 8) {
                uint64_t flags;
                for (std::memcpy(&flags, near + eight, 8); flags; flags &= flags - 1) {
                    const int e = eight + __builtin_ctzll(flags) / 8, k = found.count;
                    if (e >= count) break;
                    found.one[k] = i, found.other[k] = j, found.env[k] = e;
                    found.x[k] = body[i].x[e] - body[j].x[e];
                    found.y[k] = body[i].y[e] - body[j].y[e];
                    found.touch[k] = touch;
                    found.count++;
                }
            }
        }
    found.settle(force, g.agents);
}

void move(const Game& g, int64_t i, Point& position, Point& velocity, Point& force) {
    const float top = g.top ? g.top[i] : INFINITY;
    if (g.mass)
        EACH(e) {
            force.x[e] /= g.mass[i];
            force.y[e] /= g.mass[i];
        }
    EACH(e) {
        float x = KEPT * velocity.x[e] + force.x[e] * DT, y = KEPT * velocity.y[e] + force.y[e] * DT;
        if (g.top) {
            const float speed = std::sqrt(x * x + y * y), kept = top / (speed <= top ? top : speed);
            x *= kept;
            y *= kept;
        }
        position.x[e] += (g.paper ? x : velocity.x[e]) * DT;
        position.y[e] += (g.paper ? y : velocity.y[e]) * DT;
        velocity.x[e] = x;
        velocity.y[e] = y;
    }
}

// ---- rewards ----

// What it costs to be near or beyond the border, along one axis.
float fence(float at) {
    const float x = std::fabs(at), inside = 10 * (x - 0.9f), power = 2 * x - 2;
    const float outside = exponential(power > 3 ? 3 : power < 0 ? 0 : power);
    return x < 1 ? (inside < 0 ? 0 : inside) : outside > 10 ? 10 : outside;
}

void pay(const Game& g, Point* body, Row* paid) {
    const float reach = g.reach;  // nearer than that, two bodies overlap
    if (g.pays == COVER) {
        const float together = g.together, alone = g.alone;
        Row shared{}, least;
        for (int64_t l = g.agents; l < g.bodies; l++) {
            EACH(e) least[e] = square(body[l], body[0], e);
            for (int64_t i = 1; i < g.agents; i++)
                EACH(e) {
                    const float now = square(body[l], body[i], e);
                    least[e] = now < least[e] || now != now ? now : least[e];
                }
            EACH(e) shared[e] += std::sqrt(least[e]);
        }
        for (int64_t i = 0; i < g.agents; i++) {
            Row overlaps;
            EACH(e) overlaps[e] = -1;  // less the agent itself
            for (int64_t j = 0; j < g.agents; j++)
                EACH(e) overlaps[e] += std::sqrt(square(body[i], body[j], e)) < reach ? 1.0f : 0.0f;
            EACH(e) paid[i][e] = together * -shared[e] - alone * overlaps[e];
        }
        return;
    }
    Row caught{};
    for (int64_t i = g.hunters; i < g.agents; i++) {
        Row hits{};
        for (int64_t h = 0; h < g.hunters; h++)
            EACH(e) hits[e] += std::sqrt(square(body[h], body[i], e)) < reach ? 1.0f : 0.0f;
        EACH(e) {
            caught[e] += hits[e];
            paid[i][e] = -10 * hits[e] - (fence(body[i].x[e]) + fence(body[i].y[e]));
        }
    }
    for (int64_t h = 0; h < g.hunters; h++)
        EACH(e) paid[h][e] = 10 * caught[e];
}

// ---- sight ----

#if defined(__AVX512F__)
#define LANES 16
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX__)
#define LANES 8
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#else
#define LANES 4
#define LOW 0, 4, 1, 5
#define HIGH 2, 6, 3, 7
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Order __attribute__((vector_size(4 * LANES)));
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Order{__VA_ARGS__})
#endif

// Rows to columns: each round interleaves the upper half of the rows with the lower one.
void transpose(Lanes* tile) {
    for (int round = 1; round < LANES; round *= 2) {
        Lanes next[LANES];
        for (int k = 0; k < LANES / 2; k++) {
            next[2 * k] = SHUFFLE(tile[k], tile[k + LANES / 2], LOW);
            next[2 * k + 1] = SHUFFLE(tile[k], tile[k + LANES / 2], HIGH);
        }
        std::memcpy(tile, next, sizeof next);
    }
}

// The numbers of each env one after another; each is one row of the block less another.
void see(const Row* rows, const int32_t* table, int64_t numbers, int64_t count, float* out) {
    for (int64_t c = 0; c < numbers; c += LANES) {
        const int64_t first = c + LANES <= numbers ? c : numbers - LANES;  // the last tile begins within the one before
        for (int64_t e = 0; e < count; e += LANES) {
            Lanes tile[LANES];
            for (int k = 0; k < LANES; k++) {
                if (first + k < 0) continue;  // so few numbers that they fill no tile
                const int32_t* pair = table + 2 * (first + k);
                Lanes origin;
                std::memcpy(&tile[k], rows[pair[0]].of + e, sizeof origin);
                std::memcpy(&origin, rows[pair[1]].of + e, sizeof origin);
                tile[k] -= origin;
            }
            transpose(tile);
            const int64_t skip = first < 0 ? -first : 0, lanes = count - e < LANES ? count - e : LANES;
            for (int64_t k = 0; k < lanes; k++) {
                float* to = out + (e + k) * numbers + first + skip;
                if (skip)
                    std::memcpy(to, reinterpret_cast<const float*>(&tile[k]) + skip, numbers * sizeof(float));
                else
                    std::memcpy(to, &tile[k], sizeof tile[k]);
            }
        }
    }
}

// `part(from, count)` of all envs by blocks, after `begin()` in each thread.
template <typename Begin>
void blocks(int64_t envs, int64_t threads, Begin begin) {
    const auto count = [envs](int64_t from) { return envs - from < BLOCK ? envs - from : BLOCK; };
    if (threads == 1) {  // to ask for a team of one would take as long as half a block
        auto part = begin();
        for (int64_t from = 0; from < envs; from += BLOCK) part(from, count(from));
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        auto part = begin();
#pragma omp for schedule(static)
        for (int64_t from = 0; from < envs; from += BLOCK) part(from, count(from));
    }
}

}  // namespace

extern "C" {

// noise: [env, drawn] uniform numbers. bodies: rows of all bodies
void understudy_particles_scatter(const Game* game, const float* noise, float* bodies, int64_t drawn, int64_t envs, int64_t threads) {
    blocks(envs, threads, [=] {
        return [=](int64_t from, int64_t count) {
            for (int64_t r = 0; r < 2 * game->bodies; r++)
                for (int64_t e = from; e < from + count; e++)
                    bodies[r * envs + e] = (2 * noise[e * drawn + r] - 1) * game->scope[r / 2];
        };
    });
}

// rewards: [agent, env], left alone where they are BY_TORCH. actions: [env, agent] or [env, agent, size]
void understudy_particles_step(const Game* game, const State* old, const void* actions, const State* now, float* rewards,
                               int64_t envs, int64_t threads) {
    const Game& g = *game;
    blocks(envs, threads, [=, &g] {
        return [=, &g, body = points(g), force = std::vector<Point>(g.agents), touch = std::vector<Point>(g.agents),
                paid = std::vector<Row>(g.agents)](int64_t from, int64_t count) mutable {
            read(g, *old, envs, from, count, body.data());
            pushed(g, actions, from, count, force.data());
            if (g.solid) {
                contacts(g, body.data(), count, touch.data());
                for (int64_t i = 0; i < g.agents; i++)
                    EACH(e) {
                        force[i].x[e] += touch[i].x[e];
                        force[i].y[e] += touch[i].y[e];
                    }
            }
            for (int64_t i = 0; i < g.agents; i++) {
                Point &position = body[i], &velocity = body[g.bodies + i];
                move(g, i, position, velocity, force[i]);
                const int64_t x = 2 * i * envs + from, y = x + envs;
                write(now->position + x, position.x, count);
                write(now->position + y, position.y, count);
                write(now->velocity + x, velocity.x, count);
                write(now->velocity + y, velocity.y, count);
            }
            if (g.pays == BY_TORCH) return;
            pay(g, body.data(), paid.data());
            for (int64_t i = 0; i < g.agents; i++) write(rewards + i * envs + from, paid[i], count);
        };
    });
}

// table: [number, 2] rows of a block. out: [env, number]
void understudy_particles_see(const Game* game, const State* state, const int32_t* table, float* out, int64_t numbers,
                              int64_t envs, int64_t threads) {
    const Game& g = *game;
    blocks(envs, threads, [=, &g] {
        return [=, &g, seen = points(g)](int64_t from, int64_t count) mutable {
            read(g, *state, envs, from, count, seen.data());
            see(&seen[0].x, table, numbers, count, out + from * numbers);
        };
    });
}
}
