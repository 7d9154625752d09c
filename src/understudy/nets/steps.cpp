// Gradient steps of learning: from rows of what was seen and done to the gradients of a small network, and from those
// to new weights. `steps.py` builds, loads and calls it; there is the why.
//
// A block of rows is gathered, goes through the network, meets its loss and goes back, all while its numbers are in the
// nearest caches. In losses lanes are rows: numbers stand as [number][row].

#include <cmath>

#include "perceptrons.h"

namespace {

constexpr long FIGURES = 4;  // sums that a loss tells, the first that of the weights
constexpr long CHUNK = 1024;  // squares that are added up in float32
constexpr float LOWEST = -3.40282347e38f, HALF_LOG_TWO_PI = 0.918938533f;

// ---- what python hands over; every field there is one here ----

struct Network {
    const int64_t *widths, *groups;  // as in fused.cpp
    const float *const *weights, *const *biases;
    float *const *d_weights, *const *d_biases;
    int64_t agents, sets, depth, activation, threads;  // agents: 1 where all share
};

struct Steps {  // columns [row, agent, ...], and the rows that are learnt from
    const float *inputs, *mean, *std;  // mean: null where inputs are normalised already
    const int64_t* rows;               // null: all, in their order
    int64_t count, agents;
};

void ask_for(const void* from, long bytes) {  // of memory far away
    for (long i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i);
}

struct Head {  // as in maths/heads.py
    int64_t numbers;         // whether actions are `parts` normal numbers; else each part is one of so many choices
    int64_t parts;
    const int64_t* choices;  // [part]
    const void* actions;     // int64 or float, [row, agent, part]
    const uint8_t *legal, *present;  // null: all moves are, and all agents

    void ask_for(long row) const {
        const long size = parts * (numbers ? sizeof(float) : sizeof(int64_t));
        ::ask_for(static_cast<const char*>(actions) + row * size, size);
    }
};

struct Block {
    long count, outputs;
    const int64_t *step, *row;  // each one's place among the steps learnt from, and among the columns' [row, agent]
    float *x, *chance, *old, *old_chance, *done, *allowed;  // [number][row]
    float weight[BLOCK];

