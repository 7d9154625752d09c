// The kitchen's step, what its cooks perceive, and the whole state as one vector: those of `kitchen.py` and
// `kitchen_features.py`, where the rules and the names are told. `kitchen_native.py` builds, loads and calls it.
//
// Each env is one pass over a few cache lines. Of what a cook perceives most are zeros and a one: rows are written from
// left to right, each part over the end of the one before it, so that a part is one store of a whole vector. What is
// nearest is a minimum over the benches of rows of a table, for all kinds of target and all four moves at once.
//
// A state that holds what no kitchen does (a cook on no floor, a fourth onion) is refused: torch says what is wrong.

#include <cstdint>
#include <cstring>

namespace {

enum { FLOOR, COUNTER, ONIONS, DISHES, POT, SERVING };  // tiles, as in kitchen_board.py
enum { NOTHING, ONION, DISH, SOUP };
enum { STAY = 4, INTERACT = 5 };
enum { TAKE_ONION, TAKE_DISH, PUT, PICK, FILL, LIGHT, LADLE, SERVE, NO_EFFECT };
constexpr int16_t LIT = -1, LONGEST = 30000;
constexpr int8_t FAR = 120;
constexpr int TARGETS = 10, LANES = 16;  // lanes of a table's row: the kinds of target, and room to a whole vector
constexpr int COOKS = 9, BENCHES = 256;  // at most
constexpr int BLOCK = 64;                // envs that go through a step together

// What a cook can face: counters by what lies on them, pots by what can be done with them, and the rest.
enum Stage {
    FREE, HAS_ONION, HAS_DISH, HAS_SOUP,
    TO_FILL, TO_FILL_OR_LIGHT, TO_LIGHT, READY, BUSY,
    AT_FLOOR, AT_ONIONS, AT_DISHES, AT_SERVING, STAGES
};

// What an interact does there with empty hands, an onion, a dish, a soup.
constexpr uint8_t EFFECTS[STAGES][4] = {
    {NO_EFFECT, PUT, PUT, PUT},
    {PICK, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {PICK, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {PICK, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {NO_EFFECT, FILL, NO_EFFECT, NO_EFFECT},
    {LIGHT, FILL, NO_EFFECT, NO_EFFECT},
    {LIGHT, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {NO_EFFECT, NO_EFFECT, LADLE, NO_EFFECT},
    {NO_EFFECT, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {NO_EFFECT, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {TAKE_ONION, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {TAKE_DISH, NO_EFFECT, NO_EFFECT, NO_EFFECT},
    {NO_EFFECT, NO_EFFECT, NO_EFFECT, SERVE},
};
constexpr Stage STAGE_OF_TILE[6] = {AT_FLOOR, FREE, AT_ONIONS, AT_DISHES, BUSY, AT_SERVING};

typedef int8_t Bytes __attribute__((vector_size(LANES)));
typedef int8_t FourBytes __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Four __attribute__((vector_size(16)));

template <typename T>
T load(const void* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <typename T>
void store(void* to, T value) { std::memcpy(to, &value, sizeof value); }

}  // namespace

struct Kitchen {  // as in kitchen_native.py
    int64_t cooks, cells, past, places, counters, pots, benches, cook_time, current, width, height, features, whole;
    double points;              // of a soup of three onions
    const int32_t* tile;        // [cell]
    const int32_t* ahead;       // [cell, 4]
    const int32_t* walkable;    // [cell, 4] all bits set where the cell ahead is floor, else none
    const int32_t *x, *y;       // [cell]
    const int32_t* place;       // [cell], -1 where there is no floor
    const int32_t* spots;       // [spot] cells: the counters, then the pots
    const int32_t* spot;        // [cell] its number, or that of its tile, counted from behind the last spot
    const int32_t* bench;       // [bench] cells
    const int32_t* order;       // [node, 2] the nearest pots, -1 where there are no more
    const int8_t* near_sources; // [node, 16] fewest presses to a target of each kind; FAR but for sources
    const int8_t* after_sources;// [place, 4, 16] the same after each of the moves
    const int8_t* near_spots;   // [node, spot, 16] presses to the spot, in all lanes
    const int8_t* after_spots;  // [place, spot, 4, 16]
    const float *right, *down;  // [2 width - 1], [2 height - 1] offsets, from the furthest left or up
    const float* close;         // [width + height] nearness of a cook that many cells away
    const float* cooked;        // [cook_time + 1]
};

struct State {  // as in kitchen_board.py
    int64_t *cell, *facing;
    int16_t *hands, *things;
    int64_t *last_actions, *soups, *age;
};

namespace {

// Lanes that a spot of this stage leaves alone: the kinds of target that it is none of.
struct Others {
    int8_t lanes[BUSY + 1][4 * LANES];
    constexpr Others() : lanes() {
        constexpr int kinds[BUSY + 1][2] = {{6, 6}, {7, 7}, {8, 8}, {9, 9}, {3, 3}, {3, 4}, {4, 4}, {5, 5}, {-1, -1}};
        for (int stage = 0; stage <= BUSY; stage++)
            for (int lane = 0; lane < 4 * LANES; lane++) {
                int kind = lane % LANES;
                lanes[stage][lane] = kind == kinds[stage][0] || kind == kinds[stage][1] ? 0 : 127;
            }
    }
};
constexpr Others OTHERS;

Stage pot_stage(const Kitchen& k, int onions, int ticks) {
    constexpr Stage waits[2][4] = {{TO_FILL, TO_FILL, TO_FILL, BUSY},
                                   {TO_FILL, TO_FILL_OR_LIGHT, TO_FILL_OR_LIGHT, TO_LIGHT}};
    return ticks == 0 ? waits[k.current][onions] : ticks >= k.cook_time ? READY : BUSY;
}

// ---- step ----

// One cook's interact; 1 + whether it is paid if a soup was served, else 0.
int interact(const Kitchen& k, int tile, int16_t* hand, int16_t* thing) {
    Stage stage = tile == COUNTER ? Stage(thing[0]) : tile == POT ? pot_stage(k, thing[1], thing[2]) : STAGE_OF_TILE[tile];
    int served = 0;
    switch (EFFECTS[stage][hand[0]]) {
        case TAKE_ONION: hand[0] = ONION; return 0;
        case TAKE_DISH: hand[0] = DISH; return 0;
        case PUT: std::memcpy(thing, hand, 6); break;
        case PICK:
        case LADLE:
            std::memcpy(hand, thing, 6);
            std::memset(thing, 0, 6);
            return 0;
        case FILL:
            thing[0] = SOUP;
            thing[1] += 1;
            if (!k.current && thing[1] == 3) thing[2] = LIT;
            break;
        case LIGHT: thing[2] = LIT; return 0;
        case SERVE: served = 1 + (hand[1] == 3); break;
        default: return 0;
    }
    std::memset(hand, 0, 6);
    return served;
}

bool step(const Kitchen& k, const State& old, const int64_t* actions, State& now, float* rewards, int64_t from, int64_t to) {
    const int64_t cooks = k.cooks, hands = cooks * 3, things = k.cells * 3, last = cooks * k.past;
    std::memcpy(now.hands + from * hands, old.hands + from * hands, (to - from) * hands * sizeof(int16_t));
    std::memcpy(now.things + from * things, old.things + from * things, (to - from) * things * sizeof(int16_t));
    // all last actions move one on; the place of the newest is written below
    std::memcpy(now.last_actions + from * last + 1, old.last_actions + from * last, ((to - from) * last - 1) * sizeof(int64_t));
    const int limit = k.current ? int(k.cook_time) : LONGEST;
    uint64_t odd = 0;
    for (int64_t env = from; env < to; env++) {
        const int64_t *cell = old.cell + env * cooks, *facing = old.facing + env * cooks, *action = actions + env * cooks;
        int16_t *hand = now.hands + env * hands, *thing = now.things + env * things;
        for (int64_t i = 0; i < cooks; i++) {
            if (uint64_t(cell[i]) >= uint64_t(k.cells) || k.place[cell[i]] < 0) return false;
            odd |= (facing[i] & ~3) | (hand[3 * i] & ~3) | (uint64_t(action[i]) > INTERACT);
        }
        if (odd) return false;
        int served = 0, paid = 0;
        for (int64_t i = 0; i < cooks; i++) {  // in turn: what one takes, the next does not find
            if (action[i] != INTERACT) continue;
            int front = k.ahead[4 * cell[i] + facing[i]];
            int16_t* faced = thing + 3 * front;
            if (faced[0] & ~3 || faced[1] & ~3) return false;
            int done = interact(k, k.tile[front], hand + 3 * i, faced);
            served += done > 0;
            paid += done > 1;
        }
        for (int64_t p = k.counters; p < k.counters + k.pots; p++) {
            int16_t& ticks = thing[3 * k.spots[p] + 2];
            odd |= ticks < LIT || ticks > LONGEST;
            int next = ticks == LIT ? 1 : ticks > 0 ? ticks + 1 : 0;
            ticks = next < limit ? next : limit;
        }
        int64_t wanted[COOKS];
        for (int64_t i = 0; i < cooks; i++) {
            bool moves = action[i] < STAY;
            int64_t turned = moves ? action[i] : facing[i];
            int64_t ahead = k.ahead[4 * cell[i] + turned], walks = moves & k.walkable[4 * cell[i] + turned];
            wanted[i] = walks ? ahead : cell[i];
            now.facing[env * cooks + i] = turned;
            now.last_actions[env * last + i * k.past] = action[i];
            rewards[env * cooks + i] = float(paid) * float(k.points);
        }
        bool collide = false;
        for (int64_t i = 0; i < cooks; i++)
            for (int64_t j = 0; j < i; j++)
                collide |= (wanted[i] == wanted[j]) | ((wanted[i] == cell[j]) & (wanted[j] == cell[i]));
        for (int64_t i = 0; i < cooks; i++) now.cell[env * cooks + i] = collide ? cell[i] : wanted[i];
        now.soups[env] = old.soups[env] + served;
        now.age[env] = old.age[env] + 1;
    }
    return !odd;
}

// ---- observe ----

// Zeros and a one at `place`, or none where it is -1 or beyond the last.
template <typename T>
void one_hot(float* out, int place) {
    alignas(64) static constexpr float line[3 * LANES] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    store(out, load<T>(line + LANES - place));
}
typedef float Floats4 __attribute__((vector_size(16)));
typedef float Floats8 __attribute__((vector_size(32)));

Floats4 flags(Four which) { return (Floats4)(which & 0x3f800000); }  // 1.0 where all bits are set

template <int COOKS_OR_ANY>
bool observe(const Kitchen& k, const State& state, float* out, int64_t env) {
    const int cooks = COOKS_OR_ANY ? COOKS_OR_ANY : k.cooks, spots = k.counters + k.pots;
    const int64_t *at = state.cell + env * cooks, *facings = state.facing + env * cooks;
    const int16_t *hands = state.hands + env * cooks * 3, *things = state.things + env * k.cells * 3;
    uint8_t stages[BENCHES + 6];
    int cell[COOKS], facing[COOKS], hand[COOKS];
    int64_t odd = 0;
    for (int i = 0; i < cooks; i++) {
        if (uint64_t(at[i]) >= uint64_t(k.cells) || k.place[at[i]] < 0) return false;
        odd |= (facings[i] & ~3) | (hands[3 * i] & ~3);
        cell[i] = at[i];
        facing[i] = facings[i] & 3;
        hand[i] = hands[3 * i] & 3;
    }
    for (int s = 0; s < k.counters; s++) {
        int kind = things[3 * k.spots[s]];
        odd |= kind & ~3;
        stages[s] = kind & 3;
    }
    for (int s = k.counters; s < spots; s++) {
        int onions = things[3 * k.spots[s] + 1], ticks = things[3 * k.spots[s] + 2];
        odd |= (onions & ~3) | (ticks < 0);
        stages[s] = pot_stage(k, onions & 3, ticks);
    }
    for (int tile = 0; tile < 6; tile++) stages[spots + tile] = STAGE_OF_TILE[tile];

    for (int me = 0; me < cooks; me++) {
        const int place = k.place[cell[me]], node = 4 * place + facing[me];
        const int front = k.ahead[4 * cell[me] + facing[me]];
        const int lies = things[3 * front];
        const int64_t did = state.last_actions[(env * cooks + me) * k.past];
        odd |= (lies & ~3) | (uint64_t(did) > 6);
        if (odd) return false;

        one_hot<Floats4>(out, facing[me]);
        one_hot<Floats4>(out + 4, hand[me] - 1);
        one_hot<Floats8>(out + 7, did);
        one_hot<Floats8>(out + 13, k.tile[front]);
        one_hot<Floats4>(out + 19, lies - 1);
        Four around = load<Four>(k.ahead + 4 * cell[me]), floor = load<Four>(k.walkable + 4 * cell[me]), taken = {};
        bool met = false;
        for (int i = 0; i < cooks; i++) {
            taken |= around == cell[i];
            met |= front == cell[i];
        }
        out[22] = met;
        one_hot<Floats>(out + 23, EFFECTS[stages[k.spot[front]]][hand[me]]);
        Four faces = Four{0, 1, 2, 3} == facing[me];
        store(out + 32, flags(floor & ~taken));
        store(out + 36, flags(floor & taken));
        store(out + 40, flags(faces & ~(floor & ~taken)));

        Bytes near = load<Bytes>(k.near_sources + LANES * node);
        FourBytes after = load<FourBytes>(k.after_sources + 4 * LANES * place);
        const int8_t *near_row = k.near_spots + LANES * spots * node, *after_row = k.after_spots + 4 * LANES * spots * place;
        for (int s = 0; s < spots; s++) {
            const int8_t* others = OTHERS.lanes[stages[s]];
            Bytes one = load<Bytes>(near_row + LANES * s) | load<Bytes>(others);
            FourBytes four = load<FourBytes>(after_row + 4 * LANES * s) | load<FourBytes>(others);
            near = one < near ? one : near;
            after = four < after ? four : after;
        }
        Floats presses = __builtin_convertvector(__builtin_convertvector(near, Ints), Floats);
        Floats nearness = 1.0f / (1.0f + presses);
        store(out + 44, presses == float(FAR) ? nearness - nearness : nearness);
        for (int d = 0; d < 4; d++) {
            Bytes then = load<Bytes>(reinterpret_cast<const int8_t*>(&after) + LANES * d);
            Bytes sign = (near < then) - (near > then);  // true is -1
            store(out + 54 + TARGETS * d, __builtin_convertvector(__builtin_convertvector(sign, Ints), Floats));
        }
        out += 94;
        for (int ahead = 1; ahead < cooks; ahead++) {
            int i = me + ahead < cooks ? me + ahead : me + ahead - cooks;
            one_hot<Floats4>(out, facing[i]);
            one_hot<Floats4>(out + 4, hand[i] - 1);
            out += 7;
        }
        for (int ahead = 1; ahead < cooks; ahead++) {
            int i = me + ahead < cooks ? me + ahead : me + ahead - cooks;
            int right = k.x[cell[i]] - k.x[cell[me]], down = k.y[cell[i]] - k.y[cell[me]];
            out[0] = k.right[right + k.width - 1];
            out[1] = k.down[down + k.height - 1];
            out[2] = k.close[(right < 0 ? -right : right) + (down < 0 ? -down : down)];
            out += 3;
        }
        for (int p = 0; p < 2; p++, out += 6) {
            int pot = k.order[2 * node + p];
            if (pot < 0) {
                std::memset(out, 0, 6 * sizeof(float));
                continue;
            }
            const int16_t* thing = things + 3 * k.spots[k.counters + pot];
            int ticks = thing[2], done = ticks >= k.cook_time;
            one_hot<Floats4>(out, thing[1] - 1);
            out[3] = (ticks > 0) & !done;
            out[4] = k.cooked[done ? k.cook_time : ticks];
            out[5] = done;
        }
    }
    return true;
}

// ---- whole ----

float* flatten(const Kitchen& k, const int16_t* thing, float* out, bool& odd) {
    int kind = thing[0], ticks = thing[2], cooked = ticks < k.cook_time ? ticks : int(k.cook_time);
    odd |= (kind & ~3) != 0;
    one_hot<Floats4>(out, (kind & 3) - 1);
    out[3] = float(thing[1]) / 3.0f;
    out[4] = float(cooked) / float(k.cook_time);
    out[5] = float(ticks - cooked) / 400.0f;
    return out + 6;
}

bool whole(const Kitchen& k, const State& state, float* out, int64_t env) {
    const int64_t cooks = k.cooks, past = k.past;
    const int64_t *cell = state.cell + env * cooks, *facing = state.facing + env * cooks;
    const int64_t* last = state.last_actions + env * cooks * past;
    bool odd = false;
    std::memset(out, 0, k.whole * sizeof(float));
    for (int64_t i = 0; i < cooks; i++, out += k.places) {
        if (uint64_t(cell[i]) >= uint64_t(k.cells) || k.place[cell[i]] < 0) return false;
        out[k.place[cell[i]]] = 1;
    }
    for (int64_t i = 0; i < cooks; i++, out += 4) {
        odd |= uint64_t(facing[i]) > 3;
        out[facing[i] & 3] = 1;
    }
    for (int64_t i = 0; i < cooks * past; i++, out += 7) {
        if (uint64_t(last[i]) > 6) return false;
        out[last[i]] = 1;
    }
    for (int64_t i = 0; i < cooks; i++) out = flatten(k, state.hands + (env * cooks + i) * 3, out, odd);
    for (int64_t b = 0; b < k.benches; b++) out = flatten(k, state.things + (env * k.cells + k.bench[b]) * 3, out, odd);
    out[0] = float(state.soups[env]) / 20.0f;
    out[1] = float(state.age[env]) / 400.0f;
    return !odd;
}

// `part(from, to)` of all envs by blocks; whether all of them could be.
template <typename Part>
int64_t over(int64_t envs, int64_t threads, Part part) {
    int64_t odd = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(| : odd) if (threads > 1)
    for (int64_t from = 0; from < envs; from += BLOCK)
        odd |= !part(from, from + BLOCK < envs ? from + BLOCK : envs);
    return !odd;
}

// `row(k, state, out, env)` of all envs, each `width` floats wide. `k` and `state` are copied, so that no float written
// can be taken for a part of them.
template <typename Row>
int64_t rows(const Kitchen* known, const State* seen, float* out, int64_t width, int64_t envs, int64_t threads, Row row) {
    return over(envs, threads, [=](int64_t from, int64_t to) {
        const Kitchen k = *known;
        const State state = *seen;
        for (int64_t env = from; env < to; env++) {
            for (int64_t ahead = 0; ahead < width; ahead += LANES) __builtin_prefetch(out + (env + 2) * width + ahead, 1);
            if (!row(k, state, out + env * width, env)) return false;
        }
        return true;
    });
}

}  // namespace

extern "C" {

int64_t understudy_kitchen_step(
    const Kitchen* k, const State* old, const int64_t* actions, State* now, float* rewards, bool* terminated, int64_t envs,
    int64_t threads
) {
    std::memset(terminated, 0, envs);
    return over(envs, threads, [&](int64_t from, int64_t to) { return step(*k, *old, actions, *now, rewards, from, to); });
}

int64_t understudy_kitchen_observe(const Kitchen* k, const State* state, float* out, int64_t envs, int64_t threads) {
    auto two = [](auto&&... given) { return observe<2>(given...); };
    auto any = [](auto&&... given) { return observe<0>(given...); };
    const int64_t width = k->cooks * k->features;
    return k->cooks == 2 ? rows(k, state, out, width, envs, threads, two) : rows(k, state, out, width, envs, threads, any);
}

int64_t understudy_kitchen_whole(const Kitchen* k, const State* state, float* out, int64_t envs, int64_t threads) {
    return rows(k, state, out, k->whole, envs, threads, [](auto&&... given) { return whole(given...); });
}
}