    Vec& of(float* numbers, long number, long r) const { return at(numbers + number * BLOCK + r); }
    // a column's number for each row
    Vec take(const float* column, long r) const {
        float taken[LANES];
        for (long i = 0; i < LANES; i++) taken[i] = r + i < count ? column[row[r + i]] : 0.0f;
        Vec y;
        std::memcpy(&y, taken, sizeof y);
        return y;
    }
};

double sum(Vec x) {
    double total = 0;
    for (long i = 0; i < LANES; i++) total += x[i];
    return total;
}

Vec exponential(Vec x) {
    const Power e = power(within(x, 88.0f));
    Vec y = (e.more + 1.0f) * e.scale;
    y = x < -87.0f ? all(0.0f) : y;
    return x > 88.0f ? all(INFINITY) : y;
}

Vec logarithm(Vec x) {
    for (long i = 0; i < LANES; i++) x[i] = std::log(x[i]);
    return x;
}

void turn(const float* from, long width, long count, float* to) {  // [row][whole vectors] to [number][row]
    for (long k = 0; k < width; k++)
        for (long r = 0; r < count; r++) to[k * BLOCK + r] = from[r * up(width, LANES) + k];
}

void turn_back(const float* from, long width, long count, float* to) {
    for (long r = 0; r < count; r++)
        for (long k = 0; k < width; k++) to[r * up(width, LANES) + k] = from[k * BLOCK + r];
}

// ---- distributions over actions ----

struct Found {
    Vec log_prob, entropy;
};

void read_actions(const Head& head, const Block& b) {
    const long moves = head.numbers ? 0 : b.outputs;
    for (long r = 0; r < b.count; r++) {
        for (long k = 0; k < head.parts; k++) {
            const long place = b.row[r] * head.parts + k;
            b.done[k * BLOCK + r] = head.numbers ? static_cast<const float*>(head.actions)[place]
                                                 : static_cast<const int64_t*>(head.actions)[place];
        }
        for (long c = 0; head.legal && c < moves; c++) b.allowed[c * BLOCK + r] = head.legal[b.row[r] * moves + c];
    }
}

bool chose(const Head& head, const Block& b, long r) {  // as `rollout.choosing`
    if (head.present && !head.present[b.row[r]]) return false;
    long moves = 0;
    for (long c = 0; head.legal && c < b.outputs; c++) moves += head.legal[b.row[r] * b.outputs + c];
    return !head.legal || head.numbers || moves > head.parts;
}

// From logits, log-probabilities in their place and the probabilities of `count` choices
void log_softmax(const Head& head, const Block& b, float* x, float* chance, long first, long count, long r) {
    Vec most = all(LOWEST), total{};
    for (long c = first; c < first + count; c++) {
        Vec& logit = b.of(x, c, r);
        if (head.legal) logit = b.of(b.allowed, c, r) == 0.0f ? all(LOWEST) : logit;
        most = logit > most ? logit : most;
    }
    for (long c = first; c < first + count; c++) {
        b.of(chance, c, r) = exponential(b.of(x, c, r) - most);
        total += b.of(chance, c, r);
    }
    const Vec norm = most + logarithm(total), share = 1.0f / total;
    for (long c = first; c < first + count; c++) {
        b.of(x, c, r) -= norm;
        b.of(chance, c, r) *= share;
    }
}

// Of what was done; leaves in `x` log-probabilities and in `chance` probabilities, where actions are choices
Found find(const Head& head, const Block& b, long r) {
    Found all_parts{};
    for (long k = 0, first = 0; k < head.parts; k++) {
        const Vec done = b.of(b.done, k, r);
        if (head.numbers) {
            const Vec log_std = within(b.of(b.x, head.parts + k, r), 10.0f);
            const Vec z = (done - b.of(b.x, k, r)) * exponential(-log_std);
            all_parts.log_prob += -0.5f * z * z - log_std - HALF_LOG_TWO_PI;
            all_parts.entropy += log_std + (0.5f + HALF_LOG_TWO_PI);
            continue;
        }
        log_softmax(head, b, b.x, b.chance, first, head.choices[k], r);
        for (long c = first; c < first + head.choices[k]; c++) {
            all_parts.log_prob += done == float(c - first) ? b.of(b.x, c, r) : all(0.0f);
            all_parts.entropy -= b.of(b.chance, c, r) * b.of(b.x, c, r);
        }
        first += head.choices[k];
    }
    return all_parts;
}

// KL(before || now), after `find`
Vec divergence(const Head& head, const Block& b, long r) {
    Vec kl{};
    for (long k = 0, first = 0; k < head.parts; k++) {
        if (head.numbers) {
            const Vec s = within(b.of(b.old, head.parts + k, r), 10.0f), u = within(b.of(b.x, head.parts + k, r), 10.0f);
            const Vec apart = b.of(b.old, k, r) - b.of(b.x, k, r);
            kl += u - s + 0.5f * (exponential(2.0f * s) + apart * apart) * exponential(-2.0f * u) - 0.5f;
            continue;
        }
        log_softmax(head, b, b.old, b.old_chance, first, head.choices[k], r);
        for (long c = first; c < first + head.choices[k]; c++)
            kl += b.of(b.old_chance, c, r) * (b.of(b.old, c, r) - b.of(b.x, c, r));
        first += head.choices[k];
    }
    return kl;
}

// What `find` left becomes the gradient of by_log_prob * log_prob + by_entropy * entropy
void pull(const Head& head, const Block& b, long r, Vec by_log_prob, Vec by_entropy) {
    for (long k = 0, first = 0; k < head.parts; k++) {
        const Vec done = b.of(b.done, k, r);
        if (head.numbers) {
            Vec &mean = b.of(b.x, k, r), &raw = b.of(b.x, head.parts + k, r);
            const Vec log_std = within(raw, 10.0f), narrow = exponential(-log_std), z = (done - mean) * narrow;
            const Vec by_std = by_log_prob * (z * z - 1.0f) + by_entropy;
            mean = by_log_prob * z * narrow;
            raw = log_std == raw ? by_std : all(0.0f);
            continue;
        }
        Vec entropy{};
        for (long c = first; c < first + head.choices[k]; c++) entropy -= b.of(b.chance, c, r) * b.of(b.x, c, r);
        for (long c = first; c < first + head.choices[k]; c++) {
            const Vec chance = b.of(b.chance, c, r), taken = done == float(c - first) ? all(1.0f) : all(0.0f);
            Vec& x = b.of(b.x, c, r);
            x = by_log_prob * (taken - chance) - by_entropy * chance * (x + entropy);
            if (head.legal) x = b.of(b.allowed, c, r) == 0.0f ? all(0.0f) : x;
        }
        first += head.choices[k];
    }
}

// ---- losses: gradients in place of outputs, of the sum over rows of weight * loss ----

struct Likelihood {  // -log pi of what was done, over the choices that count
    Head head;
    const float* weight;  // of the k-th step learnt from; null: all alike
    static constexpr double least = 1e-8;

    void ask_for(long row) const { head.ask_for(row); }
    void operator()(Block& b, double* figures) const {
        read_actions(head, b);
        for (long r = 0; r < up(b.count, LANES); r++)
            b.weight[r] = r < b.count && chose(head, b, r) ? (weight ? weight[b.step[r]] : 1.0f) : 0.0f;
        for (long r = 0; r < b.count; r += LANES) {
            const Vec w = at(b.weight + r);
            const Vec loss = -find(head, b, r).log_prob;
            figures[0] += sum(w);
            figures[1] += sum(w > 0.0f ? w * loss : all(0.0f));
            pull(head, b, r, -w, Vec{});
            for (long k = 0; k < b.outputs; k++) b.of(b.x, k, r) = w > 0.0f ? b.of(b.x, k, r) : all(0.0f);
        }
    }
};

struct Gain {  // -(clipped gain + bonus * entropy), as in algorithms/ppo.py
    Head head;
    const float *log_prob, *advantages, *there, *params;  // params: before, null where the divergence is not asked for
    double clip, bonus;
    static constexpr double least = 1.0;

    void ask_for(long row) const { head.ask_for(row); }
    void operator()(Block& b, double* figures) const {
        read_actions(head, b);
        if (params)
            for (long r = 0; r < b.count; r++)
                for (long k = 0; k < b.outputs; k++) b.old[k * BLOCK + r] = params[b.row[r] * b.outputs + k];
        const Vec low = all(1 - clip), high = all(1 + clip);
        for (long r = 0; r < b.count; r += LANES) {
            const Vec w = b.take(there, r), advantage = b.take(advantages, r);
            const Found now = find(head, b, r);
            const Vec ratio = exponential(now.log_prob - b.take(log_prob, r));
            const Vec within_range = ratio < low ? low : ratio > high ? high : ratio;
            const Vec free = ratio * advantage, cut = within_range * advantage;
            const Vec zero{};
            figures[0] += sum(w);
            figures[1] += sum(w > 0.0f ? w * (cut < free ? cut : free) : zero);
            figures[2] += sum(w > 0.0f ? w * now.entropy : zero);
            if (params) figures[3] += sum(w > 0.0f ? w * divergence(head, b, r) : zero);
            pull(head, b, r, cut < free ? zero : -w * free, -w * float(bonus));
            for (long k = 0; k < b.outputs; k++) b.of(b.x, k, r) = w > 0.0f ? b.of(b.x, k, r) : zero;
        }
    }
};

struct Squares {  // (output - target)^2, all rows alike
    const float* targets;
    static constexpr double least = 1.0;

    void ask_for(long) const {}
    void operator()(Block& b, double* figures) const {
        for (long r = 0; r < b.count; r += LANES) {
            Vec& x = b.of(b.x, 0, r);
            x -= b.take(targets, r);
            for (long i = 0; i < std::min(LANES, b.count - r); i++) figures[1] += double(x[i]) * x[i];
            x *= 2.0f;
        }
        figures[0] += b.count;
    }
};

// ---- gradients ----

// Each of a task's rows: its step among those learnt from, its place among the columns' [row, agent]
void find_rows(const Call& call, const Steps& steps, const Task& task, int64_t* step, int64_t* row) {
    const auto& members = call.members[task.set];
    const long agents = call.agents == 1 ? steps.agents : members.size();  // who use this set
    long at = task.begin / agents, k = task.begin % agents;
    for (long r = task.begin; r < task.end; r++, step++, row++) {
        *step = at;
        *row = (steps.rows ? steps.rows[at] : at) * steps.agents + (call.agents == 1 ? k : members[k]);
        if (++k == agents) k = 0, at++;
    }
}

void gather(const Call& call, const Steps& steps, const float* mean, const float* narrow, const Block& b, float* to) {
    const long width = call.inputs(), full = up(width, LANES), whole = width / LANES * LANES;
    for (long r = 0; r < b.count; r++, to += full) {
        const float* from = steps.inputs + b.row[r] * width;
        for (long i = 0; i < whole; i += LANES) std::memcpy(to + i, from + i, sizeof(Vec));
        for (long i = whole; i < width; i++) to[i] = from[i];
        for (long i = 0; steps.mean && i < full; i += LANES)
            at(to + i) = within((at(to + i) - at(mean + i)) * at(narrow + i), 10.0f);
    }
}

// Gradients of the weighted mean of `loss`, and its sums of figures
template <class Loss>
void gradients(const Network& network, const Steps& steps, const Loss& loss, double* told) {
    const int64_t envs = steps.count * steps.agents / network.agents;
    const Call call(network.widths, network.groups, envs, network.agents, network.sets, network.depth,
                    network.activation, 0);
    const std::vector<Net> nets = pack(call, network.weights, network.biases, true);
    const std::vector<Task> tasks = share_out(call);
    const long size = nets[0].sums_size, width = call.inputs(), full = up(width, LANES), outputs = call.outputs();
    static thread_local Buffer buffer, scales;
    float* const all_sums = buffer.of(size * std::max<size_t>(tasks.size(), 1));
    float *const mean = scales.of(2 * full), *const narrow = mean + full;
    for (long i = 0; steps.mean && i < full; i++) {
        mean[i] = i < width ? steps.mean[i] : 0.0f;
        narrow[i] = i < width ? 1.0f / steps.std[i] : 0.0f;
    }
    std::vector<double> figures(FIGURES * tasks.size());
#pragma omp parallel for num_threads(workers(network.threads, tasks)) if (workers(network.threads, tasks) > 1) \
    schedule(static)
    for (size_t t = 0; t < tasks.size(); t++) {
        const Task& task = tasks[t];
        const Net& net = nets[task.set];
        Work work(call, 2, BLOCK);
        static thread_local Buffer numbers;
        static thread_local std::vector<int64_t> places;
        const long rows = task.end - task.begin;
        places.resize(2 * rows);
        find_rows(call, steps, task, places.data(), places.data() + rows);
        Block b;
        b.outputs = outputs;
        b.x = numbers.of(6 * outputs * BLOCK);
        b.chance = b.x + outputs * BLOCK, b.old = b.chance + outputs * BLOCK, b.old_chance = b.old + outputs * BLOCK;
        b.done = b.old_chance + outputs * BLOCK, b.allowed = b.done + outputs * BLOCK;
        float* const sums = all_sums + t * size;
        std::memset(sums, 0, size * sizeof(float));
        for (long begin = task.begin; begin < task.end; begin += BLOCK) {
            b.count = std::min(BLOCK, task.end - begin);
            b.step = places.data() + (begin - task.begin), b.row = b.step + rows;
            for (long r = b.count; r < std::min(2 * BLOCK, task.end - begin); r++) {
                ask_for(steps.inputs + b.row[r] * width, width * sizeof(float));
                loss.ask_for(b.row[r]);
            }
            gather(call, steps, mean, narrow, b, work[OUT][0]);
            forward(call, net, work, b.count, true);
            turn(work[OUT][call.depth], outputs, b.count, b.x);
            loss(b, &figures[FIGURES * t]);
            turn_back(b.x, outputs, b.count, work[GRADIENT][call.depth]);
            pull_back(call, net, work, b.count, sums, false);
        }
    }
    std::fill_n(told, FIGURES, 0.0);
    for (size_t t = 0; t < tasks.size(); t++)
        for (long k = 0; k < FIGURES; k++) told[k] += figures[FIGURES * t + k];
    const double share = 1.0 / std::max(told[0], Loss::least);
    for (long k = 1; k < FIGURES; k++) told[k] *= share;
    write_sums(call, nets, tasks, all_sums, share, network.d_weights, network.d_biases);
}

}  // namespace

// told: the sum of the weights; then weighted means of the loss | the gain, the entropy, the divergence | the square

extern "C" void understudy_likelihood(const Network* network, const Steps* steps, const Likelihood* loss, double* told) {
    gradients(*network, *steps, *loss, told);
}

extern "C" void understudy_gain(const Network* network, const Steps* steps, const Gain* loss, double* told) {
    gradients(*network, *steps, *loss, told);
}

extern "C" void understudy_squares(const Network* network, const Steps* steps, const Squares* loss, double* told) {
    gradients(*network, *steps, *loss, told);
}

struct Group {  // parameters of an optimizer, as torch.optim.Adam and AdamW keep them
    int64_t tensors;
    const int64_t* sizes;
    float *const *weights, *const *gradients, *const *first, *const *second, *const *steps;
    double rate, beta_first, beta_second, epsilon, decay, most;  // most: the longest that the gradient may be
};

extern "C" void understudy_adam(const Group* given) {
    const Group& group = *given;
    double squares = 0;
    for (long t = 0; t < group.tensors; t++)
        for (long begin = 0; begin < group.sizes[t]; begin += CHUNK) {
            const float* g = group.gradients[t] + begin;
            const long count = std::min(CHUNK, group.sizes[t] - begin);
            float sums[LANES] = {};
            for (long i = 0; i + LANES <= count; i += LANES)
                for (long k = 0; k < LANES; k++) sums[k] += g[i + k] * g[i + k];
            for (long i = count / LANES * LANES; i < count; i++) squares += double(g[i]) * g[i];
            for (long k = 0; k < LANES; k++) squares += sums[k];
        }
    const float share = group.most / (std::sqrt(squares) + 1e-6), cut = share > 1.0f ? 1.0f : share;
    const float keep_first = group.beta_first, keep_second = group.beta_second, epsilon = group.epsilon;
    const float add_first = 1 - group.beta_first, add_second = 1 - group.beta_second;
    const float shrink = 1 - group.rate * group.decay;
    for (long t = 0; t < group.tensors; t++) {
        const double step = *group.steps[t] += 1.0f;
        const float rate = group.rate / (1 - std::pow(group.beta_first, step));
        const float widen = 1 / std::sqrt(1 - std::pow(group.beta_second, step));
        float *__restrict w = group.weights[t], *__restrict m = group.first[t], *__restrict v = group.second[t];
        const float* __restrict gradient = group.gradients[t];
        for (long i = 0; i < group.sizes[t]; i++) {
            const float g = gradient[i] * cut;
            m[i] = keep_first * m[i] + add_first * g;
            v[i] = keep_second * v[i] + add_second * g * g;
            w[i] = w[i] * shrink - rate * m[i] / (std::sqrt(v[i]) * widen + epsilon);
        }
    }
}
